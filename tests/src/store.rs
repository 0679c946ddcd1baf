//! MinIO: a real S3 server on the loopback.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Process, TempDir, free_ports, run_ok, wait_for};
use crate::{tools, wire};

const USER: &str = "firn-tests";
const PASSWORD: &str = "firn-tests-password";
const BUCKET: &str = "firn";
const REGION: &str = "us-east-1";
const TRANSFER_DEADLINE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Minio {
    process: Process,
    port: u16,
    work: TempDir,
}

impl Minio {
    /// A server with one empty bucket.
    pub fn start() -> Minio {
        let [port] = free_ports();
        let work = TempDir::new("minio");
        let drive = work.path().join("drive");
        std::fs::create_dir_all(drive.join(BUCKET)).expect("create the bucket");
        let mut command = Command::new(tools::program("minio"));
        command.args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")]).arg(&drive);
        command.env("MINIO_ROOT_USER", USER).env("MINIO_ROOT_PASSWORD", PASSWORD);
        command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off");
        let process = Process::start("minio", command, work.path());
        let mut minio = Minio { process, port, work };
        minio.wait_ready();
        minio
    }

    fn wait_ready(&mut self) {
        let address = format!("127.0.0.1:{}", self.port);
        let process = &mut self.process;
        wait_for("MinIO's first answer", Duration::from_secs(30), || {
            process.assert_running();
            let live = wire::http_get(&address, "/minio/health/ready");
            live.is_ok_and(|(status, _)| status == 200).then_some(())
        });
    }

    /// The store's URL for a broker.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/prefix")
    }

    /// What a broker's environment must hold to reach it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", USER),
            ("AWS_SECRET_ACCESS_KEY", PASSWORD),
            ("AWS_REGION", REGION),
            ("AWS_ENDPOINT", &format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true"),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Names of the objects in the bucket; one drive of MinIO keeps each as a directory with an `xl.meta`.
    pub fn objects(&self) -> Vec<String> {
        let bucket = self.work.path().join("drive").join(BUCKET);
        let mut found = Vec::new();
        collect(&bucket, &bucket, &mut found);
        found.sort();
        found
    }

    fn segments(&self) -> impl Iterator<Item = String> {
        self.objects().into_iter().filter(|name| name.ends_with(".seg"))
    }

    /// Multipart uploads that were neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> usize {
        let uploads = self.work.path().join("drive/.minio.sys/multipart");
        let folders = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
        folders(&uploads).map(|object| folders(&object.path()).count()).sum()
    }

    /// Copies every segment object into `work`, as `<number>-<file name>`.
    pub fn download(&self, work: &Path) {
        let pairs = self.segments().enumerate().map(|(number, object)| {
            let file = object.rsplit('/').next().unwrap_or_default();
            let output = work.join(format!("{number:04}-{file}"));
            format!("url = \"{}\"\noutput = \"{}\"\n", self.object_url(&object), output.display())
        });
        self.curl(&pairs.collect::<String>(), &[]);
    }

    /// MB/s of reading every segment object once in ranges of 8 MiB, four at a time: what the store gives at best.
    pub fn ranged_read_mb_per_second(&self) -> f64 {
        const RANGE_BYTES: u64 = 8 << 20;
        let objects: Vec<String> = self.segments().collect();
        let heads: String = objects
            .iter()
            .map(|object| format!("url = \"{}\"\noutput = \"/dev/null\"\n", self.object_url(object)))
            .collect();
        let sizes = self.curl(&heads, &["--head", "--write-out", "%header{content-length}\\n"]);
        let sizes: Vec<u64> = sizes.lines().map(|size| size.parse().expect("an object's size")).collect();
        assert_eq!(sizes.len(), objects.len(), "a size for each object");
        // Each range is a transfer with options of its own, for which curl's word is `next`.
        let mut requests = Vec::new();
        let mut total = 0;
        for (object, size) in objects.iter().zip(sizes) {
            total += size;
            for start in (0..size).step_by(RANGE_BYTES as usize) {
                let end = size.min(start + RANGE_BYTES) - 1;
                let url = self.object_url(object);
                requests.push(format!(
                    "{}url = \"{url}\"\nrange = \"{start}-{end}\"\noutput = \"/dev/null\"\n",
                    self.signing()
                ));
            }
        }
        let started = Instant::now();
        self.curl(&requests.join("next\n"), &["--parallel", "--parallel-max", "4"]);
        total as f64 / 1e6 / started.elapsed().as_secs_f64()
    }

    fn object_url(&self, object: &str) -> String {
        format!("http://127.0.0.1:{}/{BUCKET}/{object}", self.port)
    }

    fn signing(&self) -> String {
        format!(
            "user = \"{USER}:{PASSWORD}\"\naws-sigv4 = \"aws:amz:{REGION}:s3\"\nfail\nsilent\nshow-error\n"
        )
    }

    /// One curl that does all of these requests; each must succeed. Gives what it prints.
    fn curl(&self, requests: &str, arguments: &[&str]) -> String {
        let config = format!("{}{requests}", self.signing());
        run_ok(Command::new("curl").args(arguments).args(["--config", "-"]), &config, TRANSFER_DEADLINE)
    }
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.file_name().is_some_and(|name| name == "xl.meta") {
            let object = directory.strip_prefix(root).expect("below the bucket");
            found.push(object.to_string_lossy().into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_listed_and_downloaded() {
        let minio = Minio::start();
        let work = TempDir::new("put");
        let source = work.path().join("source");
        std::fs::write(&source, vec![7_u8; 20 << 20]).expect("write a file");
        let name = "prefix/topics/t.id/0/00000000000000000000-00000000000000000009-0-1-2.seg";
        let url = minio.object_url(name);
        minio.curl(&format!("url = \"{url}\"\nupload-file = \"{}\"\n", source.display()), &[]);
        assert_eq!(minio.objects(), [name]);
        let into = TempDir::new("download");
        minio.download(into.path());
        let file = into.path().join("0000-00000000000000000000-00000000000000000009-0-1-2.seg");
        assert_eq!(std::fs::metadata(file).expect("downloaded").len(), 20 << 20);
        assert!(minio.ranged_read_mb_per_second() > 0.0);
    }
}

//! MinIO: a real S3 server on the loopback.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore, ObjectStoreExt};

use crate::process::{Process, TempDir, free_ports, wait_for};
use crate::{tools, wire};

const USER: &str = "firn-tests";
const PASSWORD: &str = "firn-tests-password";
const BUCKET: &str = "firn";

#[derive(Debug)]
pub struct Minio {
    process: Process,
    port: u16,
    _work: TempDir,
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
        let mut minio = Minio { process, port, _work: work };
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
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT", &format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true"),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Copies every segment object into `work`, as `<number>-<file name>`.
    pub fn download(&self, work: &Path) {
        let store = self.client();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut listed: Vec<_> = store.list(None).try_collect().await.expect("list the bucket");
            listed.sort_by(|left, right| left.location.cmp(&right.location));
            for (number, object) in listed.iter().enumerate() {
                let name = object.location.filename().expect("a name");
                if name.ends_with(".seg") {
                    let got = store.get(&object.location).await.expect("get an object");
                    let bytes = got.bytes().await.expect("read an object");
                    std::fs::write(work.join(format!("{number:04}-{name}")), bytes).expect("write an object");
                }
            }
        });
    }

    /// MB/s of reading every segment object once in ranges of 8 MiB, four at a time: what the store gives at best.
    pub fn ranged_read_mb_per_second(&self) -> f64 {
        const RANGE_BYTES: u64 = 8 << 20;
        const AT_A_TIME: usize = 4;
        let store = self.client();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listed: Vec<_> = store.list(None).try_collect().await.expect("list the bucket");
            let started = std::time::Instant::now();
            let ranges = listed.iter().flat_map(|object| {
                let starts = (0..object.size).step_by(RANGE_BYTES as usize);
                starts.map(|start| (&object.location, start..object.size.min(start + RANGE_BYTES)))
            });
            let reads = futures_util::stream::iter(ranges).map(|(name, range)| store.get_range(name, range));
            let sizes = reads.buffered(AT_A_TIME).map_ok(|bytes| bytes.len() as u64);
            let total = sizes.try_fold(0, async |sum, bytes| Ok(sum + bytes)).await.expect("read ranges");
            total as f64 / 1e6 / started.elapsed().as_secs_f64()
        })
    }

    fn client(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(format!("http://127.0.0.1:{}", self.port))
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id(USER)
            .with_secret_access_key(PASSWORD)
            .build()
            .expect("a client of the store")
    }
}

//! Real faults: file systems on loop images whose power can be cut, and small ones that can be filled.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::process::{TempDir, as_root, run, run_ok};

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

/// A file system in a file, mounted. Unmounted on drop.
#[derive(Debug)]
pub struct LoopImage {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
    _work: TempDir,
}

impl LoopImage {
    /// XFS wants at least 300 MiB.
    pub fn create(kind: FileSystem, size_mib: u64) -> LoopImage {
        let work = TempDir::new("image");
        let image = work.path().join("image");
        let mount = work.path().join("mount");
        std::fs::create_dir(&mount).expect("create the mount point");
        let file = std::fs::File::create(&image).expect("create the image");
        file.set_len(size_mib << 20).expect("size the image");
        let (program, quiet) = match kind {
            FileSystem::Ext4 => ("mkfs.ext4", "-q"),
            FileSystem::Xfs => ("mkfs.xfs", "-q"),
        };
        run_ok(as_root(program).arg(quiet).arg(&image), "", DEADLINE);
        let mut made = LoopImage { image, mount, mounted: false, _work: work };
        made.mount();
        made
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn mount(&mut self) {
        run_ok(as_root("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount), "", DEADLINE);
        self.mounted = true;
        if !rustix::process::geteuid().is_root() {
            run_ok(as_root("chmod").arg("0777").arg(&self.mount), "", DEADLINE);
        }
    }

    /// Writes everything that is cached to the image.
    pub fn sync(&self) {
        run_ok(as_root("sync").arg("--file-system").arg(&self.mount), "", DEADLINE);
    }

    /// From here on the file system takes nothing more: every write and fsync fails, and nothing cached is written.
    pub fn cut_power(&self) {
        run_ok(as_root("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.mount), "", DEADLINE);
    }

    /// Power is back: unmounted, and mounted again through the journal's recovery. No process may hold files open.
    pub fn restore_power(&mut self) {
        self.unmount();
        self.mount();
    }

    /// Bytes that are free, to root too.
    pub fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.mount).expect("ask for the free space");
        space.f_bfree * space.f_frsize
    }

    /// Nothing is written from here on, and whoever wants to waits, until it is thawed: at last after `at_most`, by a
    /// process of its own that outlives this one. A file system that is left frozen could never be unmounted.
    pub fn freeze(&self, at_most: Duration) {
        let seconds = at_most.as_secs_f64().to_string();
        let script = "sleep \"$1\"; fsfreeze --unfreeze \"$0\" 2>/dev/null";
        let mut late = as_root("setsid");
        late.args(["--fork", "sh", "-c", script]).arg(&self.mount).arg(seconds);
        late.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(late.status().is_ok_and(|status| status.success()), "{late:?}");
        run_ok(as_root("fsfreeze").arg("--freeze").arg(&self.mount), "", DEADLINE);
    }

    /// Ends a freeze, if it has not ended by itself.
    pub fn thaw(&self) {
        run(as_root("fsfreeze").arg("--unfreeze").arg(&self.mount), "", DEADLINE);
    }

    /// The device below it, as `major:minor`.
    pub fn device(&self) -> String {
        let number = std::fs::metadata(&self.mount).expect("look at the mount").dev();
        format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
    }

    fn unmount(&mut self) {
        crate::process::wait_for("the unmount", DEADLINE, || {
            run(as_root("umount").arg(&self.mount), "", DEADLINE).status.success().then_some(())
        });
        self.mounted = false;
    }
}

impl Drop for LoopImage {
    fn drop(&mut self) {
        if self.mounted {
            let lazily = as_root("umount").arg("-l").arg(&self.mount).output();
            if !lazily.is_ok_and(|output| output.status.success()) {
                eprintln!("cannot unmount {}", self.mount.display());
            }
        }
    }
}

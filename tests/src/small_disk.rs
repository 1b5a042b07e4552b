//! A small file system of its own, to be filled.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// See the module documentation. Dropped, it is unmounted.
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounted with room for `mib` MiB in so many files; `None`, with the reason printed, where that may not
    /// be.
    ///
    /// # Panics
    /// Where not even a temporary folder may be made.
    pub fn mount(mib: u64, files: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let size = format!("size={mib}m,nr_inodes={files}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        let why = match mounted {
            Ok(done) if done.status.success() => return Some(Self { folder }),
            Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        println!("skipped: a small tmpfs cannot be mounted here ({why})");
        None
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left, for bytes and for files; the folder that holds it. Again: what
    /// others have let go since.
    ///
    /// # Panics
    /// When there is not even room for a file, the first time.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let _ = fs::create_dir(&ballast); // it may be there
        let mut file = fs::File::options().create(true).append(true).open(ballast.join("bytes"));
        let file = file.as_mut().expect("a file");
        for block in [1024 * 1024, 64 * 1024, 512] {
            while file.write_all(&vec![0_u8; block]).is_ok() {}
        }
        let mut number = fs::read_dir(&ballast).expect("a folder").count();
        while fs::File::create(ballast.join(number.to_string())).is_ok() {
            number += 1;
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output(); // shown by df if it fails
    }
}

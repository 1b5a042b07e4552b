//! The data folder of a broker: one process at a time, one format, one identity.
//!
//! ```text
//! <data>/LOCK       held by the process that serves the folder, its pid inside
//! <data>/FORMAT     version of everything below, as a decimal number
//! <data>/broker.id  the broker's id, as a decimal number
//! <data>/disk.id    a random number: tells this folder from another one with the same broker.id
//! <data>/routes     the routes as they were last known
//! <data>/registry   the embedded registry
//! <data>/shards/N   one shard each
//! <data>/members/N  which group shard N is of, for those that several brokers have
//! <data>/drained    there while the broker is drained
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use grus_protocol::ids::{BrokerId, ShardId};
pub use grus_registry::folder::FolderError;
use grus_registry::folder::{LockedFolder, at, number_in};

/// A data folder held by this process, until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    folder: LockedFolder,
    broker: BrokerId,
    disk: u64,
}

impl DataFolder {
    /// Takes the folder for this process, and makes it if it is not there.
    ///
    /// # Errors
    /// [`FolderError`]; a folder of another process or of a newer format is left untouched.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let folder = LockedFolder::open(path)?;
        let broker = BrokerId(number_in(&folder.path().join("broker.id"))?);
        let disk = number_in(&folder.path().join("disk.id"))?;
        for name in ["registry", "shards", "members"] {
            let inner = folder.path().join(name);
            fs::create_dir_all(&inner).map_err(at(&inner))?;
        }
        let opened = fs::File::open(folder.path()).and_then(|folder| folder.sync_all());
        opened.map_err(at(folder.path()))?;
        Ok(Self { folder, broker, disk })
    }

    /// The folder, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The broker's id, given once when the folder was made.
    #[must_use]
    pub fn broker(&self) -> BrokerId {
        self.broker
    }

    /// Tells this folder from another one with the same broker id.
    #[must_use]
    pub fn disk(&self) -> u64 {
        self.disk
    }

    /// Where the routes are kept as they were last known.
    #[must_use]
    pub fn routes(&self) -> PathBuf {
        self.path().join("routes")
    }

    /// The registry's folder.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.path().join("registry")
    }

    /// The folder of all shards: each has one in it, named by its number.
    #[must_use]
    pub fn shards(&self) -> PathBuf {
        self.path().join("shards")
    }

    /// The folder of [what has begun](crate::begun).
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.path().join("members")
    }

    /// A shard's folder.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> PathBuf {
        self.shards().join(shard.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_keeps_its_identity() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let first = DataFolder::open(&path).unwrap();
        let id = first.broker();
        assert!(id.0 > 0 && id.0 < 1 << 53);
        assert_eq!(fs::read_to_string(path.join("FORMAT")).unwrap(), "1\n");
        drop(first);
        assert_eq!(DataFolder::open(&path).unwrap().broker(), id);
    }

    #[test]
    fn a_second_owner_is_told_the_folder_and_the_first_ones_pid() {
        let temporary = tempfile::tempdir().unwrap();
        let first = DataFolder::open(temporary.path()).unwrap();
        let message = DataFolder::open(temporary.path()).unwrap_err().to_string();
        assert!(message.contains(&first.path().display().to_string()), "{message}");
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        DataFolder::open(temporary.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_untouched() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("FORMAT"), "2\n").unwrap();
        let message = DataFolder::open(temporary.path()).unwrap_err().to_string();
        assert!(message.contains("version 2") && message.contains("version 1"), "{message}");
        let names: Vec<_> = fs::read_dir(temporary.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing was written");
    }
}

//! The data folder: one process at a time, one format, one broker's identity.
//!
//! ```text
//! <data>/LOCK       held by the process that serves the folder, its pid inside
//! <data>/FORMAT     version of everything below, as a decimal number
//! <data>/broker.id  the broker's id, as a decimal number
//! <data>/registry   the embedded registry
//! <data>/shards/N   one shard each
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use grus_protocol::ids::{BrokerId, ShardId};
use thiserror::Error;

/// The format this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Ids stay exact in JSON readers that have only floating point.
const BROKER_ID_BITS: u32 = 53;

/// Why a data folder cannot be served. One line for the operator.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Another process serves it.
    #[error("data folder {} is in use by process {pid}", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other process, or `?`.
        pid: String,
    },
    /// It was written by a newer program; it was not touched.
    #[error(
        "data folder {} has format version {found}, this program knows version {FORMAT_VERSION}: \
         not touched",
        folder.display()
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// What its FORMAT file says.
        found: String,
    },
    /// A file in it does not say what it should.
    #[error("{} does not hold a number: `{found}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// The system refused something.
    #[error("data folder: {}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A data folder held by this process, until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    broker: BrokerId,
    _lock: File,
}

impl DataFolder {
    /// Takes the folder for this process, and makes it if it is not there.
    ///
    /// # Errors
    /// [`FolderError`]; a folder of another process or of a newer format is left untouched.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        check_format(path)?;
        fs::create_dir_all(path).map_err(at(path))?;
        let canonical = fs::canonicalize(path).map_err(at(path))?;
        let lock = take_lock(&canonical)?;
        check_format(&canonical)?; // whoever had the lock before may have written it
        let format = canonical.join("FORMAT");
        if !format.exists() {
            write_durably(&format, &format!("{FORMAT_VERSION}\n")).map_err(at(&format))?;
        }
        let broker = broker_id(&canonical.join("broker.id"))?;
        for folder in ["registry", "shards"] {
            let folder = canonical.join(folder);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
        }
        Ok(Self { path: canonical, broker, _lock: lock })
    }

    /// The folder, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The broker's id, given once when the folder was made.
    #[must_use]
    pub fn broker(&self) -> BrokerId {
        self.broker
    }

    /// The registry's folder.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.path.join("registry")
    }

    /// A shard's folder.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> PathBuf {
        self.path.join("shards").join(shard.to_string())
    }
}

fn check_format(folder: &Path) -> Result<(), FolderError> {
    let path = folder.join("FORMAT");
    let found = match fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FolderError::Io { path, source }),
    };
    match found.parse::<u32>() {
        Ok(version) if version <= FORMAT_VERSION => Ok(()),
        _ => Err(FolderError::Newer { folder: folder.to_owned(), found }),
    }
}

fn take_lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join("LOCK");
    let failed = |source| FolderError::Io { path: path.clone(), source };
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "?" } else { pid.trim() }.to_owned();
            return Err(FolderError::InUse { folder: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let pid = std::process::id();
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    file.write_all(format!("{pid}\n").as_bytes()).map_err(failed)?;
    Ok(file)
}

fn broker_id(path: &Path) -> Result<BrokerId, FolderError> {
    let failed = |source| FolderError::Io { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(BrokerId).map_err(|_| FolderError::Unreadable {
            path: path.to_owned(),
            found: text.trim().to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (_, random) = uuid::Uuid::now_v7().as_u64_pair();
            let id = (random & ((1 << BROKER_ID_BITS) - 1)).max(1);
            write_durably(path, &format!("{id}\n")).map_err(failed)?;
            Ok(BrokerId(id))
        }
        Err(source) => Err(failed(source)),
    }
}

/// Writes a small file so that after a crash it is there in full or not at all.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
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
        assert!(id.0 > 0 && id.0 < 1 << BROKER_ID_BITS);
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

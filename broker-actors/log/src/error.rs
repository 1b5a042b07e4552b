//! Why an operation on the log failed, by what its caller can do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the folder open.
    #[error("folder {} is in use by process {pid}", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The process.
        pid: u32,
    },
    /// A newer version of Grus wrote the folder. Nothing in it was touched.
    #[error("folder {} has format {found}, this version knows up to {supported}", folder.display())]
    NewerFormat {
        /// The folder.
        folder: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// A file without which the log cannot be trusted is missing or damaged. Nothing was touched.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The operator gives up what is damaged, and that is too much to be remembered. Nothing was
    /// changed: files have to be brought back from a copy.
    #[error(
        "{} damaged ranges in {}, at most {ranges_max} can be given up; nothing was changed: bring \
         files back from a copy",
        ranges, folder.display()
    )]
    TooMuchDamage {
        /// The log's folder.
        folder: PathBuf,
        /// Damaged ranges, with those given up before.
        ranges: usize,
        /// Most that can be remembered.
        ranges_max: usize,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// Why entries were not appended. Nothing of them was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The next segment is not ready yet: run the jobs, try again after a completion.
    #[error("no room until the next segment is ready")]
    NoRoom,
    /// The next segment could not be allocated. It is tried again at the next completion and with
    /// each append that is refused.
    #[error("the disk is full")]
    DiskFull,
    /// An entry is larger than the limit.
    #[error("an entry of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// Payload bytes of the entry.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// An index does not follow the one before.
    #[error("entry {got} does not follow, {expected} would")]
    Gap {
        /// What would follow.
        expected: u64,
        /// What was given.
        got: u64,
    },
}

/// Why entries could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Gone on purpose: at or below the purge point.
    #[error("entry {index} was purged, the log starts behind {purged}")]
    Purged {
        /// The index asked for.
        index: u64,
        /// The purge point.
        purged: u64,
    },
    /// Never there, or truncated.
    #[error("entry {index} is not in the log")]
    Missing {
        /// The index asked for.
        index: u64,
    },
    /// The entry was durable and its bytes have changed since.
    #[error("entry {index} is damaged")]
    Corrupt {
        /// The entry.
        index: u64,
    },
}

/// The disk can no longer be trusted: the process must end, and recover at its next start.
#[derive(Debug, Error)]
#[error("{what}: {source}")]
pub struct Fatal {
    /// What was being done.
    pub what: String,
    /// What the file system said.
    pub source: io::Error,
}

/// Why a checkpoint was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// Checkpoints are taken where a segment ends, that is at an applied Seal.
    #[error("entry {index} is not the last of its segment")]
    NotAtSegmentEnd {
        /// The index asked for.
        index: u64,
    },
    /// It is not newer than the newest one.
    #[error("a checkpoint at {newest} exists already")]
    NotNewer {
        /// Index of the newest one.
        newest: u64,
    },
    /// It is a delta, and there is no checkpoint before it.
    #[error("checkpoint {index} is a delta to nothing")]
    NoBase {
        /// The index asked for.
        index: u64,
    },
}

/// Why a checkpoint could not be read back.
#[derive(Debug, Error)]
pub enum CheckpointReadError {
    /// There is none at that index.
    #[error("there is no checkpoint at {index}")]
    Missing {
        /// The index.
        index: u64,
    },
    /// Both copies of a file of its chain are damaged.
    #[error("checkpoint file {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

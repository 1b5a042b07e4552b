//! The registry's state in sled: a copy of what the log says, never the only truth.
//!
//! Damaged or deleted, it is rebuilt from the log; that costs time and nothing else. Traps of sled
//! 0.34.7 that this file goes round:
//!
//! * `flush` does not fsync: the file `db` is fsynced here.
//! * A crash while a snapshot is generated leaves a file that makes the folder unopenable: such
//!   files are removed before each open.
//! * Damage shows as an error, as a panic, or not at all: all three lead to a rebuild.
//! * It would take 1 GiB of cache, and `flush_async` can deadlock: 16 MiB, and one thread.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use thiserror::Error;

use crate::machine::Change;

/// What sled may keep in memory.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Most damaged folders kept for a look at them; older ones are removed.
const DAMAGED_KEPT_MAX: usize = 2;
/// Most changes of one transaction when all is written anew.
const REWRITE_CHANGES_MAX: usize = 1_024;
/// How often to try for the lock: a thread of sled may hold it for a moment after the last handle
/// is gone.
const LOCK_TRIES: u32 = 100_000;
/// Key of the last applied entry, in the tree of that name.
const APPLIED_KEY: &[u8] = b"applied";

/// Why the store cannot go on as it is.
#[derive(Debug, Error)]
pub enum StoreError {
    /// sled failed, or what it holds is not what was written.
    #[error("sled: {0}")]
    Damaged(String),
    /// The file system failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// An entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppliedAt {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// The parts that a store holds, by key.
pub type Parts = BTreeMap<Bytes, Bytes>;

/// The state in a sled folder.
#[derive(Debug)]
pub struct DiskStore {
    dir: PathBuf,
    db: sled::Db,
    parts: sled::Tree,
    applied: sled::Tree,
}

impl DiskStore {
    /// Opens the folder, and makes it where it is missing. A folder that cannot be opened is moved
    /// aside, and an empty one takes its place; the second value says so.
    ///
    /// # Errors
    /// When not even an empty one can be made.
    pub fn open(dir: &Path) -> Result<(Self, bool), StoreError> {
        let mut tried = Self::try_open(dir);
        for _ in 0..LOCK_TRIES {
            if !is_locked(&tried) {
                break;
            }
            std::thread::yield_now();
            tried = Self::try_open(dir);
        }
        match tried {
            Ok(store) => Ok((store, false)),
            tried if is_locked(&tried) => tried.map(|store| (store, false)),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "registry's sled folder is damaged: \
                    moved aside, and rebuilt from the log");
                move_aside(dir)?;
                Ok((Self::try_open(dir)?, true))
            }
        }
    }

    fn try_open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir)?;
        remove_half_snapshots(dir)?;
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES);
        let (db, parts, applied) = guarded(|| {
            let db = config.open()?;
            let (parts, applied) = (db.open_tree("parts")?, db.open_tree("applied")?);
            Ok((db, parts, applied))
        })?;
        let store = Self { dir: dir.to_owned(), db, parts, applied };
        store.read()?;
        Ok(store)
    }

    /// All it holds, and up to which entry that is; no entry when it was never completed.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(&self) -> Result<(Option<AppliedAt>, Parts), StoreError> {
        guarded(|| {
            let applied = self.applied.get(APPLIED_KEY)?.map(|value| decode_applied(&value));
            let mut parts = Parts::new();
            for pair in &self.parts {
                let (key, value) = pair?;
                parts.insert(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
            }
            Ok((applied.transpose()?, parts))
        })
    }

    /// Writes what one entry changed, and that it was applied, in one transaction.
    ///
    /// # Errors
    /// When sled fails; the store is to be rebuilt then.
    pub fn write(&self, at: AppliedAt, changes: &[Change]) -> Result<(), StoreError> {
        guarded(|| self.transact(Some(at), changes))
    }

    fn transact(&self, at: Option<AppliedAt>, changes: &[Change]) -> Result<(), StoreError> {
        let done = (&self.parts, &self.applied).transaction(|(parts, applied)| {
            for Change { key, value } in changes {
                match value {
                    Some(value) => drop(parts.insert(&**key, &**value)?),
                    None => drop(parts.remove(&**key)?),
                }
            }
            match at {
                Some(at) => drop(applied.insert(APPLIED_KEY, &encode_applied(at)[..])?),
                None => drop(applied.remove(APPLIED_KEY)?),
            }
            Ok::<(), ConflictableTransactionError<()>>(())
        });
        match done {
            Ok(()) => Ok(()),
            Err(TransactionError::Storage(error)) => Err(error.into()),
            Err(TransactionError::Abort(())) => Err(StoreError::Damaged("aborted".to_owned())),
        }
    }

    /// Makes it hold exactly these parts. Unfinished until its last transaction, which is the one
    /// that says up to which entry they are.
    ///
    /// # Errors
    /// When sled fails.
    pub fn rewrite(&self, at: AppliedAt, parts: &Parts) -> Result<(), StoreError> {
        let (_, before) = self.read()?;
        guarded(|| {
            self.transact(None, &[])?;
            let gone = before.keys().filter(|key| !parts.contains_key(*key));
            let gone = gone.map(|key| Change { key: key.clone(), value: None });
            let there = parts.iter().filter(|(key, value)| before.get(*key) != Some(*value));
            let there =
                there.map(|(key, value)| Change { key: key.clone(), value: Some(value.clone()) });
            let changes: Vec<Change> = gone.chain(there).collect();
            for some in changes.chunks(REWRITE_CHANGES_MAX) {
                self.transact(None, some)?;
            }
            self.transact(Some(at), &[])
        })
    }

    /// Brings all that was written to the disk.
    ///
    /// # Errors
    /// When that fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        guarded(|| Ok(self.db.flush()?))?;
        File::open(self.dir.join("db"))?.sync_all()?;
        Ok(File::open(&self.dir)?.sync_all()?)
    }
}

/// Whether another handle has the folder open: that is no damage.
fn is_locked(tried: &Result<DiskStore, StoreError>) -> bool {
    matches!(tried, Err(StoreError::Io(error)) if error.to_string().contains("lock"))
}

/// Runs what may panic inside sled.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Damaged("sled panicked".to_owned())))
}

fn encode_applied(at: AppliedAt) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&at.index.to_le_bytes());
    bytes[8..].copy_from_slice(&at.term.to_le_bytes());
    bytes
}

fn decode_applied(bytes: &[u8]) -> Result<AppliedAt, StoreError> {
    let number = |range: std::ops::Range<usize>| {
        bytes.get(range).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
    };
    match (number(0..8), number(8..16), bytes.len()) {
        (Some(index), Some(term), 16) => Ok(AppliedAt { index, term }),
        _ => Err(StoreError::Damaged("the applied entry has no form".to_owned())),
    }
}

fn remove_half_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Renames the folder to the next free `<name>.damaged-N`, and removes the oldest of those.
fn move_aside(dir: &Path) -> io::Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = dir.parent().unwrap_or(Path::new("."));
    let prefix = format!("{name}.damaged-");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(parent)? {
        let found = entry?.file_name().to_string_lossy().into_owned();
        numbers.extend(found.strip_prefix(&prefix).and_then(|rest| rest.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last + 1);
    fs::rename(dir, parent.join(format!("{prefix}{next}")))?;
    let keep_from = (numbers.len() + 1).saturating_sub(DAMAGED_KEPT_MAX);
    for number in numbers.into_iter().take(keep_from) {
        fs::remove_dir_all(parent.join(format!("{prefix}{number}")))?;
    }
    Ok(())
}

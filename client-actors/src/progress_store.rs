//! The file of a broadcast member's progress: read once, written as a whole on a thread that may block.
//!
//! It is written beside its place, synced, and renamed: after a crash it is the old one or the new one. A
//! lock beside it keeps a second process from going by the same progress.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grus_protocol::{GroupName, InstanceName};

use crate::config::invalid;
use crate::consumer::progress_file::OwnProgress;
use crate::error::ClientError;

/// A file of progress that is this process's alone, until it is dropped.
#[derive(Debug)]
pub(crate) struct ProgressStore {
    path: PathBuf,
    _lock: File,
}

impl ProgressStore {
    /// Takes a file, and reads what is in it. Where there is none, a member begins: under its name, or
    /// under that which `drawn` makes.
    pub(crate) fn open(
        path: &Path,
        group: &GroupName,
        member: Option<&InstanceName>,
        drawn: impl FnOnce() -> InstanceName,
    ) -> Result<(Self, OwnProgress), ClientError> {
        let refused = |why: String| invalid("progress_file", &format!("{}: {why}", path.display()));
        let cannot = |error: io::Error| refused(error.to_string());
        if let Some(folder) = folder_of(path) {
            std::fs::create_dir_all(folder).map_err(cannot)?;
        }
        let lock = File::create(beside(path, ".lock")).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused("another consumer keeps its progress there".to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let progress = match std::fs::read(path) {
            Ok(bytes) => OwnProgress::decode(&bytes, group, member)
                .map_err(|error| refused(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                OwnProgress::new(group.clone(), member.cloned().unwrap_or_else(drawn))
            }
            Err(error) => return Err(cannot(error)),
        };
        let store = Self { path: path.to_owned(), _lock: lock };
        store.write(&progress.encode()).map_err(cannot)?; // so a member has its name from now on
        Ok((store, progress))
    }

    /// Writes the file on a thread that may block; `done` hears there what came of it.
    pub(crate) fn write_aside(
        self: Arc<Self>,
        text: String,
        done: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        tokio::task::spawn_blocking(move || {
            let result = self.write(&text).map_err(|error| error.to_string());
            drop(self); // whoever hears of it may take the file at once
            done(result);
        });
    }

    /// Writes the file. May block.
    fn write(&self, text: &str) -> io::Result<()> {
        let draft = beside(&self.path, ".draft");
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.path)?;
        File::open(folder_of(&self.path).unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn folder_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

//! Whether an operator has drained this broker: a note in its data folder, so that it lasts until it is undone, and a
//! flag for whoever has to know. Cheap to clone.
//!
//! ```text
//! <data>/drained    there while the broker is drained; what it holds says nothing
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use grus_registry::folder::{FolderError, at, write_durably};
use tokio::sync::watch;

use crate::begun::sync_folder_of;

/// Whether the broker is drained, for whoever has to follow that.
pub type DrainedNow = watch::Receiver<bool>;

/// For who looks into the folder.
const NOTE: &[u8] =
    b"drained: this broker leads nothing until `grus cluster drain BROKER --undo`\n";

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct Drained {
    path: PathBuf,
    flag: Arc<watch::Sender<bool>>,
    /// One word at a time, so that the note says what the flag does. Taken on threads that may block, by nobody else.
    turn: Arc<Mutex<()>>,
}

impl Drained {
    /// As it is noted in the data folder. Blocks.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn open(data: &Path) -> Result<Self, FolderError> {
        let path = data.join("drained");
        let is_drained = path.try_exists().map_err(at(&path))?;
        let flag = Arc::new(watch::channel(is_drained).0);
        Ok(Self { path, flag, turn: Arc::default() })
    }

    /// Whether it is drained.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.flag.borrow()
    }

    /// Where that can be read, and what comes of it.
    #[must_use]
    pub fn subscribe(&self) -> DrainedNow {
        self.flag.subscribe()
    }

    /// Drains the broker, or undoes that, once it is noted durably. A broker that cannot note that it is drained, as
    /// on a full disk, is so all the same until it is started again; one that cannot undo it stays drained.
    ///
    /// # Errors
    /// What the system said of the note.
    pub async fn set(&self, is_drained: bool) -> io::Result<()> {
        let own = self.clone();
        let noted = tokio::task::spawn_blocking(move || own.set_and_note(is_drained)).await;
        noted.unwrap_or_else(|_panicked| Err(io::Error::other("the note was not finished")))
    }

    /// Blocks.
    fn set_and_note(&self, is_drained: bool) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = if is_drained { write_durably(&self.path, NOTE) } else { self.remove() };
        if is_drained || noted.is_ok() {
            self.flag.send_replace(is_drained);
        }
        noted
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _gone => sync_folder_of(&self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_drain_lasts_until_it_is_undone_and_both_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Drained::open(folder.path()).unwrap();
        let drained = open();
        let seen = drained.subscribe();
        assert!(!drained.is_set());
        drained.set(true).await.unwrap();
        drained.set(true).await.unwrap();
        assert!(drained.is_set() && *seen.borrow() && open().is_set(), "also after a restart");
        drained.set(false).await.unwrap();
        drained.set(false).await.unwrap();
        assert!(!drained.is_set() && !*seen.borrow() && !open().is_set());
    }

    #[actix::test]
    async fn one_that_cannot_be_noted_is_drained_all_the_same_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let drained = Drained::open(&folder.path().join("gone")).unwrap();
        drained.set(true).await.unwrap_err();
        assert!(drained.is_set());
        drained.set(false).await.unwrap_err();
        assert!(drained.is_set(), "what was not undone stays");
    }
}

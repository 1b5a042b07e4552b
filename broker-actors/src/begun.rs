//! Which replicated shards this broker has taken part in: a small file for each, outside of the shard's folder.
//!
//! ```text
//! <data>/members/N    the number of the group that shard N is of, as a decimal number; " out" behind it
//!                     where the group has let go of the member
//! ```
//!
//! It is written once the first entry of the shard's log is on disk, and before the member says a word to
//! another one. So a log that is empty although the file is there was lost, with all that its member had
//! promised, and the member must not vote before the others have taken it back. And a folder of another
//! group under the same number, as after a registry has lost its data, is never gone on with.

use std::io;
use std::path::{Path, PathBuf};

use grus_protocol::ids::ShardId;
use grus_registry::folder::write_durably;
use thiserror::Error;

/// Stands behind the number of a group that has let go of its member here.
const OUT: &str = " out";

/// Why a member cannot take part.
#[derive(Debug, Error)]
pub enum BegunError {
    /// The shard's folder is of another group.
    #[error(
        "{} names group {known}, the registry names group {wanted}: the shard's folder is of \
         another shard that had this number",
        path.display()
    )]
    OtherGroup {
        /// The file.
        path: PathBuf,
        /// The group that it names.
        known: u64,
        /// The group that the registry names.
        wanted: u64,
    },
    /// There is no such file, though a member of this broker has led the group, and nobody else is known to
    /// be in it.
    #[error(
        "{} is missing, which notes that this broker takes part in group {group}: the shard's folder is an old copy, \
         or that file was lost alone. The routes name no other broker that has the shard, so this may be the only \
         copy: do not move it away. If it is not an old one, write {group} into that file",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The group that the registry names.
        group: u64,
    },
    /// The file holds no number.
    #[error("{} does not hold a number: `{found}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// The system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is noted of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// No member has begun here.
    Nothing,
    /// One has, of this group.
    In(u64),
    /// One had, and its group has let go of it: the shard is others'.
    Out,
}

/// The file of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    path: PathBuf,
    group: u64,
}

impl Begun {
    /// That of a shard of this group, in the folder of them all.
    #[must_use]
    pub fn new(folder: &Path, shard: ShardId, group: u64) -> Self {
        Self { path: folder.join(shard.to_string()), group }
    }

    /// Whether the member has begun before, also if it was let go of since: it is never new to its group
    /// again. Blocks.
    ///
    /// # Errors
    /// [`BegunError`].
    pub fn is_noted(&self) -> Result<bool, BegunError> {
        let path = self.path.clone();
        let found = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(BegunError::Io { path, source }),
        };
        let (number, is_out) = match found.strip_suffix(OUT) {
            Some(number) => (number, true),
            None => (&*found, false),
        };
        match number.parse::<u64>() {
            Ok(known) if known == self.group => Ok(true),
            Ok(_) if is_out => Ok(false), // nothing of that one is left here
            Ok(known) => Err(BegunError::OtherGroup { path, known, wanted: self.group }),
            Err(_) => Err(BegunError::Unreadable { path, found }),
        }
    }

    /// Why a member that has not begun cannot start, where nobody else is known to have what it has.
    #[must_use]
    pub fn missing(&self) -> BegunError {
        BegunError::Missing { path: self.path.clone(), group: self.group }
    }

    /// Notes durably that it has. Blocks.
    ///
    /// # Errors
    /// What the system said.
    pub fn note(&self) -> Result<(), BegunError> {
        let failed = |source| BegunError::Io { path: self.path.clone(), source };
        write_durably(&self.path, format!("{}\n", self.group).as_bytes()).map_err(failed)
    }

    /// Notes durably that its group has let go of it. Whatever the routes say later, it founds that group
    /// no more, and votes in it only once it has its log again. Blocks.
    ///
    /// # Errors
    /// What the system said.
    pub fn note_out(&self) -> Result<(), BegunError> {
        let failed = |source| BegunError::Io { path: self.path.clone(), source };
        write_durably(&self.path, format!("{}{OUT}\n", self.group).as_bytes()).map_err(failed)
    }

    /// Notes durably that a group which had let go of the member is to have it again, if that is so: from here
    /// on its log is claimed again where a registry has lost its data. Blocks.
    ///
    /// # Errors
    /// [`BegunError`].
    pub fn note_again(&self) -> Result<(), BegunError> {
        let source = match std::fs::read_to_string(&self.path) {
            Ok(text) if text.trim().ends_with(OUT) => return self.note(),
            Ok(_) => return Ok(()),
            Err(source) => source,
        };
        Err(BegunError::Io { path: self.path.clone(), source })
    }

    /// Does something with it on a thread that may block; none where that panicked.
    pub(crate) async fn aside<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> Result<T, BegunError> + Send + 'static,
    ) -> Option<Result<T, BegunError>> {
        tokio::task::spawn_blocking(move || work(&self)).await.ok()
    }

    /// What is noted of a shard, whichever group it is of. Blocks.
    ///
    /// # Errors
    /// [`BegunError`].
    pub fn of(folder: &Path, shard: ShardId) -> Result<Noted, BegunError> {
        let path = folder.join(shard.to_string());
        let found = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Noted::Nothing),
            Err(source) => return Err(BegunError::Io { path, source }),
        };
        if found.ends_with(OUT) {
            return Ok(Noted::Out);
        }
        let group = found.parse().map(Noted::In);
        group.map_err(|_| BegunError::Unreadable { path, found })
    }

    /// The shards that a folder names: those of which there is a note, also where the group has let go of its member
    /// here. Blocks.
    ///
    /// # Errors
    /// What the system said.
    pub fn all(folder: &Path) -> Result<Vec<ShardId>, BegunError> {
        let failed = |source| BegunError::Io { path: folder.to_owned(), source };
        let files = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(failed)?,
        };
        let mut shards = Vec::new();
        for file in files {
            let name = file.map_err(failed)?.file_name();
            shards.extend(name.to_str().and_then(|name| name.parse().ok()).map(ShardId));
        }
        Ok(shards)
    }
}

/// Makes durable what the folder of a file lists.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_has_begun_is_known_and_another_group_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let begun = |group| Begun::new(folder.path(), ShardId(7), group);
        assert!(!begun(40).is_noted().unwrap());
        begun(40).note().unwrap();
        assert!(begun(40).is_noted().unwrap());
        assert!(!Begun::new(folder.path(), ShardId(8), 40).is_noted().unwrap());
        assert_eq!(Begun::all(folder.path()).unwrap(), [ShardId(7)]);
        let noted = |shard| Begun::of(folder.path(), ShardId(shard)).unwrap();
        assert_eq!((noted(7), noted(8)), (Noted::In(40), Noted::Nothing));
        begun(40).note_out().unwrap();
        assert_eq!(noted(7), Noted::Out);
        assert!(begun(40).is_noted().unwrap(), "it is never new to its group again");
        assert!(!begun(41).is_noted().unwrap(), "the number may be another group's");
        begun(40).note_again().unwrap();
        assert_eq!(noted(7), Noted::In(40), "it is a member again");
        begun(40).note_again().unwrap();
        assert_eq!(noted(7), Noted::In(40));
        assert!(Begun::all(&folder.path().join("none")).unwrap().is_empty());
        begun(40).note().unwrap();
        let refused = begun(41).is_noted().unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("group 40") && text.contains("group 41"), "{text}");
        assert!(text.contains("another shard that had"), "{text}");
        std::fs::write(folder.path().join("7"), "x\n").unwrap();
        assert!(matches!(begun(40).is_noted(), Err(BegunError::Unreadable { .. })));
    }
}

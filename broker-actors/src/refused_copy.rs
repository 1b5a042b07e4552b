//! A shard's folder that was refused as a copy of before others came: what it is known by, so that it is not read
//! again as long as nobody has touched it. Not an actor: [`Replicas`](crate::replicas::Replicas) has it looked at.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// Where a shard is on the disk.
#[derive(Debug, Clone)]
pub(crate) struct CopyAt {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The file that notes that its member has begun.
    pub(crate) note: PathBuf,
}

/// What a folder is known by: its number, when what it lists last changed, and when it was noted that its member has
/// begun, if that is noted.
pub(crate) type FolderIs = (u64, SystemTime, Option<SystemTime>);

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct RefusedCopy {
    /// As it was when it was refused.
    pub(crate) folder: FolderIs,
    /// Until when it is not looked into again.
    pub(crate) until_ms: u64,
}

impl CopyAt {
    /// None: there is no such folder.
    pub(crate) async fn folder_is(self) -> Option<FolderIs> {
        let look = move || {
            let found = std::fs::metadata(self.folder).ok()?;
            let noted = std::fs::metadata(self.note).and_then(|note| note.modified()).ok();
            Some((found.ino(), found.modified().ok()?, noted))
        };
        tokio::task::spawn_blocking(look).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_folder_that_is_moved_away_or_changed_is_another_one_and_so_is_one_that_is_noted() {
        let data = tempfile::tempdir().unwrap();
        let at = CopyAt { folder: data.path().join("4"), note: data.path().join("4.note") };
        std::fs::create_dir(&at.folder).unwrap();
        let refused = at.clone().folder_is().await.expect("it is there");
        assert_eq!(at.clone().folder_is().await, Some(refused), "nobody has touched it");
        std::fs::write(&at.note, "40\n").unwrap();
        let noted = at.clone().folder_is().await;
        assert!(noted.is_some() && noted != Some(refused), "the note was written again by hand");
        std::fs::rename(&at.folder, data.path().join("aside")).unwrap();
        assert_eq!(at.clone().folder_is().await, None);
        std::fs::create_dir(&at.folder).unwrap();
        assert_ne!(at.folder_is().await, noted);
    }
}

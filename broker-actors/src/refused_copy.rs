//! A shard's folder that was refused as a copy of before others came: what it is known by, so that it is not read
//! again as long as nobody has touched it. Not an actor: [`Replicas`](crate::replicas::Replicas) has it looked at.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// What a folder is known by: its number, and when what it lists last changed.
pub(crate) type FolderIs = (u64, SystemTime);

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct RefusedCopy {
    /// As it was when it was refused.
    pub(crate) folder: FolderIs,
    /// Until when it is not looked into again.
    pub(crate) until_ms: u64,
}

/// None: there is no such folder.
pub(crate) async fn folder_is(folder: PathBuf) -> Option<FolderIs> {
    let look = move || {
        let found = std::fs::metadata(folder).ok()?;
        Some((found.ino(), found.modified().ok()?))
    };
    tokio::task::spawn_blocking(look).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_folder_that_is_moved_away_or_changed_is_another_one() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("4");
        std::fs::create_dir(&folder).unwrap();
        let refused = folder_is(folder.clone()).await.expect("it is there");
        assert_eq!(folder_is(folder.clone()).await, Some(refused), "nobody has touched it");
        std::fs::rename(&folder, data.path().join("aside")).unwrap();
        assert_eq!(folder_is(folder.clone()).await, None);
        std::fs::create_dir(&folder).unwrap();
        assert_ne!(folder_is(folder).await, Some(refused));
    }
}

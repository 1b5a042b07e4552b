//! A member that is here and that the routes do not name: asks its group whether it is out, and goes with its
//! folder if it is. Not an actor: [`Replicas`](crate::replicas::Replicas) has it asked.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use grus_consensus::{Peers, ask_members};
use grus_protocol::ids::{BrokerId, ShardId};

use crate::begun::{Begun, BegunError, sync_folder_of};
use crate::network::Network;

/// What a folder is renamed to before it goes, so that none is found in parts.
const GONE: &str = "gone";
/// Longest wait for one member's answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It runs, and is out, as far as it hears.
    Out,
    /// It was stopped, was out, and has gone.
    Gone,
    /// It is in, or was stopped and nobody knows.
    In,
    /// Nobody knows: it is as it was.
    Unknown,
    /// What is here is of another group.
    Another,
}

/// What is needed to ask about a shard, and to let go of it.
pub(crate) struct Stray {
    pub(crate) own: BrokerId,
    pub(crate) others: Vec<BrokerId>,
    pub(crate) network: Network,
    pub(crate) begun: Begun,
    pub(crate) folder: PathBuf,
}

/// The shards of which a member has begun here and is here still, as far as that can be told.
pub(crate) async fn noted(begun: PathBuf, shards: PathBuf) -> Vec<ShardId> {
    match tokio::task::spawn_blocking(move || noted_here(&begun, &shards)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot tell which shards have members here");
            Vec::new()
        }
        Err(_panicked) => Vec::new(),
    }
}

impl Stray {
    /// What the others say. The first one that knows has a majority behind it.
    pub(crate) async fn hear(&self) -> Verdict {
        let peers: Rc<dyn Peers> = Rc::new(self.network.clone());
        for other in self.others.iter().filter(|other| **other != self.own) {
            match ask_members(&peers, other.0, ANSWER_MAX).await {
                Ok(Some(list)) if list.contains(self.own.0) => return Verdict::In,
                Ok(Some(_)) => return Verdict::Out,
                Ok(None) | Err(_) => {}
            }
        }
        Verdict::Unknown
    }

    /// Of one that does not run: goes, if it is out.
    pub(crate) async fn leave(self) -> Verdict {
        let begun = self.begun.clone();
        match tokio::task::spawn_blocking(move || begun.is_noted()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false) | Err(_)) | Err(_) => return Verdict::Another,
        }
        match self.hear().await {
            Verdict::Out => {}
            other => return other,
        }
        let (begun, folder) = (self.begun, self.folder.clone());
        let removed = tokio::task::spawn_blocking(move || remove(&folder, &begun)).await;
        match removed {
            Ok(Ok(())) => Verdict::Gone,
            Ok(Err(error)) => {
                let folder = self.folder.display();
                tracing::error!(%folder, %error, "a member that is out cannot be removed");
                Verdict::Unknown
            }
            Err(_panicked) => Verdict::Unknown,
        }
    }
}

/// Notes that a member is out, and removes its folder. Whenever it is cut off: with the folder it asks
/// again, without it there is nothing left but the note, which stays.
fn remove(folder: &Path, begun: &Begun) -> io::Result<()> {
    let gone = folder.with_extension(GONE);
    unless_absent(std::fs::remove_dir_all(&gone))?;
    begun.note_out().map_err(io::Error::other)?;
    unless_absent(std::fs::rename(folder, &gone))?;
    sync_folder_of(folder)?;
    unless_absent(std::fs::remove_dir_all(&gone))
}

fn unless_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The shards of which there is a note and a folder. Removes what is left of folders that have gone.
fn noted_here(begun: &Path, shards: &Path) -> Result<Vec<ShardId>, BegunError> {
    let all = Begun::all(begun)?;
    for shard in &all {
        let gone = shards.join(shard.to_string()).with_extension(GONE);
        if let Err(error) = unless_absent(std::fs::remove_dir_all(&gone)) {
            tracing::warn!(folder = %gone.display(), %error, "cannot be removed");
        }
    }
    Ok(all.into_iter().filter(|shard| shards.join(shard.to_string()).exists()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_out_goes_with_its_note_whatever_was_left_before() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("shards").join("7");
        let begun = Begun::new(&data.path().join("members"), ShardId(7), 40);
        std::fs::create_dir_all(data.path().join("members")).unwrap();
        for left in ["7", "7.gone"] {
            std::fs::create_dir_all(data.path().join("shards").join(left)).unwrap();
            std::fs::write(data.path().join("shards").join(left).join("f"), "x").unwrap();
        }
        begun.note().unwrap();
        std::fs::create_dir_all(data.path().join("shards").join("8.gone")).unwrap();
        Begun::new(&data.path().join("members"), ShardId(8), 41).note_out().unwrap();
        let here = noted_here(&data.path().join("members"), &data.path().join("shards")).unwrap();
        assert_eq!(here, [ShardId(7)], "of 8 nothing is left");
        remove(&folder, &begun).unwrap();
        assert_eq!(std::fs::read_dir(data.path().join("shards")).unwrap().count(), 0);
        assert!(begun.is_noted().unwrap(), "it is never new to that group again");
        remove(&folder, &begun).unwrap();
    }
}

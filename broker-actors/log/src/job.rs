//! The blocking work of a log: jobs that run on the flush thread, one at a time, in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::footer::Footer;
use crate::log::{WarmWay, Warmth};
use crate::maker::{MakeError, Maker, Step};
use crate::publish::{Publication, PublishError, Publisher};
use crate::region::Region;
use crate::slots::SlotWrite;

/// A durable write that was asked for; named in the [`Progress`] that reports it done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a completed job changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The new durable watermark of the log's class, if it moved: entries up to here are safe.
    pub durable_index: Option<u64>,
    /// Votes and marks that are durable now.
    pub tickets: Vec<Ticket>,
    /// An append that was refused for want of room may be tried again.
    pub room: bool,
    /// A checkpoint is durable now.
    pub checkpoint: Option<u64>,
}

/// Work to be done on the flush thread.
#[derive(Debug)]
pub struct Job<D: Disk> {
    pub(crate) disk: D,
    pub(crate) folder: PathBuf,
    pub(crate) work: Work<D>,
}

/// What came of a [`Job`]; goes back to [`crate::Log::complete`].
#[derive(Debug)]
pub struct JobDone<D: Disk>(pub(crate) Outcome<D>);

#[derive(Debug)]
pub(crate) enum Work<D: Disk> {
    /// Syncs segments in order, then writes the vote, then the notes.
    Commit { files: Vec<ToSync<D::File>>, vote: Option<SlotWrite>, notes: Option<SlotWrite> },
    /// One step towards the next segment.
    Make(Maker<D>),
    /// Syncs segments in order, then has a turn, or all of them, at footers and a checkpoint.
    Publish { files: Vec<ToSync<D::File>>, publisher: Publisher<D>, at_once: bool },
    /// Brings pages in ahead of the stores to them.
    Warm(Warmth<D::File>),
    /// Takes files away whose entries are purged, gives back what nothing was written to, and a part of
    /// a file that is large and on its way; before that such a file gets another name.
    Remove {
        paths: Vec<PathBuf>,
        unmap: Vec<Region>,
        tails: Vec<Tail>,
        rename: Option<(PathBuf, PathBuf)>,
    },
}

/// The last bytes of a file, which nobody needs: behind the last entry of a segment that will get no more,
/// or entries that are purged.
#[derive(Debug)]
pub(crate) struct Tail {
    pub path: PathBuf,
    pub offset: u32,
    pub length: u32,
}

impl Tail {
    fn give_back<D: Disk>(&self, disk: &D) {
        let given_back = disk
            .open(&self.path)
            .and_then(|file| file.release(u64::from(self.offset), u64::from(self.length)));
        match given_back {
            // Purged meanwhile. Its name is given to no other file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::debug!(%error, path = %self.path.display(), "room not given back");
            }
            Ok(()) => {}
        }
    }
}

/// A segment's file to sync.
#[derive(Debug)]
pub(crate) enum ToSync<F> {
    /// Still open.
    Open(Arc<F>),
    /// Closed long ago, and truncated since.
    Closed(PathBuf),
}

#[derive(Debug)]
pub(crate) enum Outcome<D: Disk> {
    Committed(Result<(), JobFailure>),
    Made(Result<Step<D>, JobFailure>),
    /// The publication comes back when the disk was full.
    Published(Result<Published<D>, (JobFailure, Publication)>),
    Warmed(Result<(), JobFailure>),
    Removed(Result<(), JobFailure>),
}

/// What came of a turn of a publication.
#[derive(Debug)]
pub(crate) enum Published<D: Disk> {
    /// It needs more of them.
    Partly(Publisher<D>),
    /// All is there; the footers of it.
    Wholly(Vec<Footer>),
}

#[derive(Debug)]
pub(crate) enum JobFailure {
    /// Nothing is lost; try again later.
    Refused(io::Error),
    /// The process must end.
    Fatal(String, io::Error),
}

impl<D: Disk> Job<D> {
    /// Whether it is a round of syncs that somebody waits for.
    pub fn is_sync(&self) -> bool {
        matches!(self.work, Work::Commit { .. })
    }

    /// Whether it takes away what the next open would take away as well. A log that is about to be dropped
    /// needs no result of it.
    pub fn is_removal(&self) -> bool {
        matches!(self.work, Work::Remove { .. })
    }

    /// Does the work. Blocks.
    pub fn run(self) -> JobDone<D> {
        let Self { disk, folder, work } = self;
        JobDone(match work {
            Work::Commit { files, vote, notes } => {
                Outcome::Committed(commit(&disk, &files, vote.as_ref(), notes.as_ref()))
            }
            Work::Make(maker) => Outcome::Made(maker.step(&disk).map_err(|error| match error {
                MakeError::Refused(error) => JobFailure::Refused(error),
                MakeError::Fatal(error) => JobFailure::Fatal("syncing a new segment".into(), error),
            })),
            Work::Publish { files, publisher, at_once } => {
                publish(&disk, &folder, &files, publisher, at_once)
            }
            Work::Warm(warmth) => Outcome::Warmed(warm(&warmth)),
            Work::Remove { paths, unmap, tails, rename } => {
                drop(unmap);
                // First: a file that goes, or is used again, has no such name any more.
                for tail in &tails {
                    tail.give_back(&disk);
                }
                Outcome::Removed(remove(&disk, &folder, &paths, rename.as_ref()))
            }
        })
    }

    /// Whether this job makes appended entries durable, so that it should not wait.
    pub fn is_urgent(&self) -> bool {
        matches!(self.work, Work::Commit { .. })
    }
}

fn sync_all<D: Disk>(disk: &D, files: &[ToSync<D::File>]) -> Result<(), JobFailure> {
    for file in files {
        let synced = match file {
            ToSync::Open(file) => file.sync(),
            ToSync::Closed(path) => disk.open(path).and_then(|file| file.sync()),
        };
        synced.map_err(|error| JobFailure::Fatal("syncing a segment".into(), error))?;
    }
    Ok(())
}

fn publish<D: Disk>(
    disk: &D,
    folder: &Path,
    files: &[ToSync<D::File>],
    mut publisher: Publisher<D>,
    at_once: bool,
) -> Outcome<D> {
    let mut turned = sync_all(disk, files).map(|()| None);
    while let Ok(None) = turned {
        turned = publisher.turn(disk, folder).map_err(|error| match error {
            PublishError::Refused(error) => JobFailure::Refused(error),
            PublishError::Fatal(error) => JobFailure::Fatal("syncing a checkpoint".into(), error),
        });
        if !at_once {
            break;
        }
    }
    Outcome::Published(match turned {
        Ok(Some(footers)) => Ok(Published::Wholly(footers)),
        Ok(None) => Ok(Published::Partly(publisher)),
        Err(failure) => Err((failure, publisher.into_publication())),
    })
}

fn commit<D: Disk>(
    disk: &D,
    files: &[ToSync<D::File>],
    vote: Option<&SlotWrite>,
    notes: Option<&SlotWrite>,
) -> Result<(), JobFailure> {
    sync_all(disk, files)?;
    for write in [vote, notes].into_iter().flatten() {
        write
            .run(disk)
            .map_err(|error| JobFailure::Fatal("writing a vote or mark".into(), error))?;
    }
    Ok(())
}

fn warm<F: DiskFile>(warmth: &Warmth<F>) -> Result<(), JobFailure> {
    // Without it the stores take longer, nothing else.
    let _ = match warmth.way {
        WarmWay::Read => warmth.region.fault_in_for_reading(warmth.range.clone()),
        WarmWay::WriteAndSync(_) => warmth.region.fault_in_for_writing(warmth.range.clone()),
    };
    let WarmWay::WriteAndSync(file) = &warmth.way else { return Ok(()) };
    file.sync().map_err(|error| JobFailure::Fatal("syncing a new segment".into(), error))
}

fn remove<D: Disk>(
    disk: &D,
    folder: &Path,
    paths: &[PathBuf],
    rename: Option<&(PathBuf, PathBuf)>,
) -> Result<(), JobFailure> {
    if paths.is_empty() && rename.is_none() {
        return Ok(());
    }
    let removed = paths.iter().map(|path| disk.remove(path));
    let gone = removed.chain(rename.map(|(from, to)| disk.rename(from, to)));
    let refused = gone.filter_map(Result::err).filter(|e| e.kind() != io::ErrorKind::NotFound);
    // One that stays keeps no other one here: nobody names them again before the next open.
    let refused = refused.reduce(|first, _| first);
    disk.sync_folder(folder)
        .map_err(|error| JobFailure::Fatal("syncing a folder".into(), error))?;
    refused.map_or(Ok(()), |error| Err(JobFailure::Refused(error)))
}

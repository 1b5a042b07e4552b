//! Makes the next segment ready, a step at a time, so that syncs can go in between.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::LogConfig;
use crate::disk::{Disk, DiskFile};
use crate::layout::{FileName, SEGMENT_HEAD_BYTES, SegmentHead, TEMPORARY_SUFFIX};
use crate::region::Region;
use crate::switches::OrderRule;

/// A segment ready to be written to.
#[derive(Debug)]
pub(crate) struct Spare<F> {
    pub sequence: u64,
    pub path: PathBuf,
    pub file: Arc<F>,
    pub region: Region,
    /// Its blocks have been written before.
    pub recycled: bool,
    /// Pages up to here are in memory and their blocks written: see `log/warm.rs`.
    pub warmed_to: u32,
}

impl<F> Spare<F> {
    /// Bytes for entries.
    pub(crate) fn room(&self) -> usize {
        self.region.len().saturating_sub(SEGMENT_HEAD_BYTES as usize)
    }
}

/// Where the file comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A new file.
    New,
    /// A file whose entries are all purged and no longer read by anyone.
    Recycled(PathBuf),
}

#[derive(Debug)]
enum Stage<F> {
    Create(Origin),
    Publish { file: F, region: Region, recycled: bool },
}

/// A segment in the making.
#[derive(Debug)]
pub(crate) struct Maker<D: Disk> {
    folder: PathBuf,
    pub sequence: u64,
    length: u32,
    stage: Stage<D::File>,
    /// A rule that a test has taken away.
    skip_folder_sync: bool,
    skip_file_sync: bool,
}

/// What a step came to.
#[derive(Debug)]
pub(crate) enum Step<D: Disk> {
    More(Maker<D>),
    Ready(Spare<D::File>),
}

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum MakeError {
    /// No room, descriptors or mappings: nothing is lost, it may be tried again.
    Refused(io::Error),
    /// A sync failed.
    Fatal(io::Error),
}

impl<D: Disk> Maker<D> {
    pub(crate) fn new(folder: &Path, sequence: u64, length: u32, origin: Origin) -> Self {
        Self {
            folder: folder.to_path_buf(),
            sequence,
            length,
            stage: Stage::Create(origin),
            skip_folder_sync: false,
            skip_file_sync: false,
        }
    }

    /// Takes away the rule that a test does not want.
    pub(crate) fn for_config(mut self, config: &LogConfig) -> Self {
        self.skip_folder_sync = config.skips(OrderRule::SyncFolder);
        self.skip_file_sync = config.skips(OrderRule::SyncBeforeRename);
        self
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FileName::Segment(self.sequence).to_string())
    }

    fn temporary_path(&self) -> PathBuf {
        self.folder.join(format!("{}{TEMPORARY_SUFFIX}", FileName::Segment(self.sequence)))
    }

    /// All steps at once.
    pub(crate) fn finish(mut self, disk: &D) -> Result<Spare<D::File>, MakeError> {
        loop {
            match self.step(disk)? {
                Step::More(maker) => self = maker,
                Step::Ready(spare) => return Ok(spare),
            }
        }
    }

    /// The next step. After an error nothing of the segment is left behind.
    pub(crate) fn step(self, disk: &D) -> Result<Step<D>, MakeError> {
        let temporary = self.temporary_path();
        let stepped = self.run(disk);
        if matches!(stepped, Err(MakeError::Refused(_))) {
            // There may be nothing to take away, and the next open looks again.
            let _ = disk.remove(&temporary);
        }
        stepped
    }

    fn run(mut self, disk: &D) -> Result<Step<D>, MakeError> {
        let (sequence, path) = (self.sequence, self.path());
        let warmed_to = SEGMENT_HEAD_BYTES;
        let ready = |file, region, recycled| {
            let file = Arc::new(file);
            Step::Ready(Spare { sequence, path, file, region, recycled, warmed_to })
        };
        let origin = match self.stage {
            Stage::Publish { file, region, recycled } => {
                self.stage = Stage::Create(Origin::New);
                self.publish(disk, &file)?;
                return Ok(ready(file, region, recycled));
            }
            Stage::Create(origin) => origin,
        };
        self.stage = Stage::Create(Origin::New);
        let (file, region) = create(disk, &self.temporary_path(), &origin, sequence, self.length)
            .map_err(MakeError::Refused)?;
        let recycled = matches!(origin, Origin::Recycled(_));
        self.stage = Stage::Publish { file, region, recycled };
        Ok(Step::More(self))
    }

    fn publish(&self, disk: &D, file: &D::File) -> Result<(), MakeError> {
        if !self.skip_file_sync {
            file.sync().map_err(MakeError::Fatal)?;
        }
        disk.rename(&self.temporary_path(), &self.path()).map_err(MakeError::Refused)?;
        if !self.skip_folder_sync {
            disk.sync_folder(&self.folder).map_err(MakeError::Fatal)?;
        }
        Ok(())
    }
}

fn create<D: Disk>(
    disk: &D,
    temporary: &Path,
    origin: &Origin,
    sequence: u64,
    length: u32,
) -> io::Result<(D::File, Region)> {
    let file = match origin {
        Origin::Recycled(old) => {
            disk.rename(old, temporary)?;
            disk.open(temporary)?
        }
        Origin::New => disk.create(temporary)?,
    };
    file.allocate(u64::from(length))?;
    let recycled = matches!(origin, Origin::Recycled(_));
    let head = SegmentHead { sequence, length: u64::from(length), recycled };
    file.write_at(0, &head.encode())?;
    let region = file.map(length as usize)?;
    Ok((file, region))
}

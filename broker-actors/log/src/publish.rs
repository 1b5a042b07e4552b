//! Footers and checkpoints appear whole or not at all.
//!
//! They do not stand behind the entries of the segment they belong to: a file of their own can be
//! renamed into place, so it is never half there, a recycled segment carries no stale one, and
//! writing one that finds the disk full leaves the segment as it was.
//!
//! The footer of a segment of small batches has half the bytes of the segment. So what is large goes in
//! turns, between which commits have theirs: no receipt waits until tens of megabytes are on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::{BlobKind, BlobWriter, Checking, Encode};
use crate::disk::Disk;
use crate::footer::Footer;
use crate::layout::{FileName, TEMPORARY_SUFFIX};
use crate::slots::SlotWrite;

/// Reading back what was written costs so much less than writing it.
const READ_FACTOR: usize = 8;

/// Files to make appear, in order, and marks of what that completes.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    pub files: Vec<(FileName, BlobKind, Arc<dyn Encode>)>,
    /// Written to the notes after all files are there.
    pub notes: Option<SlotWrite>,
    /// A rule that a test has taken away.
    pub skip_file_sync: bool,
    pub skip_folder_sync: bool,
}

impl Publication {
    /// Where its files are written before they get their names.
    pub(crate) fn temporary_paths(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        self.files.iter().map(|(name, ..)| temporary_path(folder, name))
    }
}

fn temporary_path(folder: &Path, name: &FileName) -> PathBuf {
    folder.join(format!("{name}{TEMPORARY_SUFFIX}"))
}

#[derive(Debug)]
pub(crate) enum PublishError {
    Refused(io::Error),
    Fatal(io::Error),
}

/// A publication under way.
#[derive(Debug)]
pub(crate) struct Publisher<D: Disk> {
    publication: Publication,
    /// About so many bytes of contents are written in a turn, each twice.
    turn_bytes: usize,
    /// In this turn.
    spent_bytes: usize,
    stage: Stage<D>,
    footers: Vec<Footer>,
}

/// What the next step does; a number is that of a file.
#[derive(Debug)]
enum Stage<D: Disk> {
    Write(usize, Option<BlobWriter<D::File>>),
    Name,
    ReadBack(usize, Option<Checking>),
    Note,
}

impl<D: Disk> Publisher<D> {
    /// Nothing is done yet.
    pub(crate) const fn new(publication: Publication, turn_bytes: usize) -> Self {
        let stage = Stage::Write(0, None);
        Self { publication, turn_bytes, spent_bytes: 0, stage, footers: Vec::new() }
    }

    /// What it makes appear; to be tried again from the beginning after an error.
    pub(crate) fn into_publication(self) -> Publication {
        self.publication
    }

    /// Does what a turn has room for; the footers among the files, when that was all.
    pub(crate) fn turn(
        &mut self,
        disk: &D,
        folder: &Path,
    ) -> Result<Option<Vec<Footer>>, PublishError> {
        self.spent_bytes = 0;
        while self.spent_bytes < self.turn_bytes {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Note) {
                Stage::Write(nth, writer) => self.write(disk, folder, nth, writer)?,
                Stage::Name => {
                    self.give_names(disk, folder)?;
                    Stage::ReadBack(0, None)
                }
                Stage::ReadBack(nth, checking) => self.read_back(disk, folder, nth, checking)?,
                // Last, so that what was refused has not touched them.
                Stage::Note => {
                    if let Some(notes) = &self.publication.notes {
                        notes.run(disk).map_err(PublishError::Fatal)?;
                    }
                    return Ok(Some(std::mem::take(&mut self.footers)));
                }
            };
        }
        Ok(None)
    }

    fn write(
        &mut self,
        disk: &D,
        folder: &Path,
        nth: usize,
        writer: Option<BlobWriter<D::File>>,
    ) -> Result<Stage<D>, PublishError> {
        let Some((name, kind, content)) = self.publication.files.get(nth) else {
            return Ok(Stage::Name);
        };
        let path = temporary_path(folder, name);
        let written = writer
            .map_or_else(|| BlobWriter::create(disk, &path, *kind, &**content), Ok)
            .and_then(|mut writer| {
                let left = self.turn_bytes - self.spent_bytes;
                Ok((writer.write(&**content, left)?, writer))
            });
        let ((bytes, is_whole), writer) = written.map_err(|error| {
            let _ = disk.remove(&path);
            PublishError::Refused(error)
        })?;
        self.spent_bytes += bytes;
        if !self.publication.skip_file_sync {
            writer.sync().map_err(PublishError::Fatal)?;
        }
        let next = if is_whole { (nth + 1, None) } else { (nth, Some(writer)) };
        Ok(Stage::Write(next.0, next.1))
    }

    /// A checkpoint stands on the footers before it: their names are durable before its own.
    fn give_names(&self, disk: &D, folder: &Path) -> Result<(), PublishError> {
        let Publication { files, skip_folder_sync, .. } = &self.publication;
        for kind in [BlobKind::Footer, BlobKind::Checkpoint] {
            let names = files.iter().filter(|(_, of, _)| *of == kind).map(|(name, ..)| name);
            for name in names.clone() {
                let (from, to) = (temporary_path(folder, name), folder.join(name.to_string()));
                disk.rename(&from, &to).map_err(PublishError::Refused)?;
            }
            if !skip_folder_sync && names.count() > 0 {
                disk.sync_folder(folder).map_err(PublishError::Fatal)?;
            }
        }
        Ok(())
    }

    /// The index reads a footer from its file from here on. One that is not whole is left out.
    fn read_back(
        &mut self,
        disk: &D,
        folder: &Path,
        nth: usize,
        checking: Option<Checking>,
    ) -> Result<Stage<D>, PublishError> {
        let Some((name, kind, _)) = self.publication.files.get(nth) else {
            return Ok(Stage::Note);
        };
        if *kind != BlobKind::Footer {
            return Ok(Stage::ReadBack(nth + 1, None));
        }
        let path = folder.join(name.to_string());
        let begun = checking.map_or_else(|| Checking::begin(disk, &path, *kind), |c| Ok(Some(c)));
        if let Some(mut checking) = begun.map_err(PublishError::Refused)? {
            let left = self.turn_bytes - self.spent_bytes;
            let bytes = checking.step(left.saturating_mul(READ_FACTOR));
            self.spent_bytes += bytes / READ_FACTOR;
            if !checking.is_over() {
                return Ok(Stage::ReadBack(nth, Some(checking)));
            }
            self.footers.extend(checking.body().and_then(|body| Footer::decode(&body)));
        }
        Ok(Stage::ReadBack(nth + 1, None))
    }
}

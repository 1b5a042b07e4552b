//! Files that are written once and appear whole or not at all: footers and checkpoints.
//!
//! Each holds its content twice, so that one bad sector loses nothing:
//!
//! ```text
//! copy: magic "GRUSBLOB" | version u16 | kind u16 | 0 u32 | body length u64 | 0.. | body crc u32 at 56 | crc u32 at 60 | body | 0..
//! file: copy, copy                          (a copy is a multiple of 512 bytes, so the second starts at half)
//! ```
//! They do not stand behind the entries of the segment they belong to: a file of their own can be
//! renamed into place, so it is never half there, a recycled segment carries no stale one, and
//! writing one that finds the disk full leaves the segment as it was.

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::entry::{u32_at, u64_at};
use crate::footer::Footer;
use crate::layout::{FileName, TEMPORARY_SUFFIX};

const MAGIC: &[u8; 8] = b"GRUSBLOB";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 64;
const SECTOR_BYTES: usize = 512;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlobKind {
    Footer = 1,
    Checkpoint = 2,
}

/// Content that is encoded on the job thread.
pub(crate) trait Encode: std::fmt::Debug + Send + Sync {
    fn encode(&self, into: &mut Vec<u8>);
}

/// Files to make appear, in order, and marks of what that completes.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    pub files: Vec<(FileName, BlobKind, std::sync::Arc<dyn Encode>)>,
    /// Written to the notes after all files are there.
    pub notes: Option<crate::slots::SlotWrite>,
    /// A rule that a test has taken away.
    pub skip_file_sync: bool,
    pub skip_folder_sync: bool,
}

#[derive(Debug)]
pub(crate) enum PublishError {
    Refused(io::Error),
    Fatal(io::Error),
}

impl Publication {
    /// Makes the files appear, and reads the footers among them back.
    pub(crate) fn run<D: Disk>(
        &self,
        disk: &D,
        folder: &Path,
    ) -> Result<Vec<Footer>, PublishError> {
        let temporary = |name: &FileName| folder.join(format!("{name}{TEMPORARY_SUFFIX}"));
        for (name, kind, content) in &self.files {
            let mut body = Vec::new();
            content.encode(&mut body);
            let path = temporary(name);
            if let Err(error) = write_new(disk, &path, *kind, &body, self.skip_file_sync) {
                let _ = disk.remove(&path);
                return Err(error);
            }
        }
        // A checkpoint stands on the footers before it: their names are durable before its own.
        for kind in [BlobKind::Footer, BlobKind::Checkpoint] {
            let names = self.files.iter().filter(|(_, of, _)| *of == kind).map(|(name, ..)| name);
            for name in names.clone() {
                let to = folder.join(name.to_string());
                disk.rename(&temporary(name), &to).map_err(PublishError::Refused)?;
            }
            if !self.skip_folder_sync && names.count() > 0 {
                disk.sync_folder(folder).map_err(PublishError::Fatal)?;
            }
        }
        let mut footers = Vec::new();
        for (name, kind, _) in self.files.iter().filter(|(_, kind, _)| *kind == BlobKind::Footer) {
            let path = folder.join(name.to_string());
            let blob = read_blob(disk, &path, *kind).map_err(PublishError::Refused)?;
            footers.extend(blob.and_then(|blob| Footer::decode(&blob.body)));
        }
        // Last, so that what was refused has not touched them.
        if let Some(notes) = &self.notes {
            notes.run(disk).map_err(PublishError::Fatal)?;
        }
        Ok(footers)
    }
}

fn write_new<D: Disk>(
    disk: &D,
    path: &Path,
    kind: BlobKind,
    body: &[u8],
    skip_sync: bool,
) -> Result<(), PublishError> {
    // One may be left from an attempt that found the disk full.
    let _ = disk.remove(path);
    let file = disk.create(path).map_err(PublishError::Refused)?;
    let copy = encode_copy(kind, body);
    file.allocate(2 * copy.len() as u64).map_err(PublishError::Refused)?;
    for at in [0, copy.len() as u64] {
        file.write_at(at, &copy).map_err(PublishError::Refused)?;
    }
    if skip_sync { Ok(()) } else { file.sync().map_err(PublishError::Fatal) }
}

fn encode_copy(kind: BlobKind, body: &[u8]) -> Vec<u8> {
    let mut copy = vec![0; HEADER_BYTES];
    copy[0..8].copy_from_slice(MAGIC);
    copy[8] = VERSION;
    copy[10] = kind as u8;
    copy[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    copy[56..60].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&copy[..60]);
    copy[60..64].copy_from_slice(&crc.to_le_bytes());
    copy.extend_from_slice(body);
    copy.resize(copy.len().next_multiple_of(SECTOR_BYTES), 0);
    copy
}

/// What reading a file found.
#[derive(Debug)]
pub(crate) struct Blob {
    pub body: Bytes,
    /// One of the two copies is damaged.
    pub damaged: bool,
}

/// Reads a file. `Ok(None)`: it is there, and both copies are damaged.
pub(crate) fn read_blob<D: Disk>(
    disk: &D,
    path: &Path,
    kind: BlobKind,
) -> io::Result<Option<Blob>> {
    let content = disk.load(path)?;
    let half = content.len() / 2;
    let copies =
        [decode_copy(&content.slice(..half), kind), decode_copy(&content.slice(half..), kind)];
    let damaged = copies.iter().any(Option::is_none);
    Ok(copies.into_iter().flatten().next().map(|body| Blob { body, damaged }))
}

fn decode_copy(copy: &Bytes, kind: BlobKind) -> Option<Bytes> {
    let header = copy.get(..HEADER_BYTES)?;
    let whole = &header[0..8] == MAGIC
        && header[8] == VERSION
        && header[10] == kind as u8
        && u32_at(header, 60) == crc32c::crc32c(&header[..60]);
    if !whole {
        return None;
    }
    let length = usize::try_from(u64_at(header, 16)).ok()?;
    let end = HEADER_BYTES.checked_add(length).filter(|end| *end <= copy.len())?;
    let body = copy.slice(HEADER_BYTES..end);
    (crc32c::crc32c(&body) == u32_at(header, 56)).then_some(body)
}

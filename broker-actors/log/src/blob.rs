//! The files that footers and checkpoints are.
//!
//! Each holds its content twice, so that one bad sector loses nothing:
//!
//! ```text
//! copy: magic "GRUSBLOB" | version u16 | kind u16 | 0 u32 | body length u64 | 0.. | body crc u32 at 56 | crc u32 at 60 | body | 0..
//! file: copy, copy                          (a copy is a multiple of 512 bytes, so the second starts at half)
//! ```

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::entry::{u32_at, u64_at};

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

/// Content that is encoded on the job thread, piece by piece.
pub(crate) trait Encode: std::fmt::Debug + Send + Sync {
    /// Bytes of all pieces.
    fn length(&self) -> usize;
    /// How many pieces there are.
    fn pieces(&self) -> usize;
    /// Appends a piece: some KiB, or one part of the state.
    fn encode_piece(&self, nth: usize, into: &mut Vec<u8>);
}

/// All pieces, whose length is as it was said.
#[cfg(test)]
pub(crate) fn encoded(content: &impl Encode) -> Vec<u8> {
    let mut body = Vec::new();
    (0..content.pieces()).for_each(|nth| content.encode_piece(nth, &mut body));
    assert_eq!(body.len(), content.length());
    body
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct BlobWriter<F> {
    file: F,
    kind: BlobKind,
    /// Of the content.
    length: usize,
    next_piece: usize,
    written: usize,
    crc: u32,
}

impl<F: DiskFile> BlobWriter<F> {
    /// Makes a file for `content`, in the place of one that an earlier attempt has left.
    pub(crate) fn create<D: Disk<File = F>>(
        disk: &D,
        path: &Path,
        kind: BlobKind,
        content: &dyn Encode,
    ) -> io::Result<Self> {
        let _ = disk.remove(path);
        let file = disk.create(path)?;
        let length = content.length();
        file.allocate(2 * copy_bytes(length))?;
        Ok(Self { file, kind, length, next_piece: 0, written: 0, crc: 0 })
    }

    /// Writes the next pieces of `content`, about `bytes`, and the header behind the last; how many it were, and
    /// whether that was all. Nothing of it is synced.
    pub(crate) fn write(
        &mut self,
        content: &dyn Encode,
        bytes: usize,
    ) -> io::Result<(usize, bool)> {
        let mut some = Vec::new();
        while some.len() < bytes && self.next_piece < content.pieces() {
            content.encode_piece(self.next_piece, &mut some);
            self.next_piece += 1;
        }
        self.write_twice(HEADER_BYTES + self.written, &some)?;
        self.crc = crc32c::crc32c_append(self.crc, &some);
        self.written += some.len();
        if self.next_piece < content.pieces() {
            return Ok((some.len(), false));
        }
        assert_eq!(self.written, self.length, "a content is as long as it says");
        self.write_twice(0, &header(self.kind, self.length, self.crc))?;
        Ok((some.len(), true))
    }

    fn write_twice(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        for copy in [0, copy_bytes(self.length)] {
            self.file.write_at(copy + at as u64, bytes)?;
        }
        Ok(())
    }

    /// Makes durable what was written.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Bytes of a copy whose body has so many.
const fn copy_bytes(length: usize) -> u64 {
    (HEADER_BYTES + length).next_multiple_of(SECTOR_BYTES) as u64
}

fn header(kind: BlobKind, length: usize, crc: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..8].copy_from_slice(MAGIC);
    header[8] = VERSION;
    header[10] = kind as u8;
    header[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    header[56..60].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&header[..60]);
    header[60..64].copy_from_slice(&crc.to_le_bytes());
    header
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
    let (body, crc) = body_of(copy, kind)?;
    (crc32c::crc32c(&body) == crc).then_some(body)
}

/// The body of a copy, which is not checked, and the checksum that it should have.
fn body_of(copy: &Bytes, kind: BlobKind) -> Option<(Bytes, u32)> {
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
    Some((copy.slice(HEADER_BYTES..end), u32_at(header, 56)))
}

/// The first copy of a file that was just written, as it is checked step by step.
#[derive(Debug)]
pub(crate) struct Checking {
    body: Bytes,
    wanted_crc: u32,
    checked: usize,
    crc: u32,
}

impl Checking {
    /// Of the file at `path`; none when its first header is damaged.
    pub(crate) fn begin<D: Disk>(
        disk: &D,
        path: &Path,
        kind: BlobKind,
    ) -> io::Result<Option<Self>> {
        let content = disk.load(path)?;
        let first = body_of(&content.slice(..content.len() / 2), kind);
        Ok(first.map(|(body, wanted_crc)| Self { body, wanted_crc, checked: 0, crc: 0 }))
    }

    /// Checks the next `bytes` at most; how many it were.
    pub(crate) fn step(&mut self, bytes: usize) -> usize {
        let end = self.body.len().min(self.checked.saturating_add(bytes));
        let some = &self.body[self.checked..end];
        self.crc = crc32c::crc32c_append(self.crc, some);
        self.checked = end;
        some.len()
    }

    /// Whether all of it is checked.
    pub(crate) const fn is_over(&self) -> bool {
        self.checked == self.body.len()
    }

    /// The body, if all of it is checked and whole.
    pub(crate) fn body(self) -> Option<Bytes> {
        let is_whole = self.is_over() && self.crc == self.wanted_crc;
        is_whole.then_some(self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;

    #[derive(Debug)]
    struct Pieces(Vec<Vec<u8>>);

    impl Encode for Pieces {
        fn length(&self) -> usize {
            self.0.iter().map(Vec::len).sum()
        }

        fn pieces(&self) -> usize {
            self.0.len()
        }

        fn encode_piece(&self, nth: usize, into: &mut Vec<u8>) {
            into.extend_from_slice(&self.0[nth]);
        }
    }

    fn disk() -> SimDisk {
        let disk = SimDisk::new(7);
        disk.create_folder(Path::new("/d")).unwrap();
        disk
    }

    fn write(disk: &SimDisk, content: &Pieces, bytes: usize) -> usize {
        let path = Path::new("/d/blob");
        let mut writer = BlobWriter::create(disk, path, BlobKind::Footer, content).unwrap();
        let mut steps = 1;
        while !writer.write(content, bytes).unwrap().1 {
            steps += 1;
        }
        writer.sync().unwrap();
        steps
    }

    #[test]
    fn a_file_is_the_same_in_however_many_steps_it_is_written() {
        let content = Pieces((0..40_u8).map(|n| vec![n; usize::from(n) * 9 % 70]).collect());
        let whole = disk();
        assert_eq!(write(&whole, &content, usize::MAX), 1);
        let whole = whole.load(Path::new("/d/blob")).unwrap();
        for bytes in [1, 64, 500] {
            let disk = disk();
            assert!(write(&disk, &content, bytes) > 1);
            // In the place of a longer one that was left there.
            write(&disk, &Pieces(vec![vec![1; 9_000]]), 100);
            write(&disk, &content, bytes);
            assert_eq!(disk.load(Path::new("/d/blob")).unwrap(), whole);
        }
    }

    #[test]
    fn each_of_the_two_copies_stands_for_the_whole_and_damage_is_seen() {
        let disk = disk();
        let content = Pieces(vec![b"abc".to_vec(), vec![9; 1_000]]);
        write(&disk, &content, 10);
        let path = Path::new("/d/blob");
        let body = [b"abc".as_slice(), &[9; 1_000]].concat();
        let read = || read_blob(&disk, path, BlobKind::Footer).unwrap();
        assert!(read().is_some_and(|blob| !blob.damaged && blob.body == body));
        let check = |bytes| {
            let mut checking = Checking::begin(&disk, path, BlobKind::Footer).unwrap()?;
            while !checking.is_over() {
                checking.step(bytes);
            }
            checking.body()
        };
        assert_eq!(check(100).unwrap(), body);
        assert_eq!(check(9_999).unwrap(), body);
        disk.flip_bit(path, 8 * 700);
        assert!(read().is_some_and(|blob| blob.damaged && blob.body == body), "the second one");
        assert!(check(100).is_none());
        disk.flip_bit(path, 8 * (1_536 + 20));
        assert!(read().is_none());
    }

    #[test]
    fn an_empty_content_is_one() {
        let disk = disk();
        assert_eq!(write(&disk, &Pieces(Vec::new()), 10), 1);
        let read = read_blob(&disk, Path::new("/d/blob"), BlobKind::Footer).unwrap();
        assert!(read.is_some_and(|blob| blob.body.is_empty() && !blob.damaged));
    }
}

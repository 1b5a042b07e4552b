//! The disk of the machine.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, flock, seek};
use rustix::io::{Errno, pwritev};

use super::{Disk, DiskFile, LockError};
use crate::region::Region;

/// Files up to this size are read, larger ones mapped.
const LOAD_BY_READING_BYTES_MAX: u64 = 64 * 1024;

/// Slices given to the kernel in one call; it takes 1024.
const SLICES_AT_ONCE: usize = 1024;

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// A file of the machine.
#[derive(Debug)]
pub struct RealFile(File);

/// An flock on a lock file; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct RealLock(#[expect(dead_code, reason = "held for its lock")] File);

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = RealLock;

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_folder(parent)?;
        }
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_folder(parent.unwrap_or_else(|| Path::new(".")))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            // A name that is not UTF-8 is not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<RealFile> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path).map(RealFile)
    }

    fn open(&self, path: &Path) -> io::Result<RealFile> {
        OpenOptions::new().read(true).write(true).open(path).map(RealFile)
    }

    fn load(&self, path: &Path) -> io::Result<Bytes> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        if length <= LOAD_BY_READING_BYTES_MAX {
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            return Ok(content.into());
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Ok(Bytes::from_owner(Region::of_file(&file, length)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path) -> Result<RealLock, LockError> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                return Err(LockError::Held { pid: text.trim().parse().unwrap_or(0) });
            }
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(RealLock(file))
    }

    fn boot_id(&self) -> [u8; 16] {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
    }
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn data_end(&self) -> io::Result<u64> {
        let length = self.length()?;
        let mut end = 0;
        loop {
            match seek(&self.0, SeekFrom::Data(end))
                .and_then(|data| seek(&self.0, SeekFrom::Hole(data)))
            {
                Ok(hole) => end = hole,
                // No data behind `end`.
                Err(Errno::NXIO) => return Ok(end),
                Err(_) => return Ok(length),
            }
        }
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => self.allocate_by_writing(length),
            Err(errno) => Err(errno.into()),
        }
    }

    fn release(&self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.0, flags, offset, length)?)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn write_slices_at(&self, offset: u64, slices: &[&[u8]]) -> io::Result<()> {
        let mut at = offset;
        for some in slices.chunks(SLICES_AT_ONCE) {
            let buffers: Vec<IoSlice<'_>> = some.iter().map(|slice| IoSlice::new(slice)).collect();
            let wanted: usize = some.iter().map(|slice| slice.len()).sum();
            let written = pwritev(&self.0, &buffers, at)?;
            if written < wanted {
                self.write_rest(at, some, written)?;
            }
            at += wanted as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self, length: usize) -> io::Result<Region> {
        Region::of_file(&self.0, length)
    }
}

impl RealFile {
    /// Writes what a short write has left of `slices`, which begin at `offset`.
    fn write_rest(&self, offset: u64, slices: &[&[u8]], written: usize) -> io::Result<()> {
        let mut start = 0;
        for slice in slices {
            let done = written.saturating_sub(start).min(slice.len());
            self.0.write_all_at(&slice[done..], offset + (start + done) as u64)?;
            start += slice.len();
        }
        Ok(())
    }

    /// For file systems without fallocate: zeros are written where the file is not yet.
    fn allocate_by_writing(&self, length: u64) -> io::Result<()> {
        let zeros = vec![0; 1024 * 1024];
        let mut at = self.length()?;
        while at < length {
            let step = (length - at).min(zeros.len() as u64);
            self.0.write_all_at(&zeros[..usize::try_from(step).expect("at most 1 MiB")], at)?;
            at += step;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;

    #[test]
    fn what_was_stored_or_written_lies_before_the_end_of_the_data() {
        let folder = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&folder.path().join("a")).unwrap();
        let length = 8 * 1024 * 1024;
        file.allocate(length).unwrap();
        let region = file.map(usize::try_from(length).unwrap()).unwrap();
        assert!(file.data_end().unwrap() <= length);
        for at in [10_000, 1_000_000, 3_000_000_u64] {
            file.write_slices_at(at, &[b"one", b"two"]).unwrap();
            assert!((at + 6..=length).contains(&file.data_end().unwrap()), "written at {at}");
            region.store(usize::try_from(at).unwrap() + 600_000, b"mapped");
            let stored = at + 600_006..=length;
            assert!(stored.contains(&file.data_end().unwrap()), "stored behind {at}");
            file.sync().unwrap();
            assert!(stored.contains(&file.data_end().unwrap()), "synced behind {at}");
        }
        assert_eq!(region.bytes(1_000_000..1_000_006), b"onetwo");
    }

    #[test]
    fn many_slices_are_all_written_also_behind_a_short_write() {
        let folder = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&folder.path().join("a")).unwrap();
        let pieces: Vec<Vec<u8>> =
            (0..3_000_u32).map(|n| n.to_le_bytes()[..n as usize % 5].to_vec()).collect();
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let all = pieces.concat();
        file.write_slices_at(7, &slices).unwrap();
        let mut read = vec![0; all.len()];
        file.read_at(7, &mut read).unwrap();
        assert_eq!(read, all);
        for written in [0, 1, 4, 100, all.len() - 1] {
            let file = RealDisk.create(&folder.path().join(format!("short {written}"))).unwrap();
            file.write_at(7, &all[..written]).unwrap();
            file.write_rest(7, &slices, written).unwrap();
            file.read_at(7, &mut read).unwrap();
            assert_eq!(read, all, "{written}");
        }
    }
}

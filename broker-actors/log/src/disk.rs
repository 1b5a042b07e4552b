//! What the log asks of a disk, so that a simulated one can stand in for the real one.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use bytes::Bytes;
use thiserror::Error;

use crate::region::Region;

pub mod real;
pub mod sim;

pub use real::RealDisk;
pub use sim::SimDisk;

/// Why a lock file could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("held by process {pid}")]
    Held {
        /// The process named in the file; 0 when the file names none.
        pid: u32,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A folder tree of files with explicit durability: nothing is promised to survive a power cut until
/// the file (its bytes and size) and the folder (its names) have each been synced.
pub trait Disk: Clone + Debug + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Held for as long as the lock is.
    type Lock: Debug + Send + 'static;

    /// Makes `folder` and its parents, durably.
    ///
    /// # Errors
    /// What the file system said.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// The names in `folder`, sorted.
    ///
    /// # Errors
    /// What the file system said.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes a new, empty file.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the file system said.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or what the file system said.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// The whole content of a file that is never changed again (mapped where that is cheaper).
    ///
    /// # Errors
    /// `NotFound`, or what the file system said.
    fn load(&self, path: &Path) -> io::Result<Bytes>;
    /// Takes a name away.
    ///
    /// # Errors
    /// `NotFound`, or what the file system said.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Moves a name within its folder, replacing what stood there.
    ///
    /// # Errors
    /// What the file system said.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in `folder` durable.
    ///
    /// # Errors
    /// What the file system said; the process must end then.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Takes the lock file at `path` for this process and writes its id into it.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it.
    fn lock(&self, path: &Path) -> Result<Self::Lock, LockError>;
    /// Identifies the run of the kernel: differs after every reboot and power cut.
    fn boot_id(&self) -> [u8; 16];
}

/// One open file of a [`Disk`].
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Bytes in the file.
    ///
    /// # Errors
    /// What the file system said.
    fn length(&self) -> io::Result<u64>;
    /// Where the last bytes end that were ever written; behind it all reads as zeros. Never less than that;
    /// where the file system does not tell, the length.
    ///
    /// # Errors
    /// What the file system said.
    fn data_end(&self) -> io::Result<u64> {
        self.length()
    }
    /// Gives every byte up to `length` a place on the disk (zeros where nothing was) and makes the
    /// file at least that long. Afterwards no store below `length` can find the disk full.
    ///
    /// # Errors
    /// `StorageFull`, or what the file system said.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Gives the places of `length` bytes at `offset` back; they read as zeros. Never while mapped.
    ///
    /// # Errors
    /// What the file system said; nothing depends on success.
    fn release(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Reads exactly `into.len()` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof`, or what the file system said.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// `StorageFull`, or what the file system said.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes all of `slices`, one behind the other.
    ///
    /// # Errors
    /// `StorageFull`, or what the file system said; some of the bytes may be written then.
    fn write_slices_at(&self, offset: u64, slices: &[&[u8]]) -> io::Result<()> {
        let mut at = offset;
        for slice in slices {
            self.write_at(at, slice)?;
            at += slice.len() as u64;
        }
        Ok(())
    }
    /// Makes bytes and size durable (fdatasync).
    ///
    /// # Errors
    /// What the file system said; the process must end then, since the kernel forgets failed pages.
    fn sync(&self) -> io::Result<()>;
    /// Maps the first `length` bytes, shared and writable.
    ///
    /// # Errors
    /// What mmap said.
    fn map(&self, length: usize) -> io::Result<Region>;
}

/// Whether `error` says that the disk is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

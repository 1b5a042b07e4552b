//! A disk in memory that loses what was not synced, for tests.
//!
//! At a power cut every 512-byte sector that was written since its file's last sync is, each by
//! itself, as it was or as it became; so are sizes, and each name that was made, moved or taken away
//! since its folder's last sync. Stores into mappings count like writes. Each operation and each
//! store is a *step*; [`SimDisk::cut_at_step`] cuts the power at one of them, and everything after
//! it fails. Between the steps sectors are written back by chance, as a kernel does, so that a
//! sector may also keep a value from between two stores.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Disk, DiskFile, LockError};
use crate::region::{Region, StoreWatch};

mod state;

use state::{Inode, SECTOR_BYTES, State};

/// A disk in memory; clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// A file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    life: u64,
}

/// The lock of a [`SimDisk`]; let go of when dropped.
#[derive(Debug)]
pub struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

#[derive(Debug)]
struct Watch {
    disk: SimDisk,
    inode: u64,
    life: u64,
}

impl SimDisk {
    /// An empty disk; `seed` decides every chance it takes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed))) }
    }

    /// Cuts the power when step number `step` is about to happen. Steps count from the last start.
    pub fn cut_at_step(&self, step: u64) {
        self.lock_state().cut_at = Some(step);
    }

    /// Cuts the power now.
    pub fn cut(&self) {
        self.lock_state().cut();
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.lock_state().off
    }

    /// Steps since the power came on.
    pub fn steps(&self) -> u64 {
        self.lock_state().steps
    }

    /// How many sectors have gone back, at cuts so far, to what they were at their file's last sync.
    pub fn lost_sectors(&self) -> u64 {
        self.lock_state().lost_sectors
    }

    /// Power on again: only what survived is there. Files and regions of before are dead.
    pub fn power_on(&self) {
        let mut state = self.lock_state();
        if !state.off {
            state.cut();
        }
        state.power_on();
    }

    /// Ends the process without a power cut: nothing is lost, locks are let go of, old handles die.
    pub fn kill_process(&self) {
        let mut state = self.lock_state();
        state.life += 1;
        state.locks.clear();
        state.steps = 0;
        state.cut_at = None;
        state.detach_mappings();
    }

    /// A disk with the same content and a life of its own; what is open stays with the old one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock_state().fork())) }
    }

    /// Overwrites bytes of a file, in the cache and on the medium.
    ///
    /// # Panics
    /// When the file has no such bytes.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let mut state = self.lock_state();
        let inode = *state.names.get(path).expect("no such file");
        let inode = state.inodes.get_mut(&inode).expect("a name without a file");
        let at = usize::try_from(offset).expect("a small file");
        inode.write_raw(at, bytes);
        if let Some(durable) = inode.durable.get_mut(at..at + bytes.len()) {
            durable.copy_from_slice(bytes);
        }
    }

    /// Cuts a file short, in the cache and on the medium.
    ///
    /// # Panics
    /// When there is no such file, or it is mapped.
    pub fn shorten(&self, path: &Path, length: usize) {
        let mut state = self.lock_state();
        let inode = *state.names.get(path).expect("no such file");
        state.inodes.get_mut(&inode).expect("a name without a file").shorten(length);
    }

    /// Limits what all files together may allocate.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.lock_state().capacity = bytes;
    }

    /// Bytes allocated by all files.
    pub fn used_bytes(&self) -> u64 {
        self.lock_state().used()
    }

    /// Makes the `n`-th sync from now fail with an I/O error (1 is the next one).
    pub fn fail_sync_in(&self, n: u64) {
        self.lock_state().fail_sync_in = n;
    }

    /// Turns one bit of a file over, in the cache and on the medium.
    ///
    /// # Panics
    /// When there is no such file or bit.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let byte = usize::try_from(bit / 8).expect("a small file");
        let was = self.content(path)[byte];
        self.overwrite(path, bit / 8, &[was ^ 1 << (bit % 8)]);
    }

    /// What a file holds.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.lock_state();
        let inode = *state.names.get(path).expect("no such file");
        state.inode(inode).content().to_vec()
    }

    /// Every file with its length.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.lock_state();
        let length =
            |inode| state.inodes.get(inode).map_or(0, |inode: &Inode| inode.length() as u64);
        state.names.iter().map(|(path, inode)| (path.clone(), length(inode))).collect()
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, inode: u64, life: u64) -> SimFile {
        SimFile { disk: self.clone(), inode, life }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.lock_state().folders.insert(folder.to_path_buf());
        Ok(())
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.lock_state();
        state.alive()?;
        if !state.folders.contains(folder) {
            return Err(not_found());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let mut state = self.lock_state();
        state.step()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.new_inode();
        state.link(path.to_path_buf(), inode);
        Ok(self.file(inode, state.life))
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let state = self.lock_state();
        state.alive()?;
        let inode = *state.names.get(path).ok_or_else(not_found)?;
        Ok(self.file(inode, state.life))
    }

    fn load(&self, path: &Path) -> io::Result<Bytes> {
        let file = self.open(path)?;
        let mut content = vec![0; usize::try_from(file.length()?).expect("a small file")];
        file.read_at(0, &mut content)?;
        Ok(content.into())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.step()?;
        if !state.names.contains_key(path) {
            return Err(not_found());
        }
        state.unlink(path.to_path_buf());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.step()?;
        if !state.names.contains_key(from) {
            return Err(not_found());
        }
        state.rename(from.to_path_buf(), to.to_path_buf());
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.step()?;
        state.fail_sync()?;
        state.sync_names(folder);
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<SimLock, LockError> {
        let mut state = self.lock_state();
        state.alive()?;
        if !state.locks.insert(path.to_path_buf()) {
            return Err(LockError::Held { pid: std::process::id() });
        }
        Ok(SimLock { disk: self.clone(), path: path.to_path_buf(), life: state.life })
    }

    fn boot_id(&self) -> [u8; 16] {
        let boots = self.lock_state().boots;
        u128::from(boots).to_le_bytes()
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.lock_state();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock_state();
        state.alive()?;
        if state.life != self.life {
            return Err(io::Error::other("this file was opened by a process that is gone"));
        }
        act(&mut state, self.inode)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|state, inode| Ok(state.inode(inode).length() as u64))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.with(|state, inode| {
            state.step()?;
            state.grow(inode, usize::try_from(length).expect("a small file"))
        })
    }

    fn release(&self, offset: u64, length: u64) -> io::Result<()> {
        self.with(|state, inode| {
            state.step()?;
            let have = state.inode(inode).length();
            let from = usize::try_from(offset).expect("a small file").min(have);
            let until = usize::try_from(offset + length).expect("a small file").min(have);
            state.write(inode, from, &vec![0; until - from]);
            if until == have {
                state.inode_mut(inode).released = have - from;
            }
            Ok(())
        })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("a small file");
        self.with(|state, inode| state.inode(inode).read(offset, into))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("a small file");
        self.with(|state, inode| {
            state.step()?;
            state.grow(inode, offset + bytes.len())?;
            // A cut inside of a long write leaves some of its sectors behind.
            for (nth, part) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if nth > 0 && nth % 64 == 0 {
                    state.step()?;
                }
                state.write(inode, offset + nth * SECTOR_BYTES, part);
            }
            Ok(())
        })
    }

    /// One write, as in the kernel: a page stays locked until all that the call has for it is there.
    fn write_slices_at(&self, offset: u64, slices: &[&[u8]]) -> io::Result<()> {
        self.write_at(offset, &slices.concat())
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, inode| {
            state.step()?;
            state.fail_sync()?;
            state.inode_mut(inode).sync();
            Ok(())
        })
    }

    fn map(&self, length: usize) -> io::Result<Region> {
        let watch = Watch { disk: self.disk.clone(), inode: self.inode, life: self.life };
        self.with(|state, inode| state.inode_mut(inode).map(length))
            .map(|region| region.watched(Arc::new(watch)))
    }
}

impl StoreWatch for Watch {
    fn store(&self, offset: usize, length: usize, copy: &mut dyn FnMut()) {
        let mut state = self.disk.lock_state();
        if state.life == self.life && state.step().is_ok() {
            // Under the lock: what another thread writes back is never half of a store.
            copy();
            state.inode_mut(self.inode).touch(offset, length);
        }
    }
}

/// Names of a folder tree; what is on the medium, and what is not there yet, in order.
type Names = BTreeMap<PathBuf, u64>;
type Sectors = BTreeSet<usize>;

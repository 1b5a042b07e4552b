//! What a [`super::SimDisk`] holds: caches, the medium, and the chances taken at a cut.

use std::io;
use std::path::{Path, PathBuf};

use super::{Names, Sectors};
use crate::region::Region;
use crate::seeded::Seeded;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// One step in so many writes a random part of the dirty sectors back.
const WRITE_BACK_ONE_IN: u64 = 16;

#[derive(Debug)]
enum Cache {
    Heap(Vec<u8>),
    Mapped(Region),
}

#[derive(Debug)]
pub(super) struct Inode {
    cache: Cache,
    /// What is on the medium.
    pub(super) durable: Vec<u8>,
    dirty: Sectors,
    /// Bytes given back at the end.
    pub(super) released: usize,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug)]
pub(super) struct State {
    random: Seeded,
    pub(super) inodes: std::collections::BTreeMap<u64, Inode>,
    pub(super) names: Names,
    durable_names: Names,
    changes: Vec<NameChange>,
    pub(super) folders: std::collections::BTreeSet<PathBuf>,
    pub(super) locks: std::collections::BTreeSet<PathBuf>,
    next_inode: u64,
    pub(super) steps: u64,
    pub(super) cut_at: Option<u64>,
    pub(super) off: bool,
    pub(super) life: u64,
    pub(super) boots: u64,
    pub(super) capacity: u64,
    pub(super) fail_sync_in: u64,
    /// Sectors that cuts have taken back to what they were at their last sync.
    pub(super) lost_sectors: u64,
}

impl Inode {
    pub(super) fn length(&self) -> usize {
        match &self.cache {
            Cache::Heap(bytes) => bytes.len(),
            Cache::Mapped(region) => region.len(),
        }
    }

    pub(super) fn content(&self) -> &[u8] {
        match &self.cache {
            Cache::Heap(bytes) => bytes,
            Cache::Mapped(region) => region.as_ref(),
        }
    }

    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        let content = self.content();
        let from = content.get(offset..offset + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    }

    pub(super) fn write_raw(&mut self, offset: usize, bytes: &[u8]) {
        match &mut self.cache {
            Cache::Heap(content) => content[offset..offset + bytes.len()].copy_from_slice(bytes),
            Cache::Mapped(region) => region.store(offset, bytes),
        }
    }

    pub(super) fn shorten(&mut self, length: usize) {
        // What was given back is at the end.
        self.released = self.released.saturating_sub(self.length().saturating_sub(length));
        let Cache::Heap(content) = &mut self.cache else { panic!("a mapped file stays as long") };
        content.truncate(length);
        self.durable.truncate(length);
        self.dirty.retain(|sector| sector * SECTOR_BYTES < length);
    }

    pub(super) fn touch(&mut self, offset: usize, length: usize) {
        if length > 0 {
            self.dirty.extend(offset / SECTOR_BYTES..=(offset + length - 1) / SECTOR_BYTES);
        }
    }

    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.write_back(sector);
        }
        let length = self.length();
        self.durable.resize(length, 0);
    }

    fn write_back(&mut self, sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.length());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        let part = self.content()[start..end].to_vec();
        self.durable[start..end].copy_from_slice(&part);
    }

    pub(super) fn map(&mut self, length: usize) -> io::Result<Region> {
        if let Cache::Heap(content) = &self.cache {
            assert!(length == content.len(), "the simulated disk maps whole files only");
            let region = Region::of_memory(length)?;
            region.store(0, content);
            self.cache = Cache::Mapped(region);
        }
        match &self.cache {
            Cache::Mapped(region) if region.len() == length => Ok(region.clone()),
            _ => Err(io::Error::other("mapped before with another length")),
        }
    }
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Seeded::new(seed),
            inodes: std::collections::BTreeMap::new(),
            names: Names::new(),
            durable_names: Names::new(),
            changes: Vec::new(),
            folders: std::collections::BTreeSet::new(),
            locks: std::collections::BTreeSet::new(),
            next_inode: 1,
            steps: 0,
            cut_at: None,
            off: false,
            life: 0,
            boots: 1,
            capacity: u64::MAX,
            fail_sync_in: 0,
            lost_sectors: 0,
        }
    }

    pub(super) fn fork(&self) -> Self {
        let inodes = self.inodes.iter().map(|(number, inode)| {
            let cache = Cache::Heap(inode.content().to_vec());
            let (durable, dirty) = (inode.durable.clone(), inode.dirty.clone());
            (*number, Inode { cache, durable, dirty, released: inode.released })
        });
        Self {
            random: self.random.clone(),
            inodes: inodes.collect(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            changes: self.changes.clone(),
            folders: self.folders.clone(),
            locks: std::collections::BTreeSet::new(),
            cut_at: None,
            ..*self
        }
    }

    pub(super) fn alive(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    pub(super) fn step(&mut self) -> io::Result<()> {
        self.alive()?;
        if self.cut_at == Some(self.steps) {
            self.cut();
        }
        self.alive()?;
        self.steps += 1;
        if self.random.below(WRITE_BACK_ONE_IN) == 0 {
            self.write_some_back();
        }
        Ok(())
    }

    fn write_some_back(&mut self) {
        let random = &mut self.random;
        for inode in self.inodes.values_mut() {
            let chosen: Vec<usize> =
                inode.dirty.iter().copied().filter(|_| random.below(2) == 0).collect();
            for sector in chosen {
                inode.dirty.remove(&sector);
                inode.write_back(sector);
            }
        }
    }

    pub(super) fn fail_sync(&mut self) -> io::Result<()> {
        self.fail_sync_in = match self.fail_sync_in {
            0 => return Ok(()),
            1 => {
                self.fail_sync_in = 0;
                return Err(io::Error::from_raw_os_error(5));
            }
            n => n - 1,
        };
        Ok(())
    }

    pub(super) fn inode(&self, inode: u64) -> &Inode {
        self.inodes.get(&inode).expect("an open file stays")
    }

    pub(super) fn inode_mut(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an open file stays")
    }

    pub(super) fn new_inode(&mut self) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        let empty = Cache::Heap(Vec::new());
        let made = Inode { cache: empty, durable: Vec::new(), dirty: Sectors::new(), released: 0 };
        self.inodes.insert(inode, made);
        inode
    }

    pub(super) fn used(&self) -> u64 {
        let allocated = |inode: &Inode| (inode.length() - inode.released) as u64;
        self.names.values().map(|inode| allocated(self.inode(*inode))).sum()
    }

    pub(super) fn grow(&mut self, inode: u64, length: usize) -> io::Result<()> {
        let have = self.inode(inode).length();
        let missing = length.saturating_sub(have) + self.inode(inode).released;
        if length < have || missing == 0 {
            return Ok(());
        }
        if self.used() + missing as u64 > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inode_mut(inode).released = 0;
        if length == have {
            return Ok(());
        }
        match &mut self.inode_mut(inode).cache {
            Cache::Heap(content) => content.resize(length, 0),
            Cache::Mapped(_) => return Err(io::Error::other("a mapped file does not grow")),
        }
        Ok(())
    }

    pub(super) fn write(&mut self, inode: u64, offset: usize, bytes: &[u8]) {
        let inode = self.inode_mut(inode);
        inode.write_raw(offset, bytes);
        inode.touch(offset, bytes.len());
    }

    pub(super) fn link(&mut self, path: PathBuf, inode: u64) {
        self.names.insert(path.clone(), inode);
        self.changes.push(NameChange::Link(path, inode));
    }

    pub(super) fn unlink(&mut self, path: PathBuf) {
        self.names.remove(&path);
        self.changes.push(NameChange::Unlink(path));
    }

    pub(super) fn rename(&mut self, from: PathBuf, to: PathBuf) {
        let inode = self.names.remove(&from).expect("checked by the caller");
        self.names.insert(to.clone(), inode);
        self.changes.push(NameChange::Rename(from, to));
    }

    pub(super) fn sync_names(&mut self, folder: &Path) {
        let (inside, outside): (Vec<_>, Vec<_>) =
            self.changes.drain(..).partition(|change| change.folder() == Some(folder));
        self.changes = outside;
        for change in inside {
            change.apply(&mut self.durable_names);
        }
    }

    /// The instant of the cut: decides what is on the medium. Nothing later counts.
    pub(super) fn cut(&mut self) {
        self.off = true;
        self.cut_at = None;
        let random = &mut self.random;
        for inode in self.inodes.values_mut() {
            let length = inode.length();
            for sector in std::mem::take(&mut inode.dirty) {
                if random.below(2) == 0 {
                    inode.write_back(sector);
                } else {
                    self.lost_sectors += 1;
                }
            }
            if inode.durable.len() != length && random.below(2) == 0 {
                inode.durable.resize(length, 0);
            }
        }
        for change in std::mem::take(&mut self.changes) {
            if self.random.below(2) == 0 {
                change.apply(&mut self.durable_names);
            }
        }
    }

    pub(super) fn power_on(&mut self) {
        self.off = false;
        self.life += 1;
        self.boots += 1;
        self.steps = 0;
        self.cut_at = None;
        self.fail_sync_in = 0;
        self.locks.clear();
        self.names = self.durable_names.clone();
        let named: std::collections::BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
        for inode in self.inodes.values_mut() {
            inode.cache = Cache::Heap(inode.durable.clone());
        }
    }

    /// The mappings of a process that is gone keep their memory; the files go on in new memory.
    pub(super) fn detach_mappings(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.cache = Cache::Heap(inode.content().to_vec());
        }
    }
}

impl NameChange {
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _) => path.parent(),
        }
    }

    fn apply(self, names: &mut Names) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path, inode);
            }
            Self::Unlink(path) => {
                names.remove(&path);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
        }
    }
}

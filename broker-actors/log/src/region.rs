//! Mapped memory: the only file of this crate with `unsafe` in it.
//!
//! A [`Region`] is a shared mapping. Stores go through [`Region::store`], reads through
//! [`Region::bytes`] or through `Bytes` made over the whole region. What makes both sound together
//! is one rule, kept by `segment.rs` and `control.rs`: **a byte that may be read through a slice is
//! never stored to again while the region is alive.** Entries are only appended, truncation leaves
//! their bytes alone, and a file is used again only after every owner of its mapping is gone.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};

/// Makes each store into a mapping; how the simulated disk sees what a mapping writes.
pub trait StoreWatch: Send + Sync + std::fmt::Debug {
    /// `copy` stores `length` bytes at `offset`: in one step of the disk, so that no other thread syncs half of
    /// it. Not called when the machine that makes the store has lost its power.
    fn store(&self, offset: usize, length: usize, copy: &mut dyn FnMut());
}

/// A shared mapping of a file, or of memory that stands for one.
#[derive(Debug, Clone)]
pub struct Region {
    raw: Arc<MmapRaw>,
    watch: Option<Arc<dyn StoreWatch>>,
}

impl Region {
    /// Maps the first `length` bytes of `file`, which must be allocated up to there.
    ///
    /// # Errors
    /// What mmap said.
    pub fn of_file(file: &File, length: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().len(length).map_raw(file)?;
        Ok(Self { raw: Arc::new(raw), watch: None })
    }

    /// Maps `length` bytes of zeroed memory without a file.
    ///
    /// # Errors
    /// What mmap said.
    pub fn of_memory(length: usize) -> io::Result<Self> {
        let raw = MmapRaw::from(MmapOptions::new().len(length).map_anon()?);
        Ok(Self { raw: Arc::new(raw), watch: None })
    }

    /// The same memory, with each store made by `watch`.
    #[must_use]
    pub fn watched(&self, watch: Arc<dyn StoreWatch>) -> Self {
        Self { raw: Arc::clone(&self.raw), watch: Some(watch) }
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// Copies `bytes` to `offset`. Never to bytes that were handed out as a slice before.
    ///
    /// # Panics
    /// When the range is outside the region.
    #[expect(unsafe_code, reason = "a store into a mapping")]
    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len()).expect("offset overflows");
        assert!(
            end <= self.len(),
            "store of {offset}..{end} outside of {} mapped bytes",
            self.len()
        );
        // SAFETY: the range was checked against the mapping just above; `bytes` cannot overlap it,
        // since by the rule at the top nobody holds a slice of bytes that are stored to.
        let mut copy = || unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.raw.as_mut_ptr().add(offset),
                bytes.len(),
            );
        };
        match &self.watch {
            Some(watch) => watch.store(offset, bytes.len(), &mut copy),
            None => copy(),
        }
    }

    /// The bytes of `range`, which must not be stored to any more.
    ///
    /// # Panics
    /// When the range is outside the region.
    #[expect(unsafe_code, reason = "a slice of a mapping")]
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} is not mapped");
        // SAFETY: in bounds as just checked, the mapping lives as long as `self`, and by the rule at
        // the top nothing stores to bytes that are read.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(range.start), range.len()) }
    }

    /// Makes the pages of `range` present and writable, so that later stores do not fault.
    ///
    /// # Errors
    /// What madvise said; a full disk is impossible on an allocated file.
    pub fn fault_in_for_writing(&self, range: Range<usize>) -> io::Result<()> {
        self.advise(Advice::PopulateWrite, range)
    }

    /// Reads the pages of `range` in from the disk.
    ///
    /// # Errors
    /// What madvise said; a medium that cannot be read answers here and not by a signal later.
    pub fn fault_in_for_reading(&self, range: Range<usize>) -> io::Result<()> {
        self.advise(Advice::PopulateRead, range)
    }

    /// From now on the kernel reads nothing of this mapping that nobody asked for, so that who reads
    /// in steps has the disk for a step at a time. Without it, a sequential reader keeps the disk
    /// busy between its steps, too.
    pub fn read_no_further(&self) {
        // Where the kernel knows no such advice reads are less polite, nothing else.
        let _ = self.raw.advise(Advice::Random);
    }

    /// Reads the pages of `range` in by as few requests as possible, after
    /// [`Region::read_no_further`].
    ///
    /// # Errors
    /// As [`Region::fault_in_for_reading`].
    pub fn read_step(&self, range: Range<usize>) -> io::Result<()> {
        // Asks for the whole range at once; populating alone would ask for each page.
        let _ = self.advise(Advice::WillNeed, range.clone());
        self.fault_in_for_reading(range)
    }

    /// Whether all pages of `range` are in memory. A page that the kernel will not tell of counts
    /// as there.
    #[expect(unsafe_code, reason = "mincore has no safe face")]
    pub fn is_resident(&self, range: Range<usize>) -> bool {
        let page = 4096;
        let end = range.end.min(self.len());
        let mut at = range.start / page * page;
        while at < end {
            let mut present = [0u8; 64];
            let length = (end - at).min(present.len() * page);
            // SAFETY: `at..at + length` is mapped and starts at a page; one byte of `present` is
            // written per page of it, at most 64.
            let answer = unsafe {
                libc::mincore(self.raw.as_mut_ptr().add(at).cast(), length, present.as_mut_ptr())
            };
            if answer == 0 && present[..length.div_ceil(page)].iter().any(|page| page & 1 == 0) {
                return false;
            }
            at += length;
        }
        true
    }

    fn advise(&self, advice: Advice, range: Range<usize>) -> io::Result<()> {
        let end = range.end.min(self.len());
        if range.start >= end {
            return Ok(());
        }
        match self.raw.advise_range(advice, range.start, end - range.start) {
            // An old kernel: the first touch is slower then, nothing else.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }
}

/// Lets a whole region be owned by `Bytes`, through whatever keeps it alive.
impl AsRef<[u8]> for Region {
    fn as_ref(&self) -> &[u8] {
        self.bytes(0..self.len())
    }
}

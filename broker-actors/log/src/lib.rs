//! The commit log: segments, index, recovery, the Disk trait.
//!
//! [`Log`] is a plain struct that is called on its core thread and never blocks; what blocks comes
//! out of it as [`Job`]s for the flush thread. docs/STORAGE.md has the formats and the rules.

mod blob;
mod checkpoint;
mod config;
mod control;
pub mod disk;
mod entry;
mod error;
pub mod find;
mod footer;
mod index;
mod job;
mod layout;
mod log;
mod maker;
mod notes;
mod publish;
mod region;
mod report;
mod scan;
mod seeded;
mod segment;
mod slots;
#[cfg(feature = "fault-switches")]
pub mod switches;
#[cfg(not(feature = "fault-switches"))]
#[expect(dead_code, reason = "without the feature nobody takes a rule away")]
mod switches;
mod table;
mod walk;

pub use checkpoint::{CheckpointData, Part};
pub use config::LogConfig;
pub use disk::{Disk, DiskFile, LockError, RealDisk, SimDisk};
pub use entry::{ENTRY_HEADER_BYTES, Entry, EntryId, EntryKind, NewEntry, Place};
pub use error::{AppendError, CheckpointError, CheckpointReadError, Fatal, OpenError, ReadError};
pub use find::{
    FindBuilt, FindBy, FindFeed, FindIndex, FindMatch, FindOutcome, FindQuery, FindViews,
    SealedView,
};
pub use index::{Position, Run};
pub use job::{Job, JobDone, Progress, Ticket};
pub use layout::{FORMAT_VERSION, SEGMENT_HEAD_BYTES};
pub use log::{
    CheckpointReading, FaultIn, Log, LogStats, LostFloor, Recovered, Scrub, ScrubDone, Step,
};
pub use region::{Region, StoreWatch};
pub use report::{DamagedRange, Report, TornTail};
pub use seeded::Seeded;
pub use slots::SLOT_VALUE_BYTES_MAX;

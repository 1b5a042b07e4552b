//! What stops a replica, and why a group could not start.

use std::any::Any;

use grus_log::{Fatal, OpenError};
use thiserror::Error;

use crate::codec::CodecError;
use crate::machine::RestoreError;
use crate::payload::PayloadError;

/// Why this replica stopped. The process ends: recovery is a restart, or the operator's work.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum Fault {
    /// The log could not be written or synced.
    #[error("log failed: {0}")]
    Log(String),
    /// An entry that must be there is damaged.
    #[error("log entry {index} is damaged: {reason}")]
    Entry {
        /// Log index of the entry.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry holds an item this build does not know: a newer build wrote it.
    #[error("log entry {index} holds item kind {kind}, unknown at feature level {level}")]
    UnknownItem {
        /// Log index of the entry.
        index: u64,
        /// Kind of the item.
        kind: u16,
        /// Feature level in force.
        level: u16,
    },
    /// An entry asks for a feature level this build does not have.
    #[error("log entry {index} raises the feature level to {level}, this build has {level_max}")]
    FeatureLevel {
        /// Log index of the entry.
        index: u64,
        /// Level asked for.
        level: u16,
        /// Level this build has.
        level_max: u16,
    },
    /// This replica's state differs from the leader's.
    #[error("state at seal {index} has digest {ours:#018x}, the leader has {theirs:#018x}")]
    Diverged {
        /// Log index of the seal at which the states differ.
        index: u64,
        /// Digest here.
        ours: u64,
        /// Digest in the leader's next Seal entry.
        theirs: u64,
    },
    /// A checkpoint or snapshot does not give the state it says it holds.
    #[error("checkpoint at {index} cannot be restored: {reason}")]
    Checkpoint {
        /// Log index of the checkpoint.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine panicked: a bug, on every replica alike.
    #[error("applying log entry {index} panicked: {reason}")]
    Panicked {
        /// Log index of the entry.
        index: u64,
        /// What the panic said.
        reason: String,
    },
    /// openraft stopped.
    #[error("consensus stopped: {0}")]
    Raft(String),
    /// openraft does not answer its probe.
    #[error("consensus has not answered a probe for {seconds} s")]
    Hung {
        /// How long.
        seconds: u64,
    },
}

impl Fault {
    /// A panic out of the machine.
    pub(crate) fn panic(index: u64, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Fault::Panicked { index, reason: text.unwrap_or("no message").to_owned() }
    }

    /// A payload that is not in its format.
    pub(crate) fn payload(index: u64, error: PayloadError) -> Self {
        Fault::Entry { index, reason: error.to_string() }
    }

    /// A part of an entry that is not in its format.
    pub(crate) fn codec(index: u64, error: CodecError) -> Self {
        Fault::Entry { index, reason: error.to_string() }
    }

    /// A checkpoint whose parts are refused.
    pub(crate) fn restore(index: u64, error: &RestoreError) -> Self {
        Fault::Checkpoint { index, reason: error.to_string() }
    }

    /// As an error that openraft carries about.
    pub(crate) fn into_io(self) -> std::io::Error {
        std::io::Error::other(self)
    }
}

impl From<Fatal> for Fault {
    fn from(fatal: Fatal) -> Self {
        Fault::Log(fatal.to_string())
    }
}

/// Why a group could not start. Nothing on disk was changed.
#[derive(Debug, Error)]
pub enum StartError {
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was recovered cannot be used.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The log begins behind a purge, but the checkpoint at the purge point is not there.
    #[error("log is purged up to {purged}, but no checkpoint covers that")]
    CheckpointMissing {
        /// Log index of the purge point.
        purged: u64,
    },
    /// The checkpoint that other members would be sent cannot be read. The state here is whole from a
    /// later one, but that one would leave them without the messages between the two.
    #[error(
        "the snapshot at {floor} cannot be read ({files}), and other members may need it; nothing \
         was changed: bring the files back from a copy, or remove this member from its group and add it anew with an \
         empty folder"
    )]
    FloorLost {
        /// Log index of the snapshot.
        floor: u64,
        /// The files that cannot be read.
        files: String,
    },
    /// The log knows of no other voter, and the group has had others since: it is a copy of before they
    /// came. What they have acknowledged is not in it, so it must not lead.
    #[error(
        "its log, which ends at entry {last}, knows of this member alone, but others have come to its group \
         since: it is an old copy, and lacks what they have acknowledged"
    )]
    Outgrown {
        /// Log index of the last entry.
        last: u64,
    },
    /// A configuration that cannot work.
    #[error("invalid group configuration: {0}")]
    Config(String),
}

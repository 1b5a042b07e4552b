//! Ordering rules that a test can take away one at a time, to see that the crash tests notice.

/// A rule without which an acknowledged entry or a vote can be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderRule {
    /// An entry is acknowledged only after a sync that began when it was written.
    SyncBeforeAcknowledge,
    /// The log written so far is synced before a vote is written.
    LogBeforeVote,
    /// A vote is synced before it is answered.
    SyncVote,
    /// A checkpoint appears only after the log up to it is durable.
    LogBeforeCheckpoint,
    /// A file is complete on the disk before it gets its name.
    SyncBeforeRename,
    /// A new segment's name is durable before anything in it is acknowledged.
    SyncFolder,
    /// Each life of a file has its own sequence number in every entry.
    SequencePerLife,
    /// A sequence number that a cut has declared void is never given again.
    NumbersBeyondCuts,
    /// Truncation closes the segment; it never writes over the truncated bytes.
    CloseAtTruncation,
    /// What recovery read is synced before it is relied on.
    SyncRecovered,
    /// The torn tail is durably cut before anything is appended behind it.
    CloseAtRecovery,
    /// The purge point is durable before a file below it goes.
    FloorBeforeRemove,
    /// Bytes at a place never change: a file is used again only after its last reader has gone.
    RecycleAfterReaders,
}

impl OrderRule {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SyncBeforeAcknowledge,
        Self::LogBeforeVote,
        Self::SyncVote,
        Self::LogBeforeCheckpoint,
        Self::SyncBeforeRename,
        Self::SyncFolder,
        Self::SequencePerLife,
        Self::NumbersBeyondCuts,
        Self::CloseAtTruncation,
        Self::SyncRecovered,
        Self::CloseAtRecovery,
        Self::FloorBeforeRemove,
        Self::RecycleAfterReaders,
    ];
}

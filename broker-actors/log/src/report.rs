//! What opening a log found and did.

use std::ops::Range;

use crate::entry::EntryId;

/// Entries that cannot be read any more although they were durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRange {
    /// Sequence number of the segment, which is in its file's name.
    pub sequence: u64,
    /// Where in the file; `0..0` when the file is not there.
    pub bytes: Range<u32>,
    /// First index hit.
    pub first_index: u64,
    /// Last index hit.
    pub last_index: u64,
}

impl std::fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sequence, bytes, first_index, last_index } = self;
        if *bytes == (0..0) {
            return write!(
                f,
                "segment-{sequence:016x} is missing: entries {first_index}..={last_index}"
            );
        }
        if bytes.is_empty() {
            let at = bytes.start;
            return write!(
                f,
                "segment-{sequence:016x} byte {at}: entries {first_index}..={last_index} are missing here"
            );
        }
        write!(
            f,
            "segment-{sequence:016x} bytes {}..{}: entries {first_index}..={last_index} damaged",
            bytes.start, bytes.end
        )
    }
}

/// The unfinished end of the log that was cut away: none of it had been acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// Sequence number of the segment.
    pub sequence: u64,
    /// Where it was cut.
    pub offset: u32,
    /// Pieces found behind the cut in that segment.
    pub entries: u64,
    /// The last entry that stands.
    pub last: Option<EntryId>,
}

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The torn tail, if there was one.
    pub torn: Option<TornTail>,
    /// What is damaged in the log. Nothing of it was cut; reading it gives a typed error.
    pub damage: Vec<DamagedRange>,
    /// Other files or copies that were damaged, and what was done: one line each.
    pub notes: Vec<String>,
}

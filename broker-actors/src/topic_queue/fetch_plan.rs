//! What a fetch gets: decided by plain rules over what the queue holds.

use grus_protocol::ids::{Offset, Term};

/// The readable bounds of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that may be read.
    pub log_start: Offset,
    /// One past the last offset that may be read: the end of what is applied.
    pub end_offset: Offset,
}

/// What to do with a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchPlan {
    /// There is something from that offset on.
    Read,
    /// The reader is at the end: wait for more, or answer with nothing.
    AtEnd,
    /// The offset lies outside the queue.
    OutOfRange,
    /// What the reader saw before that offset is not what the queue holds there.
    Diverged,
}

/// Plans a fetch at `offset` by a reader that saw a batch of `last_term` before it.
///
/// `term_before` gives the term of the batch that holds the record before `offset`, where it is
/// still kept. A reader that saw another one read a log that a crash has since taken back (only
/// at the level `replicated`, see BLUEPRINT 5), so its offset means nothing here.
pub fn plan(
    bounds: Bounds,
    offset: Offset,
    last_term: Term,
    term_before: impl FnOnce() -> Option<Term>,
) -> FetchPlan {
    debug_assert!(bounds.log_start <= bounds.end_offset, "a queue starts before it ends");
    let beyond_end = offset > bounds.end_offset;
    if last_term != Term(0) && beyond_end {
        return FetchPlan::Diverged;
    }
    if beyond_end || offset < bounds.log_start {
        return FetchPlan::OutOfRange;
    }
    if last_term != Term(0)
        && offset > bounds.log_start
        && term_before().is_some_and(|term| term != last_term)
    {
        return FetchPlan::Diverged;
    }
    if offset == bounds.end_offset { FetchPlan::AtEnd } else { FetchPlan::Read }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { log_start: Offset(10), end_offset: Offset(20) };

    fn planned(offset: u64, last_term: u64, before: Option<u64>) -> FetchPlan {
        plan(BOUNDS, Offset(offset), Term(last_term), || before.map(Term))
    }

    #[test]
    fn offsets_inside_are_read_and_the_end_is_waited_at() {
        assert_eq!(planned(10, 0, None), FetchPlan::Read);
        assert_eq!(planned(19, 3, Some(3)), FetchPlan::Read);
        assert_eq!(planned(20, 3, Some(3)), FetchPlan::AtEnd);
        assert_eq!(planned(20, 0, Some(3)), FetchPlan::AtEnd);
    }

    #[test]
    fn offsets_outside_are_named_and_beyond_the_end_a_known_term_tells_more() {
        assert_eq!(planned(9, 0, None), FetchPlan::OutOfRange);
        assert_eq!(planned(9, 3, Some(3)), FetchPlan::OutOfRange);
        assert_eq!(planned(21, 0, None), FetchPlan::OutOfRange);
        assert_eq!(planned(21, 3, None), FetchPlan::Diverged);
    }

    #[test]
    fn another_term_before_the_offset_means_another_log() {
        assert_eq!(planned(15, 2, Some(3)), FetchPlan::Diverged);
        assert_eq!(planned(20, 2, Some(3)), FetchPlan::Diverged);
        assert_eq!(planned(15, 2, None), FetchPlan::Read, "no longer kept: cannot be told");
        assert_eq!(planned(10, 2, Some(3)), FetchPlan::Read, "before the start nothing is kept");
    }
}

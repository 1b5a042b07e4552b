//! Requests that are answered by a time, come what may. Pure: time is told.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::FrameHead;

use super::replies::{Content, Outgoing};

/// Answered requests that may lie among the others before they are swept out.
const ANSWERED_MAX: usize = 1_024;

/// Which of two may answer a request: the one who was asked, or the clock. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Claims the answer; false when it is taken.
    #[must_use]
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody has answered.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A request with its time.
#[derive(Debug, Clone)]
pub struct Timed {
    /// When it must be answered, in milliseconds, monotonic.
    pub deadline_ms: u64,
    /// The request.
    pub head: FrameHead,
    /// What it took of the budget, in bytes.
    pub request_bytes: u32,
    /// Who answers it.
    pub claim: Claim,
}

impl Timed {
    /// The error that says that time is up; none when it was answered.
    #[must_use]
    pub fn expired(&self, text: &str) -> Option<Outgoing> {
        if !self.claim.take() {
            return None;
        }
        let content = if self.head.wants_no_reply() {
            Content::Nothing
        } else {
            Content::Error(self.head, Box::new(ErrorReply::new(ErrorCode::Timeout, text)))
        };
        Some(Outgoing { request_bytes: Some(self.request_bytes), content, close_after: false })
    }
}

/// Requests under way, the most urgent first.
#[derive(Debug, Default)]
pub struct Timeouts {
    heap: BinaryHeap<Reverse<Entry>>,
    unanswered: usize,
}

#[derive(Debug)]
struct Entry(Timed);

impl Timeouts {
    /// Adds a request; true when it is now the most urgent one.
    pub fn add(&mut self, timed: Timed) -> bool {
        if self.heap.len() > 2 * self.unanswered + ANSWERED_MAX {
            self.heap.retain(|Reverse(Entry(timed))| !timed.claim.is_taken());
            self.unanswered = self.heap.len();
        }
        let is_first = self.next_ms().is_none_or(|next_ms| timed.deadline_ms < next_ms);
        self.heap.push(Reverse(Entry(timed)));
        is_first
    }

    /// When the most urgent one is due.
    pub fn next_ms(&mut self) -> Option<u64> {
        while let Some(Reverse(Entry(first))) = self.heap.peek() {
            if !first.claim.is_taken() {
                return Some(first.deadline_ms);
            }
            self.heap.pop();
        }
        None
    }

    /// The next one that is due at `now_ms` and not answered.
    pub fn take_due(&mut self, now_ms: u64) -> Option<Timed> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(Entry(timed))| timed)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.deadline_ms == other.0.deadline_ms
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.deadline_ms.cmp(&other.0.deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::frame::FrameFlags;
    use grus_protocol::opcode::Opcode;

    use super::*;

    fn timed(deadline_ms: u64) -> Timed {
        let head = FrameHead::request(Opcode::Produce, deadline_ms);
        Timed { deadline_ms, head, request_bytes: 9, claim: Claim::default() }
    }

    #[test]
    fn the_clock_answers_what_is_due_and_nothing_twice() {
        let mut timeouts = Timeouts::default();
        let answered = timed(10);
        assert!(timeouts.add(answered.clone()));
        assert!(!timeouts.add(timed(20)));
        assert!(timeouts.add(timed(5)));
        assert!(answered.claim.take(), "the queue answers first");
        assert_eq!(timeouts.next_ms(), Some(5));
        assert!(timeouts.take_due(4).is_none());
        let late = timeouts.take_due(19).unwrap();
        assert_eq!((late.deadline_ms, late.claim.is_taken()), (5, false));
        let outgoing = late.expired("late").unwrap();
        assert_eq!(outgoing.request_bytes, Some(9));
        assert_eq!(outgoing.content.error_code(), Some(ErrorCode::Timeout));
        assert!(late.expired("late").is_none() && !late.claim.take(), "once");
        assert!(timeouts.take_due(19).is_none(), "the other was answered");
        assert_eq!(timeouts.take_due(20).unwrap().deadline_ms, 20);
        assert_eq!(timeouts.next_ms(), None);
    }

    #[test]
    fn one_that_wants_no_reply_gets_none_and_gives_its_room_back() {
        let mut one_way = timed(1);
        one_way.head.flags = FrameFlags::NO_REPLY;
        let outgoing = one_way.expired("late").unwrap();
        assert!(matches!(outgoing.content, Content::Nothing));
        assert_eq!(outgoing.request_bytes, Some(9));
    }

    #[test]
    fn answered_ones_are_swept_out() {
        let mut timeouts = Timeouts::default();
        let _waits = timeouts.add(timed(0));
        for n in 1..100_000 {
            let quick = timed(n);
            let _ = timeouts.add(quick.clone());
            assert!(quick.claim.take());
        }
        assert!(timeouts.heap.len() <= 2 * ANSWERED_MAX, "{} entries", timeouts.heap.len());
        assert_eq!(timeouts.next_ms(), Some(0), "the one that waits is still there");
    }
}

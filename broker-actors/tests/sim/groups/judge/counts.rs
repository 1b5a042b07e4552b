//! How often each message was delivered: at least, and at most, as far as the facts tell. What the
//! leaders say of it must lie between.
//!
//! A delivery counts once its member has failed, or has lost the queue; sent again to the same
//! member, over another connection, it is the same delivery. What a leader has counted is in the
//! log a moment later, so one that ends may forget its last, for which an answer may come to the next
//! one all the same, before that has noted that it sends it again; and an answer of which nobody heard
//! may have been taken or not.

use std::collections::BTreeMap;

use grus_protocol::ids::QueueKey;

use super::super::facts::{Back, Holder};
use super::super::member::DELIVERIES_MAX;
use super::super::town::broker_of;

/// What a leader has counted is in the log after this time.
const COUNTED_WITHIN_NS: u64 = 250_000_000;

/// How sure it is that something has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Sure {
    #[default]
    No,
    Maybe,
    Yes,
}

/// A delivery that is not over.
#[derive(Debug)]
struct Open {
    /// Generation and member.
    claim: (u64, u64),
    at_ns: u64,
    /// Its member has said that it failed, and it is not known who heard it.
    is_failing: bool,
    /// When what that was said of had been sent: what is sent after an answer, and before it is taken,
    /// is not counted by it.
    failing_of_ns: u64,
    /// It was handed back unseen.
    back: Sure,
    back_ns: u64,
}

impl Open {
    const fn new(claim: (u64, u64), at_ns: u64) -> Self {
        let (is_failing, failing_of_ns, back, back_ns) = (false, at_ns, Sure::No, 0);
        Self { claim, at_ns, is_failing, failing_of_ns, back, back_ns }
    }
}

#[derive(Debug, Default)]
struct Count {
    least: u32,
    most: u32,
    open: Option<Open>,
    /// It has failed before, so that it waits in the table of retries.
    has_failed: Sure,
}

impl Count {
    /// Ends a delivery that was handed back or not, and that its leader did or did not remember.
    fn close(&mut self, outlives: impl Fn(u64) -> bool) -> bool {
        let Some(open) = self.open.take() else { return false };
        if open.back == Sure::Yes && outlives(open.back_ns) {
            return true;
        }
        self.most += 1;
        self.least += u32::from(open.back == Sure::No && outlives(open.at_ns));
        false
    }

    fn of(&mut self, by: &Holder) -> Option<&mut Open> {
        self.open.as_mut().filter(|open| open.claim == (by.generation, by.member))
    }

    /// Whether what its member says of the queue includes that it was not seen.
    fn is_unseen(&self, offset: u64, back: &Back, seen_to: SeenTo) -> Sure {
        let again = if back.in_work.contains(&offset) { Sure::No } else { Sure::Yes };
        match (self.has_failed, seen_to.is_behind(offset)) {
            (Sure::No, first) => first,
            (Sure::Yes, _) => again,
            (Sure::Maybe, _) if again == Sure::No => Sure::No,
            (Sure::Maybe, Sure::Yes) => Sure::Yes,
            (Sure::Maybe, _) => Sure::Maybe,
        }
    }
}

/// Where what a member was sent for the first time and has seen ends: at least, and at most.
#[derive(Debug, Clone, Copy)]
struct SeenTo {
    least: u64,
    most: u64,
}

impl SeenTo {
    /// What it has in work tells, but for what was sent to it again.
    fn of(queue: &BTreeMap<u64, Count>, back: &Back) -> Self {
        let ends = |may_be: &[Sure]| {
            let has_failed = |offset: &u64| queue.get(offset).map_or(Sure::No, |it| it.has_failed);
            let first = back.in_work.iter().filter(|offset| may_be.contains(&has_failed(offset)));
            first.max().map_or(0, |offset| offset + 1).min(back.unseen_from)
        };
        Self { least: ends(&[Sure::No]), most: ends(&[Sure::No, Sure::Maybe]) }
    }

    fn is_behind(self, offset: u64) -> Sure {
        match offset {
            offset if offset >= self.most => Sure::Yes,
            offset if offset < self.least => Sure::No,
            _ => Sure::Maybe,
        }
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Counts {
    queues: BTreeMap<QueueKey, BTreeMap<u64, Count>>,
    /// When each broker has ended.
    ends: BTreeMap<u64, Vec<u64>>,
    /// Messages that were handed back unseen, and came again as if they had never been sent.
    pub(super) handed_back: u64,
}

/// Whether no broker that ended has forgotten what it did in the moment before.
fn outlives(ends: &BTreeMap<u64, Vec<u64>>, queue: QueueKey, at_ns: u64) -> bool {
    let ends = ends.get(&broker_of(queue).into()).map_or(&[][..], Vec::as_slice);
    !ends.iter().any(|end| (at_ns..at_ns + COUNTED_WITHIN_NS).contains(end))
}

impl Counts {
    pub(super) fn ended(&mut self, at_ns: u64, broker: u64) {
        self.ends.entry(broker).or_default().push(at_ns);
    }

    /// Messages leave for a member: offset, and deliveries before as the leader counts them.
    pub(super) fn delivered(&mut self, at_ns: u64, by: &Holder, messages: &[(u64, u32)]) {
        let queue = self.queues.entry(by.queue).or_default();
        for (offset, before) in messages {
            let count = queue.entry(*offset).or_default();
            let (least, most, is_sound);
            if let Some(open) = count.of(by).filter(|open| open.back != Sure::Yes) {
                let is_one_more = std::mem::take(&mut open.is_failing) || open.back == Sure::Maybe;
                open.at_ns = at_ns;
                count.most += u32::from(is_one_more);
                (least, most) = (count.least, count.most + 1);
                is_sound = *before <= DELIVERIES_MAX;
            } else {
                let came_back = count.close(|at_ns| outlives(&self.ends, by.queue, at_ns));
                self.handed_back += u64::from(came_back);
                let claim = (by.generation, by.member);
                count.open = Some(Open::new(claim, at_ns));
                (least, most) = (count.least, count.most);
                is_sound = *before < DELIVERIES_MAX;
            }
            let said = format!("{offset} is sent to {by:?} as delivered {before} times");
            assert!((least..=most).contains(before), "{said}: {least} to {most}");
            assert!(is_sound, "{said}: too often");
        }
    }

    pub(super) fn answering(&mut self, by: &Holder, failed: &[u64], back: Option<&Back>) {
        let queue = self.queues.entry(by.queue).or_default();
        for offset in failed {
            let count = queue.entry(*offset).or_default();
            let Some(open) = count.of(by) else { continue };
            (open.is_failing, open.failing_of_ns) = (true, open.at_ns);
            if count.has_failed == Sure::No {
                count.has_failed = Sure::Maybe;
            }
        }
        self.hands_back(by, back, |_| Sure::Maybe);
    }

    pub(super) fn settled(&mut self, at_ns: u64, by: &Holder, failed: &[u64], back: Option<&Back>) {
        let queue = self.queues.entry(by.queue).or_default();
        for offset in failed {
            let count = queue.entry(*offset).or_default();
            let Some(open) = count.of(by) else { continue };
            (open.back, open.at_ns) = (Sure::No, open.failing_of_ns);
            count.close(|at_ns| outlives(&self.ends, by.queue, at_ns));
            count.has_failed = Sure::Yes;
        }
        self.hands_back(by, back, |open| {
            open.back_ns = at_ns;
            if open.is_failing { Sure::Maybe } else { Sure::Yes }
        });
    }

    fn hands_back(&mut self, by: &Holder, back: Option<&Back>, how: impl Fn(&mut Open) -> Sure) {
        let Some(back) = back else { return };
        let queue = self.queues.entry(by.queue).or_default();
        let seen_to = SeenTo::of(queue, back);
        for (offset, count) in queue {
            let is_unseen = count.is_unseen(*offset, back, seen_to);
            let Some(open) = count.of(by) else { continue };
            match is_unseen {
                Sure::No => {}
                Sure::Maybe => open.back = Sure::Maybe,
                Sure::Yes => open.back = how(open),
            }
        }
    }

    /// Deliveries may be forgotten from here on.
    pub(super) fn reset(&mut self, queue: QueueKey) {
        for count in self.queues.entry(queue).or_default().values_mut() {
            count.most += u32::from(count.open.take().is_some());
            count.least = 0;
            if count.has_failed == Sure::Yes {
                count.has_failed = Sure::Maybe;
            }
        }
    }

    /// How often a message was delivered, at most.
    pub(super) fn most(&self, queue: QueueKey, offset: u64) -> u32 {
        let count = self.queues.get(&queue).and_then(|all| all.get(&offset));
        count.map_or(0, |count| count.most + u32::from(count.open.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use grus_protocol::ids::{QueueId, TopicId};

    use super::*;

    /// A message is sent, its broker ends `after_ms` or not at all, the member's answer meets what is
    /// sent again; whether it may then be sent as delivered `before` times.
    fn may_be_sent(ends_after_ms: Option<u64>, before: u32) -> bool {
        let queue = QueueKey { topic: TopicId(1), queue: QueueId(0) };
        let by = Holder { queue, generation: 1, member: 1, round: 0 };
        let mut counts = Counts::default();
        let at = |ms: u64| ms * 1_000_000;
        counts.delivered(at(0), &by, &[(7, 0)]);
        if let Some(after_ms) = ends_after_ms {
            counts.ended(at(after_ms), broker_of(queue).into());
        }
        counts.answering(&by, &[7], None);
        counts.delivered(at(400), &by, &[(7, 0)]);
        counts.settled(at(401), &by, &[7], None);
        let sent = || counts.delivered(at(600), &by, &[(7, before)]);
        catch_unwind(AssertUnwindSafe(sent)).is_ok()
    }

    #[test]
    fn an_answer_counts_what_was_sent_before_it_unless_a_broker_has_forgotten_that() {
        assert!(!may_be_sent(None, 0) && may_be_sent(None, 1));
        assert!(!may_be_sent(Some(300), 0) && may_be_sent(Some(300), 1));
        assert!(may_be_sent(Some(4), 0) && may_be_sent(Some(4), 1));
    }
}

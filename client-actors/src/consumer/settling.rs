//! What is to be told to the broker about the messages of one queue, and what of it is on its way.
//! No clock, no I/O.

use grus_protocol::Offset;
use grus_protocol::message::{
    ACK_MARKS_MAX, ACK_RANGES_MAX, DeadMark, Nack, OffsetRange, REASON_BYTES_MAX,
};

use super::offsets::OffsetSet;

/// How long the answers of handlers are gathered before they are told.
const GATHER_MS: u64 = 50;
/// So many answers are told at once.
const GATHER_MAX: u64 = 16_384;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done.
    Ack,
    /// It failed, and is to be delivered again: after so long, or as the group's ladder says.
    Nack { retry_after_ms: Option<u64>, reason: String },
    /// It is a dead letter.
    Dead { reason: String },
    /// It was not handled: nothing is told about it.
    Unhandled,
}

/// What a member says of a queue that it lets go of, so that what nobody saw does not count as
/// delivered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HandBack {
    /// From here on, nothing that came for the first time was handed out.
    pub(crate) unseen_from: Offset,
    /// What was handed out and is not answered for.
    pub(crate) in_work: Vec<OffsetRange>,
}

/// What is told at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) acks: OffsetSet,
    pub(crate) nacks: Vec<Nack>,
    pub(crate) dead: Vec<DeadMark>,
    pub(crate) hands_back: Option<HandBack>,
}

impl Told {
    /// Whether it says nothing of a message.
    fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.nacks.is_empty() && self.dead.is_empty()
    }

    fn contains(&self, offset: Offset) -> bool {
        self.acks.contains(offset)
            || self.nacks.iter().any(|nack| nack.offset == offset)
            || self.dead.iter().any(|mark| mark.offset == offset)
    }

    /// As much of it as one request may hold.
    fn take(&mut self) -> Self {
        let acks = self.acks.take(ACK_RANGES_MAX);
        let nacks: Vec<_> = self.nacks.drain(..self.nacks.len().min(ACK_MARKS_MAX)).collect();
        let marks_left = ACK_MARKS_MAX - nacks.len();
        let dead = self.dead.drain(..self.dead.len().min(marks_left)).collect();
        let hands_back = if self.is_empty() { self.hands_back.take() } else { None };
        Self { acks, nacks, dead, hands_back }
    }
}

/// See the module documentation. `W` waits to hear that the word about an offset has arrived.
#[derive(Debug)]
pub(crate) struct Settling<W> {
    pending: Told,
    /// Answers in it, about.
    pending_count: u64,
    pending_since_ms: Option<u64>,
    /// Somebody waits: it is not gathered any longer.
    is_urgent: bool,
    sent: Option<(u64, Told)>,
    sent_ms: u64,
    waiting: Vec<(Offset, W)>,
    not_before_ms: u64,
}

impl<W> Default for Settling<W> {
    fn default() -> Self {
        Self {
            pending: Told::default(),
            pending_count: 0,
            pending_since_ms: None,
            is_urgent: false,
            sent: None,
            sent_ms: 0,
            waiting: Vec::new(),
            not_before_ms: 0,
        }
    }
}

impl<W> Settling<W> {
    /// Whether nothing is left to be told of messages.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.sent.as_ref().is_none_or(|(_, told)| told.is_empty())
    }

    /// Whether nothing at all is to be told, or on its way.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.pending_since_ms.is_none() && self.sent.is_none()
    }

    /// Whether it is to be told that the queue is handed back, or is being told.
    pub(crate) fn is_handing_back(&self) -> bool {
        let sent = self.sent.as_ref().map(|(_, told)| told);
        sent.into_iter().chain([&self.pending]).any(|told| told.hands_back.is_some())
    }

    /// Whether somebody waits to hear that the broker knows.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The queue is handed back, once all else is told.
    pub(crate) fn hand_back(&mut self, hands_back: HandBack, now_ms: u64) {
        self.pending.hands_back = Some(hands_back);
        self.pending_since_ms.get_or_insert(now_ms);
        self.is_urgent = true;
    }

    /// It cannot be told that the queue is handed back.
    pub(crate) fn keep_back(&mut self) {
        self.pending.hands_back = None;
        if self.pending.is_empty() {
            (self.pending_count, self.pending_since_ms, self.is_urgent) = (0, None, false);
        }
    }

    /// Whether the word about a message is still to arrive.
    #[cfg(test)]
    pub(crate) fn contains(&self, offset: Offset) -> bool {
        self.pending.contains(offset)
            || self.sent.as_ref().is_some_and(|(_, told)| told.contains(offset))
    }

    /// What of a range nothing is to be told about.
    pub(crate) fn missing_of(&self, range: OffsetRange) -> Vec<OffsetRange> {
        let mut known = self.pending.acks.clone();
        let sent = self.sent.iter().map(|(_, told)| told);
        for told in sent.clone() {
            known.extend(&told.acks);
        }
        for told in sent.chain([&self.pending]) {
            let nacks = told.nacks.iter().map(|nack| nack.offset);
            let marks = nacks.chain(told.dead.iter().map(|mark| mark.offset));
            marks.for_each(|offset| known.insert(OffsetRange::one(offset)));
        }
        known.missing_of(range)
    }

    /// A message is settled so; `waiter` hears when the broker knows.
    pub(crate) fn settle(
        &mut self,
        offset: Offset,
        verdict: Verdict,
        waiter: Option<W>,
        now_ms: u64,
    ) {
        match verdict {
            Verdict::Ack => self.pending.acks.insert(OffsetRange::one(offset)),
            Verdict::Nack { retry_after_ms, mut reason } => {
                cut(&mut reason);
                self.pending.nacks.push(Nack { offset, retry_after_ms, reason });
            }
            Verdict::Dead { mut reason } => {
                cut(&mut reason);
                self.pending.dead.push(DeadMark { offset, reason });
            }
            Verdict::Unhandled => return,
        }
        self.added(1, now_ms);
        self.wait_for(offset, waiter);
    }

    /// All these are done; `waiter` hears when the broker knows.
    pub(crate) fn ack_all(&mut self, ranges: &[OffsetRange], waiter: Option<W>, now_ms: u64) {
        for range in ranges {
            self.pending.acks.insert(*range);
        }
        let last = ranges.last().map_or(0, |range| range.to.0.saturating_sub(1));
        self.added(ranges.iter().map(OffsetRange::len).sum(), now_ms);
        self.wait_for(Offset(last), waiter);
    }

    /// All these are done: they are not for the program.
    pub(crate) fn pass(&mut self, ranges: &[OffsetRange], now_ms: u64) {
        let count: u64 = ranges.iter().map(OffsetRange::len).sum();
        if count > 0 {
            for range in ranges {
                self.pending.acks.insert(*range);
            }
            self.added(count, now_ms);
        }
    }

    fn added(&mut self, count: u64, now_ms: u64) {
        self.pending_count += count;
        self.pending_since_ms.get_or_insert(now_ms);
    }

    fn wait_for(&mut self, offset: Offset, waiter: Option<W>) {
        if let Some(waiter) = waiter {
            self.waiting.push((offset, waiter));
            self.is_urgent = true;
        }
    }

    /// What is pending is told as soon as it can be.
    pub(crate) fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// What to tell now, as request `number`.
    pub(crate) fn poll(&mut self, number: u64, now_ms: u64) -> Option<Told> {
        let since_ms = self.pending_since_ms?;
        let is_due = self.is_urgent
            || self.pending_count >= GATHER_MAX
            || now_ms.saturating_sub(since_ms) >= GATHER_MS;
        if self.sent.is_some() || now_ms < self.not_before_ms || !is_due {
            return None;
        }
        let told = self.pending.take();
        if self.pending.is_empty() && self.pending.hands_back.is_none() {
            (self.pending_count, self.pending_since_ms, self.is_urgent) = (0, None, false);
        }
        (self.sent, self.sent_ms) = (Some((number, told.clone())), now_ms);
        Some(told)
    }

    /// The number of the request under way.
    pub(crate) fn sent(&self) -> Option<u64> {
        self.sent.as_ref().map(|(number, _)| *number)
    }

    /// The broker knows; those who hear of it.
    pub(crate) fn done(&mut self) -> Vec<W> {
        let Some((_, told)) = self.sent.take() else { return Vec::new() };
        let heard = |(offset, _): &mut (Offset, W)| told.contains(*offset);
        self.waiting.extract_if(.., heard).map(|(_, waiter)| waiter).collect()
    }

    /// It was not told, or nobody knows: it is told again, not before `not_before_ms`.
    pub(crate) fn failed(&mut self, not_before_ms: u64) {
        let Some((_, told)) = self.sent.take() else { return };
        self.not_before_ms = not_before_ms;
        let Told { acks, mut nacks, mut dead, hands_back } = told;
        self.pending.hands_back = self.pending.hands_back.take().or(hands_back);
        self.pending.acks.extend(&acks);
        nacks.append(&mut self.pending.nacks);
        dead.append(&mut self.pending.dead);
        (self.pending.nacks, self.pending.dead) = (nacks, dead);
        self.pending_since_ms.get_or_insert(0);
        self.is_urgent = true;
    }

    /// Gives up waiting for an answer to what was told so long ago, and tells it again.
    pub(crate) fn expire(&mut self, now_ms: u64, answer_ms_max: u64) {
        if self.sent.is_some() && now_ms.saturating_sub(self.sent_ms) >= answer_ms_max {
            self.failed(0);
        }
    }

    /// Nothing of it counts any more; those who wait.
    pub(crate) fn clear(&mut self) -> Vec<W> {
        let waiting = std::mem::take(&mut self.waiting);
        *self = Self::default();
        waiting.into_iter().map(|(_, waiter)| waiter).collect()
    }
}

/// A reason that fits.
fn cut(reason: &mut String) {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nack() -> Verdict {
        Verdict::Nack { retry_after_ms: None, reason: "x".into() }
    }

    fn ranges(told: &Told) -> Vec<(u64, u64)> {
        told.acks.ranges().map(|range| (range.from.0, range.to.0)).collect()
    }

    #[test]
    fn answers_are_gathered_for_a_moment_and_told_together() {
        let mut settling = Settling::<u32>::default();
        assert_eq!(settling.poll(1, 0), None);
        for offset in [5, 6, 8] {
            settling.settle(Offset(offset), Verdict::Ack, None, 100);
        }
        assert_eq!(settling.poll(1, 100 + GATHER_MS - 1), None);
        let told = settling.poll(1, 100 + GATHER_MS).unwrap();
        assert_eq!(ranges(&told), [(5, 7), (8, 9)]);
        assert!(settling.contains(Offset(6)) && !settling.contains(Offset(7)));
        let range = OffsetRange { from: Offset(4), to: Offset(10) };
        let missing: Vec<_> = settling.missing_of(range).iter().map(OffsetRange::numbers).collect();
        assert_eq!(missing, [4..5, 7..8, 9..10]);
        settling.settle(Offset(7), Verdict::Ack, None, 200);
        assert_eq!(settling.poll(2, 300), None, "one at a time");
        assert_eq!(settling.done(), []);
        assert_eq!(ranges(&settling.poll(2, 300).unwrap()), [(7, 8)]);
        settling.done();
        assert!(settling.is_idle());
    }

    #[test]
    fn who_waits_is_not_kept_and_hears_when_it_is_known() {
        let mut settling = Settling::default();
        settling.settle(Offset(1), Verdict::Ack, Some(11), 0);
        assert!(settling.poll(1, 0).is_some());
        settling.settle(Offset(2), nack(), Some(12), 0);
        assert_eq!(settling.done(), [11]);
        let told = settling.poll(2, 0).unwrap();
        assert_eq!(told.nacks[0].offset, Offset(2));
        settling.failed(70);
        assert_eq!(settling.poll(3, 69), None);
        assert_eq!(settling.poll(3, 70), Some(told), "the same once more");
        assert_eq!(settling.done(), [12]);
    }

    #[test]
    fn a_request_holds_no_more_than_it_may_and_the_rest_follows() {
        let mut settling = Settling::default();
        for offset in 0..2 * ACK_RANGES_MAX as u64 {
            settling.settle(Offset(2 * offset), Verdict::Ack, None, 0);
        }
        for offset in 0..ACK_MARKS_MAX as u64 {
            settling.settle(Offset(100_000 + offset), nack(), None, 0);
        }
        let dead = Verdict::Dead { reason: "y".repeat(3_000) };
        settling.settle(Offset(200_000), dead, Some(1), 0);
        let first = settling.poll(1, 0).unwrap();
        assert_eq!(first.acks.ranges_len(), ACK_RANGES_MAX);
        assert_eq!((first.nacks.len(), first.dead.len()), (ACK_MARKS_MAX, 0));
        assert_eq!(settling.done(), []);
        let second = settling.poll(2, 0).unwrap();
        assert_eq!(second.acks.ranges_len(), ACK_RANGES_MAX);
        assert_eq!(second.dead[0].reason.len(), REASON_BYTES_MAX);
        assert_eq!(settling.done(), [1]);
        assert!(settling.is_idle());
    }

    #[test]
    fn a_queue_is_handed_back_behind_all_answers_and_that_holds_up_nothing() {
        let mut settling = Settling::<u32>::default();
        for offset in 0..=ACK_RANGES_MAX as u64 {
            settling.settle(Offset(2 * offset), Verdict::Ack, None, 0);
        }
        let hands_back = HandBack { unseen_from: Offset(9_000), in_work: Vec::new() };
        settling.hand_back(hands_back.clone(), 0);
        assert!(settling.is_handing_back() && !settling.is_idle());
        assert_eq!(settling.poll(1, 0).unwrap().hands_back, None, "there are more answers");
        settling.done();
        let told = settling.poll(2, 0).unwrap();
        assert_eq!(told.hands_back, Some(hands_back.clone()));
        settling.failed(0);
        assert_eq!(settling.poll(3, 0).unwrap(), told, "once more");
        settling.done();
        assert!(settling.is_idle() && !settling.is_handing_back());
        settling.hand_back(hands_back, 0);
        assert!(settling.is_idle(), "nothing is to be told of a message");
        assert!(settling.poll(4, 0).is_some());
        assert!(settling.is_idle() && settling.is_handing_back());
        settling.failed(0);
        settling.keep_back();
        assert_eq!(settling.poll(5, 0), None);
        assert!(!settling.is_handing_back());
    }

    #[test]
    fn what_counts_no_more_is_forgotten_and_its_waiters_are_given_back() {
        let mut settling = Settling::default();
        settling.settle(Offset(1), Verdict::Ack, Some(1), 0);
        settling.poll(1, 0);
        settling.settle(Offset(2), Verdict::Unhandled, Some(9), 0);
        settling.settle(Offset(3), Verdict::Ack, Some(2), 0);
        assert_eq!(settling.clear(), [1, 2]);
        assert!(settling.is_idle() && settling.sent().is_none());
    }
}

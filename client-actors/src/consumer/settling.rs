//! What is to be told to the broker about the messages of one queue, and what of it is on its way.
//! No clock, no I/O.

use grus_protocol::Offset;
use grus_protocol::message::{
    ACK_MARKS_MAX, ACK_RANGES_MAX, ACK_REASONS_BYTES_MAX, DeadMark, Nack, OffsetRange,
    REASON_BYTES_MAX,
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
    /// From here on, nothing that came for the first time was handed out and is not answered for.
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

    /// Messages that failed or are given up.
    const fn marks_len(&self) -> usize {
        self.nacks.len() + self.dead.len()
    }

    /// Adds what another says of messages, behind its own.
    fn append(&mut self, mut other: Self) {
        self.acks.extend(&other.acks);
        self.nacks.append(&mut other.nacks);
        self.dead.append(&mut other.dead);
    }

    /// Takes out what is said of these messages.
    fn split(&mut self, of: &[OffsetRange]) -> Self {
        let mut offsets = OffsetSet::default();
        for range in of {
            offsets.insert(*range);
        }
        let mut split = Self::default();
        for range in of.iter().flat_map(|range| self.acks.take_range(*range)) {
            split.acks.insert(range);
        }
        let is_of = |offset: Offset| offsets.contains(offset);
        split.nacks = self.nacks.extract_if(.., |nack| is_of(nack.offset)).collect();
        split.dead = self.dead.extract_if(.., |mark| is_of(mark.offset)).collect();
        split
    }

    /// As much of it as one request may hold.
    fn take(&mut self, mut most: Most) -> Self {
        let acks = self.acks.take(most.ranges);
        let nacks = first_of(&mut self.nacks, |nack| &mut nack.reason, &mut most);
        let dead = first_of(&mut self.dead, |mark| &mut mark.reason, &mut most);
        let mut hands_back = if self.is_empty() { self.hands_back.take() } else { None };
        if let Some(back) = &mut hands_back {
            back.in_work.truncate(most.ranges);
        }
        Self { acks, nacks, dead, hands_back }
    }
}

/// Most that one request may hold.
#[derive(Debug, Clone, Copy)]
struct Most {
    ranges: usize,
    marks: usize,
    /// Of all reasons.
    reason_bytes: usize,
    /// Of one reason.
    each_bytes: usize,
}

impl Most {
    /// What every broker takes.
    const ALL: Self = Self {
        ranges: ACK_RANGES_MAX,
        marks: ACK_MARKS_MAX,
        reason_bytes: ACK_REASONS_BYTES_MAX,
        each_bytes: REASON_BYTES_MAX,
    };

    /// Half of it, and at last no reasons; nothing is less than one range and one mark.
    fn halve(&mut self) {
        self.ranges = (self.ranges / 2).max(1);
        self.marks = (self.marks / 2).max(1);
        self.reason_bytes /= 4;
        self.each_bytes = self.each_bytes.min(self.reason_bytes);
    }
}

/// Takes those from the front that a request has room for; a reason that none has room for is cut.
fn first_of<T>(
    marks: &mut Vec<T>,
    reason: impl Fn(&mut T) -> &mut String,
    most: &mut Most,
) -> Vec<T> {
    let mut count = 0;
    for mark in marks.iter_mut().take(most.marks) {
        let reason = reason(mark);
        cut(reason, most.each_bytes);
        let Some(left) = most.reason_bytes.checked_sub(reason.len()) else { break };
        (most.reason_bytes, count) = (left, count + 1);
    }
    most.marks -= count;
    marks.drain(..count).collect()
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
    /// What found no room at the broker: it is told again then.
    put_off: Told,
    put_off_until_ms: u64,
    waiting: Vec<(Offset, W)>,
    not_before_ms: u64,
    most: Most,
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
            put_off: Told::default(),
            put_off_until_ms: 0,
            waiting: Vec::new(),
            not_before_ms: 0,
            most: Most::ALL,
        }
    }
}

impl<W> Settling<W> {
    /// Whether nothing is left to be told of messages.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
            && self.put_off.is_empty()
            && self.sent.as_ref().is_none_or(|(_, told)| told.is_empty())
    }

    /// Whether nothing at all is to be told, or on its way.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.pending_since_ms.is_none() && self.sent.is_none() && self.put_off.is_empty()
    }

    /// How many failed messages the broker does not know of yet.
    pub(crate) fn untold_marks(&self) -> usize {
        self.pending.marks_len() + self.put_off.marks_len()
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
            || self.put_off.contains(offset)
            || self.sent.as_ref().is_some_and(|(_, told)| told.contains(offset))
    }

    /// What of a range nothing is to be told about.
    pub(crate) fn missing_of(&self, range: OffsetRange) -> Vec<OffsetRange> {
        let mut known = self.pending.acks.clone();
        let sent = self.sent.iter().map(|(_, told)| told).chain([&self.put_off]);
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
                cut(&mut reason, REASON_BYTES_MAX);
                self.pending.nacks.push(Nack { offset, retry_after_ms, reason });
            }
            Verdict::Dead { mut reason } => {
                cut(&mut reason, REASON_BYTES_MAX);
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
        if !self.put_off.is_empty() && now_ms >= self.put_off_until_ms {
            self.pending.append(std::mem::take(&mut self.put_off));
            self.pending_since_ms.get_or_insert(0);
        }
        let since_ms = self.pending_since_ms?;
        let is_due = self.is_urgent
            || self.pending_count >= GATHER_MAX
            || now_ms.saturating_sub(since_ms) >= GATHER_MS;
        if self.sent.is_some() || now_ms < self.not_before_ms || !is_due {
            return None;
        }
        let told = self.pending.take(self.most);
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

    /// The broker knows, but for what was `left` for want of room, which is told again at `again_ms`;
    /// those who hear of it.
    pub(crate) fn done(&mut self, left: &[OffsetRange], again_ms: u64) -> Vec<W> {
        let Some((_, mut told)) = self.sent.take() else { return Vec::new() };
        if !left.is_empty() {
            self.put_off.append(told.split(left));
            self.put_off_until_ms = again_ms;
        }
        let heard = |(offset, _): &mut (Offset, W)| told.contains(*offset);
        self.waiting.extract_if(.., heard).map(|(_, waiter)| waiter).collect()
    }

    /// It was more than the broker reads at once: it is told again in smaller parts.
    pub(crate) fn was_too_large(&mut self, not_before_ms: u64) {
        self.most.halve();
        self.failed(not_before_ms);
    }

    /// It was not told, or nobody knows: it is told again, behind what else there is, and not before
    /// `not_before_ms`.
    pub(crate) fn failed(&mut self, not_before_ms: u64) {
        let Some((_, told)) = self.sent.take() else { return };
        self.not_before_ms = not_before_ms;
        if self.pending.hands_back.is_none() {
            self.pending.hands_back.clone_from(&told.hands_back);
        }
        self.pending.append(told);
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

/// Cuts a reason that is longer.
fn cut(reason: &mut String, bytes_max: usize) {
    let mut end = reason.len().min(bytes_max);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
}

#[cfg(test)]
mod tests;

//! What one group has done in one queue.
//!
//! An offset is **passed** when it lies below the floor or in one of the ranges above it: the group
//! will not come to it again by itself. It is settled, or it waits for its retry; only the table of
//! retries tells which. So a message that fails never holds the floor.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{Generation, MemberId, Offset, TimestampMs};

use super::attempts::Attempts;
use super::ranges::Ranges;
use super::retries::{Bucket, IN_HANDS, Retry, bucket_of};
use crate::codec::{CodecError, Decoder, put_varint};
use crate::commands::groups::{Holding, RetryTerms, Span, put_terms, terms_of};
use crate::machine::Refusal;
use crate::machine::digest::Tracked;

const VERSION: u8 = 1;

/// What has become of messages, counted since the group first came to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Acknowledged.
    pub settled: u64,
    /// Passed over: not for the group.
    pub passed: u64,
    /// Deliveries of messages that had been delivered before.
    pub redelivered: u64,
    /// Made dead letters.
    pub dead: u64,
    /// Removed by retention before they were settled.
    pub lost: u64,
}

impl Counts {
    /// Adds those of elsewhere.
    pub const fn add(&mut self, other: Self) {
        self.settled += other.settled;
        self.passed += other.passed;
        self.redelivered += other.redelivered;
        self.dead += other.dead;
        self.lost += other.lost;
    }
}

/// Numbers of a group in a queue that are saved as one part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The greatest generation that has claimed the queue; 0: none has.
    pub generation: Generation,
    /// The member that holds it; 0: none has claimed it.
    pub member: MemberId,
    /// When it was claimed.
    pub claimed: TimestampMs,
    /// How it delivers again, as the holder has said.
    pub terms: RetryTerms,
    /// All before it is passed.
    pub floor: Offset,
    /// What is passed above the floor.
    pub passed: Ranges,
    /// All before it that is not passed is in the hands of the holder.
    pub delivered_to: Offset,
    /// Deliveries by earlier holders.
    pub attempts: Attempts,
    /// How often it was reset.
    pub round: u32,
    /// What has become of messages.
    pub counts: Counts,
}

impl Progress {
    /// Progress that begins at an offset.
    #[must_use]
    pub fn at(floor: Offset) -> Self {
        Self { floor, delivered_to: floor, ..Self::default() }
    }

    /// Whether an offset is passed.
    #[must_use]
    pub fn is_passed(&self, offset: Offset) -> bool {
        offset < self.floor || self.passed.contains(offset.0)
    }

    /// Whether who says so holds the queue, and knows of all resets.
    ///
    /// # Errors
    /// When not.
    pub fn judge(&self, holding: &Holding) -> Result<(), Refusal> {
        let is_held = self.generation != Generation::NONE;
        if !is_held || (self.generation, self.member) != (holding.generation, holding.member) {
            return Err(Refusal::NotHeld { generation: self.generation });
        }
        if self.round != holding.round {
            return Err(Refusal::ProgressReset { round: self.round });
        }
        Ok(())
    }

    /// How often a message that is not passed was delivered.
    #[must_use]
    pub fn deliveries(&self, offset: Offset) -> u32 {
        let now = u32::from(offset < self.delivered_to);
        self.attempts.at(offset).saturating_add(now)
    }

    /// Behind the last message of what its member has in work that was sent to it for the first time: those
    /// that are passed were sent again, and may lie far ahead.
    #[must_use]
    pub fn seen_to(&self, in_work: &[Span]) -> Offset {
        let open = in_work
            .iter()
            .flat_map(|span| self.passed.gaps(span.from.max(self.floor).0, span.to.0));
        Offset(open.map(|(_, to)| to).max().unwrap_or(0))
    }

    /// Passes `from..to`; how many offsets of it were not passed. None if there are too many ranges.
    pub(crate) fn pass(&mut self, from: Offset, to: Offset, ranges_max: usize) -> Option<u64> {
        let from = from.max(self.floor);
        if from >= to {
            return Some(0);
        }
        let joins = from == self.floor || self.passed.joins(from.0, to.0);
        if !joins && self.passed.len() >= ranges_max {
            return None;
        }
        let fresh = self.passed.insert(from.0, to.0);
        if from == self.floor {
            self.rise(self.floor);
        }
        Some(fresh)
    }

    /// The floor rises to `floor`, or farther where that is passed.
    pub(in crate::machine) fn rise(&mut self, floor: Offset) {
        self.floor = Offset(self.passed.cut_front(floor.0));
        self.delivered_to = self.delivered_to.max(self.floor);
        self.attempts.forget_before(self.floor);
    }

    pub(in crate::machine) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(160 + 8 * self.passed.len());
        out.put_u8(VERSION);
        out.put_bytes(0, 3);
        out.put_u32_le(self.round);
        let Counts { settled, passed, redelivered, dead, lost } = self.counts;
        let numbers = [
            self.generation.0,
            self.member.0,
            self.claimed.0,
            self.floor.0,
            self.delivered_to.0,
            settled,
            passed,
            redelivered,
            dead,
            lost,
        ];
        for number in numbers {
            out.put_u64_le(number);
        }
        put_terms(&mut out, &self.terms);
        let ends = self.attempts.ends();
        put_varint(&mut out, ends.len() as u64);
        for (end, times) in ends {
            put_varint(&mut out, end.0);
            put_varint(&mut out, u64::from(*times));
        }
        put_varint(&mut out, self.passed.len() as u64);
        let mut last = self.floor.0;
        for (from, to) in self.passed.iter() {
            put_varint(&mut out, from - last);
            put_varint(&mut out, to - from);
            last = to;
        }
        out.freeze()
    }

    pub(in crate::machine) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        decoder.take(3)?;
        let round = decoder.u32()?;
        let generation = Generation(decoder.u64()?);
        let member = MemberId(decoder.u64()?);
        let claimed = TimestampMs(decoder.u64()?);
        let floor = Offset(decoder.u64()?);
        let delivered_to = Offset(decoder.u64()?);
        let counts = Counts {
            settled: decoder.u64()?,
            passed: decoder.u64()?,
            redelivered: decoder.u64()?,
            dead: decoder.u64()?,
            lost: decoder.u64()?,
        };
        let terms = terms_of(&mut decoder)?;
        let mut ends = Vec::new();
        for _ in 0..decoder.varint("attempts")? {
            let end = Offset(decoder.varint("end of an attempt")?);
            ends.push((end, decoder.varint_u32("attempts")?));
        }
        let attempts = Attempts::of_ends(ends).ok_or(CodecError::Value("attempts"))?;
        let passed = decode_ranges(floor, &mut decoder)?;
        decoder.finish()?;
        let is_sound =
            delivered_to >= floor && attempts.ends().first().is_none_or(|(end, _)| *end > floor);
        if !is_sound {
            return Err(CodecError::Value("floor of a progress"));
        }
        Ok(Self {
            generation,
            member,
            claimed,
            terms,
            floor,
            passed,
            delivered_to,
            attempts,
            round,
            counts,
        })
    }
}

fn decode_ranges(floor: Offset, decoder: &mut Decoder) -> Result<Ranges, CodecError> {
    let bad = CodecError::Value("ranges of a progress");
    let mut passed = Ranges::default();
    let mut last = floor.0;
    for _ in 0..decoder.varint("ranges of a progress")? {
        let gap = decoder.varint("gap between ranges")?;
        let length = decoder.varint("length of a range")?;
        let from = last.checked_add(gap).ok_or(bad)?;
        last = from.checked_add(length).ok_or(bad)?;
        if gap == 0 || length == 0 {
            return Err(bad);
        }
        passed.insert(from, last);
    }
    Ok(passed)
}

/// Progress as it is held, with its retries.
#[derive(Debug)]
pub struct HeldProgress {
    pub(in crate::machine) numbers: Tracked<Progress>,
    pub(in crate::machine) buckets: BTreeMap<u64, Tracked<Bucket>>,
    /// Retries by when they are due; derived.
    by_due: BTreeSet<(TimestampMs, Offset)>,
}

impl HeldProgress {
    pub(in crate::machine) fn new(numbers: Tracked<Progress>) -> Self {
        Self { numbers, buckets: BTreeMap::new(), by_due: BTreeSet::new() }
    }

    /// Its numbers.
    #[must_use]
    pub fn numbers(&self) -> &Progress {
        self.numbers.get()
    }

    /// Messages that wait to be delivered again, or are in hands again.
    #[must_use]
    pub fn retries(&self) -> usize {
        self.by_due.len()
    }

    /// One of them.
    #[must_use]
    pub fn retry(&self, offset: Offset) -> Option<Retry> {
        self.buckets.get(&bucket_of(offset))?.get().get(offset).copied()
    }

    /// Those of `from..to`, in order.
    pub fn retries_within(&self, from: Offset, to: Offset) -> impl Iterator<Item = Retry> {
        let buckets = bucket_of(from)..=bucket_of(to).max(bucket_of(from));
        let all = self.buckets.range(buckets).flat_map(|(_, bucket)| bucket.get().all());
        let inside = all.filter(move |retry| (from..to).contains(&retry.offset));
        inside.copied()
    }

    /// Offsets of those within some ranges, which ascend and may overlap.
    pub(crate) fn retries_among(&self, spans: &[Span]) -> Vec<Offset> {
        let mut among = Vec::new();
        let mut from = Offset(0);
        for span in spans.iter().filter(|_| self.retries() > 0) {
            let inside = self.retries_within(span.from.max(from), span.to);
            among.extend(inside.map(|retry| retry.offset));
            from = from.max(span.to);
        }
        among
    }

    /// Those that are due at `now`, the earliest first.
    pub fn due(&self, now: TimestampMs) -> impl Iterator<Item = Retry> {
        let due = self.by_due.iter().take_while(move |(due, _)| *due <= now && *due != IN_HANDS);
        due.filter_map(|(_, offset)| self.retry(*offset))
    }

    /// When the next one is due.
    #[must_use]
    pub fn next_due(&self) -> Option<TimestampMs> {
        let (due, _) = self.by_due.first()?;
        (*due != IN_HANDS).then_some(*due)
    }

    /// Those in the hands of a member, lowest first.
    pub fn in_hands(&self) -> impl Iterator<Item = Offset> {
        let hands = self.by_due.range((IN_HANDS, Offset(0))..);
        hands.map(|(_, offset)| *offset)
    }

    /// Messages that are not settled, of a queue that has those of `start..end`.
    #[must_use]
    pub fn lag(&self, start: Offset, end: Offset) -> u64 {
        let numbers = self.numbers();
        let floor = numbers.floor.max(start);
        let behind = end.0.saturating_sub(floor.0);
        let (passed, retries) = if start <= numbers.floor {
            (numbers.passed.covered(), self.retries())
        } else {
            // Of a temporary queue: the floor has not heard of its start yet.
            let passed = numbers.passed.covered_within(floor.0, end.0.max(floor.0));
            (passed, self.retries_within(start, end).count())
        };
        behind.saturating_sub(passed) + retries as u64
    }

    /// The first message that is not settled, of a queue that has those of `start..end`.
    #[must_use]
    pub fn oldest_unsettled(&self, start: Offset, end: Offset) -> Option<Offset> {
        let floor = self.numbers().floor.max(start);
        let retry = self.retries_within(start, end).next().map(|retry| retry.offset);
        let floor = (floor < end).then_some(floor);
        floor.into_iter().chain(retry).min()
    }

    /// A retry has come, changed or gone.
    pub(in crate::machine) fn note(&mut self, before: Option<Retry>, after: Option<Retry>) {
        if let Some(Retry { offset, due, .. }) = before {
            self.by_due.remove(&(due, offset));
        }
        if let Some(Retry { offset, due, .. }) = after {
            self.by_due.insert((due, offset));
        }
    }

    /// Takes a bucket out of a checkpoint; false if it does not belong here.
    pub(in crate::machine) fn restore(&mut self, number: u64, bucket: Bucket, hash: u64) -> bool {
        let belongs = bucket.all().iter().all(|retry| self.numbers().is_passed(retry.offset));
        if belongs {
            for retry in bucket.all() {
                self.by_due.insert((retry.due, retry.offset));
            }
            self.buckets.insert(number, Tracked::saved(bucket, hash));
        }
        belongs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_read_back_as_they_were_written() {
        let mut progress = Progress::at(Offset(5));
        progress.generation = Generation(7);
        progress.member = MemberId(9);
        progress.claimed = TimestampMs(1_000);
        progress.terms = RetryTerms { deliveries_max: 16, ladder_ms: vec![5_000, 10_000] };
        progress.round = 2;
        progress.delivered_to = Offset(40);
        progress.attempts.add(Offset(30));
        progress.counts = Counts { settled: 3, passed: 1, redelivered: 4, dead: 5, lost: u64::MAX };
        assert_eq!(progress.pass(Offset(8), Offset(10), 2), Some(2));
        assert_eq!(progress.pass(Offset(300), Offset(301), 2), Some(1));
        assert_eq!(progress.pass(Offset(400), Offset(401), 2), None, "too many");
        assert_eq!(progress.pass(Offset(301), Offset(303), 2), Some(2), "no more than before");
        let bytes = progress.encode();
        assert_eq!(Progress::decode(bytes.clone()), Ok(progress.clone()));
        let tail = [1, 30, 1, 2, 3, 2, 0xa2, 2, 3];
        assert_eq!(bytes[bytes.len() - tail.len()..], tail, "ends of attempts, then ranges");
        for length in 0..bytes.len() {
            assert!(Progress::decode(bytes.slice(..length)).is_err());
        }
        assert_eq!(progress.pass(Offset(0), Offset(8), 2), Some(3));
        assert_eq!((progress.floor, progress.passed.len()), (Offset(10), 1));
    }

    #[test]
    fn what_a_member_has_seen_ends_with_the_last_that_is_no_retry() {
        let mut progress = Progress::at(Offset(300));
        progress.pass(Offset(500), Offset(501), 9);
        let span = |from, to| Span { from: Offset(from), to: Offset(to) };
        let of = |in_work: &[Span]| progress.seen_to(in_work).0;
        assert_eq!(of(&[span(200, 210), span(310, 312), span(500, 501)]), 312);
        assert_eq!(of(&[span(499, 502)]), 502);
        assert_eq!((of(&[span(500, 501)]), of(&[])), (0, 0));
    }

    #[test]
    fn a_floor_that_rises_takes_along_what_it_meets() {
        let mut progress = Progress::at(Offset(0));
        progress.pass(Offset(4), Offset(6), 9);
        progress.attempts.add(Offset(3));
        progress.rise(Offset(4));
        assert_eq!((progress.floor, progress.delivered_to), (Offset(6), Offset(6)));
        assert!(progress.passed.is_empty() && progress.attempts.ends().is_empty());
    }
}

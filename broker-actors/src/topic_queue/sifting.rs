//! What of a batch is for a member of a group: not what is settled or waits, and not what its
//! filter leaves out. Pure.

use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::Offset;
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::MessageFilter;

use super::FetchedBatch;
use crate::commands::groups::Span;
use crate::machine::groups::progress::{HeldProgress, Progress};

/// Messages that were delivered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// Which.
    pub span: Span,
    /// How often.
    pub deliveries: u32,
}

/// What goes with batches to a member of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Offsets within the batches that are not for the member, in order.
    pub skipped: Vec<Span>,
    /// Those of the others that were delivered before, in order.
    pub again: Vec<Again>,
}

impl Marks {
    fn skip(&mut self, from: u64, to: u64) {
        push(&mut self.skipped, from, to);
    }

    fn note(&mut self, from: u64, to: u64, deliveries: u32) {
        if let Some(last) = self.again.last_mut()
            && last.span.to.0 == from
            && last.deliveries == deliveries
        {
            last.span.to = Offset(to);
            return;
        }
        let span = Span { from: Offset(from), to: Offset(to) };
        self.again.push(Again { span, deliveries });
    }
}

/// Adds a range behind all others.
pub(super) fn push(spans: &mut Vec<Span>, from: u64, to: u64) {
    if from >= to {
        return;
    }
    match spans.last_mut() {
        Some(last) if last.to.0 == from => last.to = Offset(to),
        _ => spans.push(Span { from: Offset(from), to: Offset(to) }),
    }
}

/// A batch that was looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sifted {
    /// Whether some of it is for the member.
    pub(super) is_wanted: bool,
    /// It cannot be read.
    pub(super) is_unreadable: bool,
    /// Messages of it that are over, and settled by that.
    pub(super) over: u64,
}

impl Sifted {
    const NOTHING: Self = Self { is_wanted: false, is_unreadable: false, over: 0 };
}

/// Those messages of a batch, from `next` on, that are for the member. What its filter leaves out goes
/// to `passed`; none when the records cannot be read.
pub(super) fn wanted_of(
    batch: &FetchedBatch,
    next: Offset,
    progress: &Progress,
    filter: &MessageFilter,
    passed: &mut Vec<Span>,
) -> Option<Vec<(u64, u64)>> {
    let gaps = open_in(batch, next, progress);
    if gaps.is_empty() || *filter == MessageFilter::All {
        return Some(gaps);
    }
    matching(batch, &gaps, filter, passed)
}

/// What of a batch is not passed yet, from `next` on.
fn open_in(batch: &FetchedBatch, next: Offset, progress: &Progress) -> Vec<(u64, u64)> {
    let (base, end) = (batch.base_offset.0, batch.base_offset.0 + u64::from(batch.count));
    let open_from = next.max(progress.floor).0.clamp(base, end);
    progress.passed.gaps(open_from, end).collect()
}

/// Looks through a batch of which the member has had nothing from `next` on. What its filter leaves
/// out goes to `passed`: nobody of the group wants it.
pub(super) fn sift(
    batch: &FetchedBatch,
    next: Offset,
    progress: &Progress,
    filter: &MessageFilter,
    marks: &mut Marks,
    passed: &mut Vec<Span>,
) -> Sifted {
    let (base, end) = (batch.base_offset.0, batch.base_offset.0 + u64::from(batch.count));
    if batch.is_over() {
        let mut over = 0;
        for (from, to) in open_in(batch, next, progress) {
            over += to - from;
            push(passed, from, to);
        }
        return Sifted { over, ..Sifted::NOTHING };
    }
    let Some(wanted) = wanted_of(batch, next, progress, filter, passed) else {
        return Sifted { is_unreadable: true, ..Sifted::NOTHING };
    };
    if wanted.is_empty() {
        return Sifted::NOTHING;
    }
    let mut at = base;
    for (from, to) in wanted {
        marks.skip(at, from);
        note_deliveries(progress, from, to, marks);
        at = to;
    }
    marks.skip(at, end);
    Sifted { is_wanted: true, ..Sifted::NOTHING }
}

/// Marks a batch that is sent for messages in it that are due again, which come in order.
pub(super) fn sift_again(
    batch: &FetchedBatch,
    due: impl Iterator<Item = Offset>,
    held: &HeldProgress,
    marks: &mut Marks,
) {
    let mut at = batch.base_offset.0;
    for offset in due {
        let deliveries = held.retry(offset).map_or(1, |retry| retry.deliveries);
        marks.skip(at, offset.0);
        marks.note(offset.0, offset.0 + 1, deliveries);
        at = offset.0 + 1;
    }
    marks.skip(at, batch.base_offset.0 + u64::from(batch.count));
}

fn note_deliveries(progress: &Progress, from: u64, to: u64, marks: &mut Marks) {
    let mut at = from;
    while at < to {
        let offset = Offset(at);
        let deliveries = progress.deliveries(offset);
        let ends = [progress.attempts.next_end(offset), Some(progress.delivered_to)];
        let next = ends.into_iter().flatten().filter(|end| *end > offset).min();
        let next = next.map_or(to, |end| end.0.min(to));
        if deliveries > 0 {
            marks.note(at, next, deliveries);
        }
        at = next;
    }
}

/// Those of `open` whose tags are wanted; none when the records cannot be read.
fn matching(
    batch: &FetchedBatch,
    open: &[(u64, u64)],
    filter: &MessageFilter,
    passed: &mut Vec<Span>,
) -> Option<Vec<(u64, u64)>> {
    let plain = RecordBatch::from_log(batch.bytes.clone()).ok()?;
    let plain = plain.decompressed(&BatchLimits::FORMAT).ok()?;
    let mut wanted: Vec<(u64, u64)> = Vec::new();
    let mut open = open.iter().copied().peekable();
    let mut left_out = Vec::new();
    for (record, at) in plain.views().zip(batch.base_offset.0..) {
        let record = record.ok()?;
        while open.next_if(|(_, to)| *to <= at).is_some() {}
        if open.peek().is_none_or(|(from, _)| *from > at) {
            continue;
        }
        if !filter.matches(record.tag()) {
            push(&mut left_out, at, at + 1);
            continue;
        }
        match wanted.last_mut() {
            Some((_, to)) if *to == at => *to = at + 1,
            _ => wanted.push((at, at + 1)),
        }
    }
    for span in left_out {
        push(passed, span.from.0, span.to.0);
    }
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use grus_protocol::batch::{BatchBuilder, Compression, NewRecord};
    use grus_protocol::ids::{MessageId, Term, TimestampMs};
    use proptest::prelude::*;

    use super::*;

    fn batch(base: u64, tags: &[Option<&str>], compression: Compression) -> FetchedBatch {
        let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
        for tag in tags {
            let id = MessageId::from_bytes([7; 16]);
            let tag = tag.map(Into::into);
            let record = NewRecord { tag, ..NewRecord::new(id, TimestampMs(1), "body") };
            builder.push(&record).unwrap();
        }
        builder.compress(compression);
        let count = u32::try_from(tags.len()).unwrap();
        let (term, stored) = (Term(1), TimestampMs(1));
        FetchedBatch { base_offset: Offset(base), count, term, stored, bytes: builder.finish() }
    }

    fn span(from: u64, to: u64) -> Span {
        Span { from: Offset(from), to: Offset(to) }
    }

    #[test]
    fn what_is_settled_and_what_is_not_wanted_is_skipped_and_only_the_latter_is_passed() {
        for compression in [Compression::None, Compression::Zstd] {
            let tags = [Some("a"), Some("b"), None, Some("a"), Some("b"), Some("a")];
            let batch = batch(10, &tags, compression);
            let mut progress = Progress::at(Offset(11));
            progress.pass(Offset(13), Offset(14), 9);
            progress.attempts.add(Offset(15));
            let filter = MessageFilter::parse_tags("b || c").unwrap();
            let (mut marks, mut passed) = (Marks::default(), Vec::new());
            let sifted = sift(&batch, Offset(10), &progress, &filter, &mut marks, &mut passed);
            assert!(sifted.is_wanted);
            assert_eq!(marks.skipped, [span(10, 11), span(12, 14), span(15, 16)]);
            let twice = |at: u64| Again { span: span(at, at + 1), deliveries: 1 };
            assert_eq!(marks.again, [twice(11), twice(14)]);
            assert_eq!(passed, [span(12, 13), span(15, 16)], "not 10 and 13: those are settled");
        }
    }

    #[test]
    fn a_batch_that_is_over_is_passed_and_one_that_nobody_wants_leaves_no_marks() {
        let progress = Progress::at(Offset(0));
        let (mut marks, mut passed) = (Marks::default(), Vec::new());
        let mut over = batch(4, &[None, None], Compression::None);
        over.bytes = Bytes::new();
        let all = MessageFilter::All;
        let sifted = sift(&over, Offset(5), &progress, &all, &mut marks, &mut passed);
        assert_eq!(sifted, Sifted { over: 1, ..Sifted::NOTHING });
        assert_eq!((marks.clone(), passed), (Marks::default(), vec![span(5, 6)]));
        let mut passed = Vec::new();
        let odd = batch(0, &[Some("b")], Compression::None);
        let filter = MessageFilter::parse_tags("a").unwrap();
        assert!(!sift(&odd, Offset(0), &progress, &filter, &mut marks, &mut passed).is_wanted);
        assert_eq!((marks, passed), (Marks::default(), vec![span(0, 1)]));
    }

    proptest! {
        #[test]
        fn each_message_is_wanted_passed_or_settled(
            tags in prop::collection::vec(prop::option::of(prop_oneof![Just("a"), Just("b")]), 1..20),
            settled in prop::collection::vec((0_u64..25, 0_u64..4), 0..6),
            (next, floor, tried, all) in (0_u64..25, 0_u64..25, 0_u64..25, any::<bool>()),
        ) {
            let batch = batch(3, &tags, Compression::None);
            let mut progress = Progress::at(Offset(floor));
            for (from, count) in settled {
                progress.pass(Offset(from), Offset(from + count), 99);
            }
            progress.attempts.add(Offset(tried));
            let filter = if all { MessageFilter::All } else { MessageFilter::parse_tags("a").unwrap() };
            let (mut marks, mut passed) = (Marks::default(), Vec::new());
            let sifted = sift(&batch, Offset(next), &progress, &filter, &mut marks, &mut passed);
            let holds = |spans: &[Span], at: u64| {
                spans.iter().any(|span| (span.from.0..span.to.0).contains(&at))
            };
            let mut wanted = 0;
            for (tag, at) in tags.iter().zip(3_u64..) {
                let is_open = at >= next && !progress.is_passed(Offset(at));
                let is_mine = filter.matches(*tag);
                prop_assert_eq!(holds(&passed, at), is_open && !is_mine, "passed {}", at);
                if sifted.is_wanted {
                    prop_assert_eq!(holds(&marks.skipped, at), !(is_open && is_mine), "skipped {}", at);
                }
                wanted += u64::from(is_open && is_mine);
                let before = marks.again.iter().find(|again| holds(&[again.span], at));
                let before = before.map_or(0, |again| again.deliveries);
                let expected = if is_open && is_mine { progress.deliveries(Offset(at)) } else { 0 };
                prop_assert_eq!(before, expected);
            }
            prop_assert_eq!(sifted.is_wanted, wanted > 0);
        }
    }
}

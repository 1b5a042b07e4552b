//! Where the batches of each queue stand: runs, kept per segment so that ten thousand queues cost no
//! files of their own. Only applied entries are in it. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use grus_protocol::ids::{Offset, QueueKey, Term, TimestampMs, TopicId};

use crate::footer::FooterRuns;

/// A place in the replicated log: the same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Index of the entry.
    pub index: u64,
    /// Byte within the entry's payload.
    pub byte: u32,
}

/// One record batch of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its queue.
    pub queue: QueueKey,
    /// Offset of its first record.
    pub base: Offset,
    /// Records in it.
    pub count: u32,
    /// Where its bytes stand.
    pub at: Position,
    /// Bytes of it.
    pub length: u32,
    /// Term of its entry.
    pub term: Term,
    /// When it was stored (the entry's time).
    pub stored: TimestampMs,
    /// The latest birth of a record in it.
    pub born_max: TimestampMs,
    /// Bloom filter of its records' tags.
    pub tag_bloom: u64,
}

impl Run {
    /// The offset behind its last record.
    pub fn end(&self) -> Offset {
        Offset(self.base.0 + u64::from(self.count))
    }
}

pub(crate) type RunsByQueue = BTreeMap<QueueKey, Vec<Run>>;

/// The runs of one segment.
#[derive(Debug)]
pub(crate) enum SegmentRuns {
    /// Still growing.
    Open(RunsByQueue),
    /// Complete, and shared with the job that writes the footer.
    Frozen(Arc<RunsByQueue>),
    /// Read from the footer.
    Footer(FooterRuns),
}

/// The runs of one queue in one segment.
#[derive(Debug, Clone, Copy)]
enum QueueRuns<'a> {
    Memory(&'a [Run]),
    Footer(&'a FooterRuns, QueueKey, u32, u32),
}

impl QueueRuns<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Memory(runs) => runs.len(),
            Self::Footer(.., count) => *count as usize,
        }
    }

    fn get(&self, nth: usize) -> Run {
        match self {
            Self::Memory(runs) => runs[nth],
            Self::Footer(footer, queue, start, _) => footer.run(*queue, *start as usize + nth),
        }
    }

    /// How many runs from the front satisfy `is_before`, which must hold for a prefix.
    fn partition_point(&self, is_before: impl Fn(&Run) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(&self.get(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

impl SegmentRuns {
    fn queue(&self, queue: QueueKey) -> Option<QueueRuns<'_>> {
        match self {
            Self::Open(runs) => runs.get(&queue).map(|runs| QueueRuns::Memory(runs)),
            Self::Frozen(runs) => runs.get(&queue).map(|runs| QueueRuns::Memory(runs)),
            Self::Footer(footer) => {
                let (start, count) = footer.find(queue)?;
                Some(QueueRuns::Footer(footer, queue, start, count))
            }
        }
    }
}

/// The runs of all segments.
#[derive(Debug, Default)]
pub(crate) struct LogIndex {
    segments: BTreeMap<u64, SegmentRuns>,
    /// Sequence numbers of the segments that hold runs of a queue, ascending.
    queues: BTreeMap<QueueKey, VecDeque<u64>>,
}

impl LogIndex {
    /// Adds a run of an entry in segment `sequence`.
    ///
    /// # Panics
    /// When it does not lie behind the queue's last run, or the segment's runs are complete.
    pub(crate) fn add(&mut self, sequence: u64, run: Run) {
        let runs =
            self.segments.entry(sequence).or_insert_with(|| SegmentRuns::Open(BTreeMap::new()));
        let SegmentRuns::Open(runs) = runs else {
            panic!("segment {sequence} has a footer, a run of entry {} comes late", run.at.index)
        };
        let runs = runs.entry(run.queue).or_default();
        if let Some(last) = runs.last() {
            assert!(
                run.base >= last.end() && run.at > last.at,
                "run at {:?} of queue {} is not behind the one at {:?}",
                run.at,
                run.queue,
                last.at
            );
        } else {
            let segments = self.queues.entry(run.queue).or_default();
            if segments.back() != Some(&sequence) {
                segments.push_back(sequence);
            }
        }
        runs.push(run);
    }

    /// Takes over the runs of a footer. Segments come in ascending order.
    pub(crate) fn add_footer(&mut self, sequence: u64, footer: FooterRuns) {
        for queue in footer.queues() {
            self.queues.entry(queue).or_default().push_back(sequence);
        }
        self.segments.insert(sequence, SegmentRuns::Footer(footer));
    }

    /// The runs of a segment that gets no more of them.
    pub(crate) fn freeze(&mut self, sequence: u64) -> Arc<RunsByQueue> {
        let runs =
            self.segments.entry(sequence).or_insert_with(|| SegmentRuns::Open(BTreeMap::new()));
        match runs {
            SegmentRuns::Open(open) => {
                let frozen = Arc::new(std::mem::take(open));
                *runs = SegmentRuns::Frozen(Arc::clone(&frozen));
                frozen
            }
            SegmentRuns::Frozen(frozen) => Arc::clone(frozen),
            SegmentRuns::Footer(_) => Arc::default(),
        }
    }

    /// Swaps a segment's runs in memory for those in its footer.
    pub(crate) fn replace_by_footer(&mut self, sequence: u64, footer: FooterRuns) {
        self.segments.insert(sequence, SegmentRuns::Footer(footer));
    }

    /// The runs of a segment that has a footer.
    pub(crate) fn footer(&self, sequence: u64) -> Option<&FooterRuns> {
        match self.segments.get(&sequence)? {
            SegmentRuns::Footer(footer) => Some(footer),
            _ => None,
        }
    }

    /// The runs of a segment without a footer, in the order in which they were added.
    pub(crate) fn runs_in(&self, sequence: u64) -> Vec<Run> {
        let held = match self.segments.get(&sequence) {
            Some(SegmentRuns::Open(runs)) => runs,
            Some(SegmentRuns::Frozen(runs)) => &**runs,
            _ => return Vec::new(),
        };
        let mut runs: Vec<Run> = held.values().flatten().copied().collect();
        runs.sort_unstable_by_key(|run| run.at);
        runs
    }

    pub(crate) fn remove_segment(&mut self, sequence: u64) {
        self.segments.remove(&sequence);
        self.queues.retain(|_, segments| {
            segments.retain(|held| *held != sequence);
            !segments.is_empty()
        });
    }

    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.queues.clear();
    }

    /// Forgets the queues of all topics that `keep` denies.
    pub(crate) fn retain_topics(&mut self, keep: impl Fn(TopicId) -> bool) {
        self.queues.retain(|queue, _| keep(queue.topic));
    }

    /// Runs from the one that holds `from`, or the first behind it, until they exceed `bytes_max`;
    /// at least one if there is any. Those of entries at or below `purged` are not there.
    pub(crate) fn runs(
        &self,
        queue: QueueKey,
        from: Offset,
        bytes_max: u64,
        purged: Option<u64>,
    ) -> Vec<Run> {
        let mut found: Vec<Run> = Vec::new();
        let mut bytes = 0;
        let start = self.segment_of(queue, |run| run.end() <= from);
        for runs in self.held(queue, start) {
            let first = if found.is_empty() {
                runs.partition_point(|run| run.end() <= from || is_purged(run, purged))
            } else {
                0
            };
            for nth in first..runs.len() {
                let run = runs.get(nth);
                bytes += u64::from(run.length);
                if bytes > bytes_max && !found.is_empty() {
                    return found;
                }
                found.push(run);
            }
        }
        found
    }

    /// The first offset of a queue that is still there.
    pub(crate) fn first_offset(&self, queue: QueueKey, purged: Option<u64>) -> Option<Offset> {
        self.first_run(queue, |run| is_purged(run, purged)).map(|run| run.base)
    }

    /// The offset behind a queue's last run.
    pub(crate) fn end_offset(&self, queue: QueueKey) -> Option<Offset> {
        let runs = self.held(queue, 0).next_back()?;
        Some(runs.get(runs.len() - 1).end())
    }

    /// The first offset of the first run that was stored at or after `time`.
    pub(crate) fn offset_at_time(
        &self,
        queue: QueueKey,
        time: TimestampMs,
        purged: Option<u64>,
    ) -> Option<Offset> {
        self.first_run(queue, |run| run.stored < time || is_purged(run, purged)).map(|run| run.base)
    }

    fn first_run(&self, queue: QueueKey, is_before: impl Fn(&Run) -> bool) -> Option<Run> {
        let start = self.segment_of(queue, &is_before);
        self.held(queue, start).find_map(|runs| {
            let nth = runs.partition_point(&is_before);
            (nth < runs.len()).then(|| runs.get(nth))
        })
    }

    /// Which of the queue's segments holds the first run that is not `is_before`.
    fn segment_of(&self, queue: QueueKey, is_before: impl Fn(&Run) -> bool) -> usize {
        let Some(segments) = self.queues.get(&queue) else { return 0 };
        segments.partition_point(|sequence| {
            let runs = self.segments.get(sequence).and_then(|runs| runs.queue(queue));
            runs.is_none_or(|runs| runs.len() == 0 || is_before(&runs.get(runs.len() - 1)))
        })
    }

    fn held(
        &self,
        queue: QueueKey,
        start: usize,
    ) -> impl DoubleEndedIterator<Item = QueueRuns<'_>> {
        let segments = self.queues.get(&queue);
        segments
            .into_iter()
            .flat_map(move |segments| segments.iter().skip(start))
            .filter_map(move |sequence| self.segments.get(sequence)?.queue(queue))
            .filter(|runs| runs.len() > 0)
    }
}

fn is_purged(run: &Run, purged: Option<u64>) -> bool {
    purged.is_some_and(|purged| run.at.index <= purged)
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::QueueId;

    use super::*;

    fn queue(topic: u64) -> QueueKey {
        QueueKey { topic: TopicId(topic), queue: QueueId(0) }
    }

    /// Ten records each: entries 1..=n in segments of four entries.
    fn index(n: u64) -> LogIndex {
        let mut index = LogIndex::default();
        for entry in 1..=n {
            for topic in [1, 2] {
                let run = Run {
                    queue: queue(topic),
                    base: Offset((entry - 1) * 10),
                    count: 10,
                    at: Position { index: entry, byte: 12 * u32::try_from(topic).unwrap() },
                    length: 100,
                    term: Term(1),
                    stored: TimestampMs(1000 + entry),
                    born_max: TimestampMs(0),
                    tag_bloom: 0,
                };
                index.add((entry - 1) / 4, run);
            }
        }
        index
    }

    fn bases(runs: &[Run]) -> Vec<u64> {
        runs.iter().map(|run| run.base.0).collect()
    }

    #[test]
    fn runs_are_found_across_segments_and_bounded_by_bytes() {
        let index = index(10);
        assert_eq!(bases(&index.runs(queue(1), Offset(35), 350, None)), [30, 40, 50]);
        assert_eq!(bases(&index.runs(queue(1), Offset(95), 1, None)), [90]);
        assert_eq!(bases(&index.runs(queue(1), Offset(100), 1, None)), []);
        assert_eq!(bases(&index.runs(queue(3), Offset(0), 1, None)), []);
        assert_eq!(index.end_offset(queue(2)), Some(Offset(100)));
    }

    #[test]
    fn what_is_purged_or_dropped_is_not_there() {
        let mut index = index(10);
        assert_eq!(index.first_offset(queue(1), Some(6)), Some(Offset(60)));
        assert_eq!(bases(&index.runs(queue(1), Offset(0), 1, Some(6))), [60]);
        index.remove_segment(0);
        assert_eq!(bases(&index.runs(queue(1), Offset(0), 1, None)), [40]);
        index.retain_topics(|topic| topic != TopicId(1));
        assert_eq!(index.first_offset(queue(1), None), None);
        assert_eq!(index.first_offset(queue(2), None), Some(Offset(40)));
    }

    #[test]
    fn a_time_finds_the_first_batch_stored_at_or_after_it() {
        let index = index(10);
        let at = |time| index.offset_at_time(queue(1), TimestampMs(time), None);
        assert_eq!(at(0), Some(Offset(0)));
        assert_eq!(at(1005), Some(Offset(40)));
        assert_eq!(at(1010), Some(Offset(90)));
        assert_eq!(at(1011), None);
        assert_eq!(index.offset_at_time(queue(1), TimestampMs(0), Some(5)), Some(Offset(50)));
    }
}

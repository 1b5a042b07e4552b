//! What may go: decided by the leader from settings, index and time, carried out by entries.
//!
//! By age and bytes whole batches go, by messages the start moves to the message. Where a topic
//! refuses what finds its queue full, only age removes anything. Rings of temporary topics keep to
//! their caps by themselves ([`rings`](crate::rings)): here groups are told where they begin.
//!
//! Two steps. Each queue's visible start moves by the settings of its topic (a Retain item, so
//! that all replicas see the same start). Then whole segments below the first batch that anyone
//! may still see are dropped (`Trim`, by consensus). Plain state; a [`Sweep`] looks at some queues
//! at a time so that ten thousand of them never hold up an arbiter.

use std::ops::Bound;

use grus_protocol::ids::{Offset, QueueKey, TimestampMs};
use grus_protocol::message::WhenFull;

use crate::commands::{RetainQueue, TopicConfig};
use crate::machine::Machine;
use crate::machine::queue::QueueNumbers;

/// Queues looked at in one step.
pub const QUEUES_PER_STEP: usize = 128;
/// Batches of one queue given up in one step.
pub const RUNS_PER_QUEUE_MAX: usize = 8 * 1024;
/// Batches looked at in one step, over all queues: a few milliseconds.
pub const RUNS_PER_STEP_MAX: usize = 16 * 1024;
/// Batches asked for at a time: most queues that have something due have little.
const RUNS_AT_ONCE: usize = 64;

/// What retention needs to know of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFacts {
    /// One past its last offset.
    pub end: Offset,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was stored.
    pub stored: TimestampMs,
    /// The log index of its entry.
    pub index: u64,
}

/// Where retention finds batches.
pub trait RunSource {
    /// The batches of a queue from the one that holds `from` on, at most `runs_max`.
    fn runs(&self, queue: QueueKey, from: Offset, runs_max: usize) -> Vec<RunFacts>;

    /// Where the ring of a temporary queue begins.
    fn ring_start(&self, _queue: QueueKey) -> Option<Offset> {
        None
    }
}

/// A temporary queue has lost its oldest: groups that are behind must hear of it, and nobody else.
fn ring_moved(
    machine: &Machine,
    queue: QueueKey,
    numbers: &QueueNumbers,
    source: &impl RunSource,
) -> Option<RetainQueue> {
    let start = source.ring_start(queue).filter(|start| *start > numbers.visible_start)?;
    machine.progress_of(queue).next()?;
    Some(RetainQueue { queue, start, bytes_given_up: 0 })
}

/// Messages that are removed, by why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// They were stored too long ago.
    pub by_age: u64,
    /// Their queue had more bytes or messages than it may have.
    pub full: u64,
}

impl Removed {
    const NONE: Self = Self { by_age: 0, full: 0 };

    /// Adds those of another queue.
    pub const fn add(&mut self, other: Self) {
        self.by_age += other.by_age;
        self.full += other.full;
    }
}

/// What is due on one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    /// The start to move to, if it moves.
    retain: Option<RetainQueue>,
    /// What goes with that.
    removed: Removed,
    /// Index of the first entry that the queue still needs after that.
    first_needed: Option<u64>,
    /// Batches that were looked at.
    looked_at: usize,
    /// More may be due: the step was not allowed to look farther.
    is_cut_short: bool,
}

impl Due {
    const fn nothing(first_needed: Option<u64>) -> Self {
        Self {
            retain: None,
            removed: Removed::NONE,
            first_needed,
            looked_at: 0,
            is_cut_short: false,
        }
    }
}

fn due(
    config: &TopicConfig,
    queue: QueueKey,
    numbers: &QueueNumbers,
    now: TimestampMs,
    source: &impl RunSource,
    runs_max: usize,
) -> Due {
    if numbers.messages() == 0 {
        return Due::nothing(None);
    }
    let by_age = |run: &RunFacts| {
        config.retention_ms > 0 && run.stored.0.saturating_add(config.retention_ms) < now.0
    };
    let mut start = numbers.visible_start;
    let Some(first) = source.runs(queue, start, 1).first().copied() else {
        // The index should know batches and does not: nothing of the log may go.
        return Due::nothing(Some(0));
    };
    let drops = config.when_full == WhenFull::DropOldest;
    let cap = |cap: u64| if drops && cap > 0 { cap } else { u64::MAX };
    let (bytes_max, messages_max) = (cap(config.retention_bytes), cap(config.retention_messages));
    // What lies before it is more than the queue may have.
    let first_kept = Offset(numbers.next_offset.0.saturating_sub(messages_max));
    if !by_age(&first) && numbers.bytes <= bytes_max && first_kept <= start {
        return Due::nothing(Some(first.index));
    }
    let (mut bytes_given_up, mut removed) = (0, Removed::NONE);
    let mut first_needed = None;
    let mut looked_at = 0;
    let mut is_cut_short = true;
    'look: while looked_at < runs_max {
        let runs = source.runs(queue, start, RUNS_AT_ONCE.min(runs_max - looked_at));
        if runs.is_empty() {
            is_cut_short = false;
            break;
        }
        for run in runs {
            looked_at += 1;
            let over = numbers.bytes.saturating_sub(bytes_given_up) > bytes_max;
            let is_old = by_age(&run);
            // Should the step end here, this batch is given up but the next is not known: keep it.
            first_needed = Some(run.index);
            if !over && !is_old && first_kept < run.end {
                // The cap by messages may end inside of the batch, which stays then.
                removed.full += first_kept.0.saturating_sub(start.0);
                start = start.max(first_kept);
                is_cut_short = false;
                break 'look;
            }
            let messages = run.end.0.saturating_sub(start.0);
            *(if is_old { &mut removed.by_age } else { &mut removed.full }) += messages;
            start = run.end;
            bytes_given_up += run.bytes;
        }
    }
    if start >= numbers.next_offset {
        first_needed = None;
        is_cut_short = false;
    }
    let retain =
        (start > numbers.visible_start).then_some(RetainQueue { queue, start, bytes_given_up });
    Due { retain, removed, first_needed, looked_at, is_cut_short }
}

/// Starts that are to move, and what is removed by that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moves {
    /// The starts.
    pub retain: Vec<RetainQueue>,
    /// What goes.
    pub removed: Removed,
}

/// What a step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More queues are to be looked at; these starts are to move.
    More(Moves),
    /// That was the last queue. Once these starts have moved, every entry up to and including
    /// `unneeded` may go.
    Last {
        /// Starts to move.
        moves: Moves,
        /// Last log index that nobody needs.
        unneeded: u64,
    },
}

/// One look at all queues of a shard, some at a time.
#[derive(Debug)]
pub struct Sweep {
    cursor: Option<QueueKey>,
    now: TimestampMs,
    unneeded: u64,
    is_behind: bool,
}

impl Sweep {
    /// Begins while the log is applied up to and including `applied`: entries that come later are
    /// never given up by this sweep.
    pub const fn new(now: TimestampMs, applied: u64) -> Self {
        Self { cursor: None, now, unneeded: applied, is_behind: false }
    }

    /// Whether some queue has more due than was given up: the next sweep should not wait.
    pub const fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Looks at the next queues.
    pub fn step(&mut self, machine: &Machine, source: &impl RunSource) -> Step {
        let mut moves = Moves::default();
        let from = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut runs_left = RUNS_PER_STEP_MAX;
        for (seen, (queue, numbers)) in machine.queues_from(from).enumerate() {
            if seen == QUEUES_PER_STEP || runs_left == 0 {
                return Step::More(moves);
            }
            self.cursor = Some(queue);
            let Some(config) = machine.topic(queue.topic) else { continue };
            if machine.is_temporary(queue.topic) {
                moves.retain.extend(ring_moved(machine, queue, numbers, source));
                continue;
            }
            let runs_max = RUNS_PER_QUEUE_MAX.min(runs_left);
            let due = due(config, queue, numbers, self.now, source, runs_max);
            runs_left -= due.looked_at;
            self.is_behind |= due.is_cut_short;
            if let Some(retain) = due.retain {
                moves.retain.push(retain);
                moves.removed.add(due.removed);
            }
            if let Some(needed) = due.first_needed {
                self.unneeded = self.unneeded.min(needed.saturating_sub(1));
            }
        }
        Step::Last { moves, unneeded: self.unneeded }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use grus_protocol::ids::{QueueId, ShardId, Term, TopicId};
    use grus_protocol::names::TopicName;

    use super::*;
    use crate::commands::Command;
    use crate::machine::model_tests::batch;
    use crate::machine::{IndexChange, Moment, Outcome};

    #[derive(Default)]
    struct Index(BTreeMap<QueueKey, Vec<RunFacts>>);

    impl RunSource for Index {
        fn runs(&self, queue: QueueKey, from: Offset, runs_max: usize) -> Vec<RunFacts> {
            let runs = self.0.get(&queue).into_iter().flatten();
            runs.filter(|run| run.end > from).take(runs_max).copied().collect()
        }
    }

    struct Shard {
        machine: Machine,
        index: Index,
        next_index: u64,
        /// By all sweeps.
        removed: Removed,
    }

    fn key(topic: u64, queue: u32) -> QueueKey {
        QueueKey { topic: TopicId(topic), queue: QueueId(queue) }
    }

    impl Shard {
        /// Topics 1 and on, of one queue each, with these (retention ms, retention bytes).
        fn with(topics: &[(u64, u64)]) -> Self {
            let machine = Machine::new(ShardId(0));
            let (index, removed) = (Index::default(), Removed::NONE);
            let mut shard = Self { machine, index, next_index: 1, removed };
            for (topic, (retention_ms, retention_bytes)) in (1..).zip(topics) {
                let name = TopicName::try_from("orders").unwrap();
                let config = TopicConfig {
                    retention_ms: *retention_ms,
                    retention_bytes: *retention_bytes,
                    ..TopicConfig::plain(TopicId(topic), name, vec![QueueId(0)])
                };
                shard.apply(0, Command::TopicConfig(config));
            }
            shard
        }

        fn apply(&mut self, time: u64, command: Command) -> Outcome {
            let index = self.next_index;
            self.next_index += 1;
            let moment = Moment { term: Term(1), index, time: TimestampMs(time), byte: 0 };
            let effect = self.machine.apply(moment, command);
            if let Some(IndexChange::Stored { queue, appended, batch }) = effect.index {
                let end = Offset(appended.base_offset.0 + u64::from(appended.count));
                let bytes = u64::from(batch.len_bytes());
                let facts = RunFacts { end, bytes, stored: TimestampMs(time), index };
                self.index.0.entry(queue).or_default().push(facts);
            }
            effect.outcome
        }

        fn append(&mut self, topic: u64, time: u64) {
            self.apply(time, Command::Append { queue: key(topic, 0), batch: batch(0, 0, 0, 2) });
        }

        /// Sweeps, applies what is to move, and says up to where the log is not needed.
        fn sweep(&mut self, now: u64) -> u64 {
            let mut sweep = Sweep::new(TimestampMs(now), self.next_index - 1);
            loop {
                match sweep.step(&self.machine, &self.index) {
                    Step::More(moves) => self.apply_moves(now, moves),
                    Step::Last { moves, unneeded } => {
                        self.apply_moves(now, moves);
                        return unneeded;
                    }
                }
            }
        }

        fn apply_moves(&mut self, now: u64, moves: Moves) {
            self.removed.add(moves.removed);
            self.apply(now, Command::Retain(moves.retain));
        }

        fn start(&self, topic: u64) -> u64 {
            self.machine.queue(key(topic, 0)).unwrap().visible_start.0
        }
    }

    #[test]
    fn what_is_too_old_goes_and_the_log_up_to_the_first_batch_that_stays() {
        let mut shard = Shard::with(&[(100, 0)]);
        for time in [10, 20, 30, 40] {
            shard.append(1, time);
        }
        assert_eq!(shard.sweep(110), 1, "the first batch is 100 old, not older: it stays");
        assert_eq!(shard.start(1), 0);
        assert_eq!(shard.sweep(125), 3, "batches of 10 and 20 go; the one of 30 is entry 4");
        assert_eq!(shard.start(1), 4);
        assert_eq!(shard.sweep(1_000), 7, "all of it, retention's own entries too");
        assert_eq!(shard.start(1), 8);
    }

    #[test]
    fn a_queue_above_its_bytes_gives_up_its_oldest_batches() {
        let bytes = batch(0, 0, 0, 2).len() as u64;
        let mut shard = Shard::with(&[(0, bytes * 2)]);
        for time in 0..5 {
            shard.append(1, time);
        }
        assert_eq!(shard.sweep(9), 4);
        assert_eq!(shard.start(1), 6);
        assert_eq!(shard.machine.queue(key(1, 0)).unwrap().bytes, bytes * 2);
        assert_eq!(shard.sweep(9), 4, "at its bound nothing more goes");
        assert_eq!(shard.start(1), 6);
    }

    /// Topic 1 with such caps, and batches of two messages in it.
    fn capped(caps: &TopicConfig, batches: u64) -> Shard {
        let mut shard = Shard::with(&[(0, 0)]);
        let (topic, name, queues) = (TopicId(1), caps.name.clone(), vec![QueueId(0)]);
        shard.apply(0, Command::TopicConfig(TopicConfig { topic, name, queues, ..caps.clone() }));
        (0..batches).for_each(|time| shard.append(1, time));
        shard
    }

    fn caps() -> TopicConfig {
        TopicConfig::plain(TopicId(1), TopicName::try_from("orders").unwrap(), vec![QueueId(0)])
    }

    #[test]
    fn a_queue_above_its_messages_gives_up_its_oldest_to_the_message() {
        let bytes = batch(0, 0, 0, 2).len() as u64;
        let mut shard = capped(&TopicConfig { retention_messages: 3, ..caps() }, 5);
        assert_eq!(
            shard.sweep(9),
            5,
            "the fourth batch, of entry 6, is needed for its second half"
        );
        assert_eq!((shard.start(1), shard.removed), (7, Removed { by_age: 0, full: 7 }));
        assert_eq!(shard.machine.queue(key(1, 0)).unwrap().bytes, 2 * bytes, "it is kept whole");
        shard.append(1, 9);
        shard.sweep(9);
        assert_eq!((shard.start(1), shard.removed.full), (9, 9));
        assert_eq!(shard.machine.queue(key(1, 0)).unwrap().bytes, 2 * bytes);
    }

    #[test]
    fn what_is_removed_is_counted_by_why() {
        let aged = TopicConfig { retention_ms: 100, retention_messages: 4, ..caps() };
        let mut shard = capped(&aged, 5); // of 0, 1, 2, 3 and 4 ms
        shard.sweep(101);
        assert_eq!((shard.start(1), shard.removed), (6, Removed { by_age: 2, full: 4 }));
    }

    #[test]
    fn a_queue_that_refuses_gives_up_nothing_but_what_is_too_old() {
        let mut shard = capped(&caps(), 5);
        let refuses = TopicConfig {
            retention_ms: 100,
            retention_bytes: 1,
            retention_messages: 2,
            when_full: WhenFull::Reject,
            ..caps()
        };
        shard.apply(5, Command::TopicConfig(refuses));
        shard.sweep(9);
        assert_eq!((shard.start(1), shard.removed), (0, Removed::NONE));
        shard.sweep(102);
        assert_eq!((shard.start(1), shard.removed), (4, Removed { by_age: 4, full: 0 }));
    }

    #[test]
    fn a_topic_that_keeps_for_ever_holds_the_log_and_lets_others_move() {
        let mut shard = Shard::with(&[(100, 0), (0, 0)]);
        shard.append(1, 10);
        shard.append(2, 10);
        shard.append(1, 20);
        assert_eq!(shard.sweep(1_000), 3, "entry 4 is of topic 2");
        assert_eq!((shard.start(1), shard.start(2)), (4, 0));
        shard.apply(1_000, Command::TopicDrop { topic: TopicId(2) });
        assert_eq!(shard.sweep(1_000), shard.next_index - 2, "nobody needs anything any more");
    }

    #[test]
    fn more_batches_than_a_step_may_give_up_go_in_several_sweeps_and_nothing_visible_is_trimmed() {
        let mut shard = Shard::with(&[(1, 0)]);
        for _ in 0..RUNS_PER_QUEUE_MAX + 10 {
            shard.append(1, 5);
        }
        let mut sweep = Sweep::new(TimestampMs(100), shard.next_index - 1);
        let Step::Last { moves, unneeded } = sweep.step(&shard.machine, &shard.index) else {
            panic!("one queue takes one step");
        };
        assert!(sweep.is_behind(), "the next sweep must not wait: producers may be as fast");
        shard.apply_moves(100, moves);
        assert_eq!(shard.start(1), 2 * RUNS_PER_QUEUE_MAX as u64);
        assert!(unneeded < 2 + RUNS_PER_QUEUE_MAX as u64, "the next batch is still visible");
        let mut sweep = Sweep::new(TimestampMs(100), shard.next_index - 1);
        assert!(matches!(sweep.step(&shard.machine, &shard.index), Step::Last { .. }));
        assert!(!sweep.is_behind(), "what is left is less than a step may give up");
        shard.sweep(100);
        assert_eq!(shard.machine.queue(key(1, 0)).unwrap().messages(), 0);
    }

    #[test]
    fn a_queue_whose_batches_the_index_does_not_know_holds_the_whole_log() {
        let mut shard = Shard::with(&[(1, 0), (1, 0)]);
        shard.append(1, 5);
        shard.append(2, 5);
        shard.index.0.remove(&key(2, 0));
        assert_eq!(shard.sweep(100), 0);
        assert_eq!((shard.start(1), shard.start(2)), (2, 0));
    }

    #[test]
    fn a_sweep_goes_over_all_queues_in_steps() {
        let topics = vec![(1, 0); QUEUES_PER_STEP * 2 + 3];
        let mut shard = Shard::with(&topics);
        for topic in 1..=topics.len() as u64 {
            shard.append(topic, 5);
        }
        shard.sweep(100);
        assert!((1..=topics.len() as u64).all(|topic| shard.start(topic) == 2));
    }
}

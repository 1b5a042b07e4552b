//! The machine against a model that remembers everything and looks everything up by walking.

mod slices;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use grus_protocol::batch::{BatchBuilder, NewRecord};
use grus_protocol::ids::{
    MessageId, Offset, ProducerEpoch, ProducerId, QueueId, QueueKey, Sequence, ShardId, Term,
    TimestampMs, TopicId,
};
use grus_protocol::limits::BatchLimits;
use grus_protocol::names::{ProducerName, TopicName};
use proptest::prelude::*;

use super::{Appended, HOUR_MS, IndexChange, Machine, Moment, Outcome, Refusal};
use crate::commands::{Command, DedupKey, RetainQueue, TopicConfig};
use grus_log::Part;

pub(super) const SHARD: ShardId = ShardId(3);
/// Drawn for the identities of the shard.
const SALT: u16 = 0x1234;
pub(super) const DEDUP_WINDOW_MS: u64 = HOUR_MS / 2;

pub(crate) fn batch(producer: u64, epoch: u32, first: u64, count: u32) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.set_producer(ProducerId(producer), ProducerEpoch(epoch), Sequence(first));
    for record in 0..count {
        let id = MessageId::from_parts(TimestampMs(1 + u64::from(record)), &[7; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(5), "body")).unwrap();
    }
    builder.finish()
}

pub(super) fn queue(topic: u64, queue: u32) -> QueueKey {
    QueueKey { topic: TopicId(topic), queue: QueueId(queue) }
}

pub(super) fn config(topic: u64, queues: u32) -> TopicConfig {
    let (name, queues) = (TopicName::try_from("orders").unwrap(), (0..queues).map(QueueId));
    let plain = TopicConfig::plain(TopicId(topic), name, queues.collect());
    TopicConfig { dedup_window_ms: DEDUP_WINDOW_MS, ..plain }
}

/// A batch the model has stored.
#[derive(Debug, Clone, Copy)]
struct Stored {
    producer: u64,
    epoch: u32,
    first: u64,
    appended: Appended,
    bytes: u64,
    dedup_key: Option<u8>,
    /// Nothing was stored: another batch had its key.
    is_repeat: bool,
}

#[derive(Debug, Default)]
struct ModelQueue {
    stored: Vec<Stored>,
    start: u64,
    /// Batches below this position in `stored` belong to forgotten producers, by producer.
    forgotten: BTreeMap<u64, usize>,
}

impl ModelQueue {
    fn last(&self) -> Option<&Stored> {
        self.stored.iter().rev().find(|stored| !stored.is_repeat)
    }

    fn end(&self) -> u64 {
        let last = self.last();
        last.map_or(0, |last| last.appended.base_offset.0 + u64::from(last.appended.count))
    }

    fn of_producer(&self, producer: u64) -> Vec<Stored> {
        let from = self.forgotten.get(&producer).copied().unwrap_or(0);
        let known = self.stored[from..].iter().copied();
        known.filter(|stored| stored.producer == producer).collect()
    }

    fn bytes(&self) -> u64 {
        let visible = self.stored.iter().filter(|s| s.appended.base_offset.0 >= self.start);
        visible.filter(|stored| !stored.is_repeat).map(|stored| stored.bytes).sum()
    }
}

#[derive(Debug, Default)]
struct Model {
    topics: BTreeMap<u64, u32>,
    queues: BTreeMap<QueueKey, ModelQueue>,
    names: BTreeMap<String, (u64, u32)>,
    producers: u64,
}

impl Model {
    fn append(
        &mut self,
        moment: Moment,
        key: QueueKey,
        (producer, epoch, first, count): (u64, u32, u64, u32),
        bytes: u64,
        dedup_key: Option<u8>,
    ) -> Result<Appended, Refusal> {
        let queue = self.queues.get_mut(&key).ok_or(Refusal::UnknownQueue)?;
        let has_key = |s: &&Stored| dedup_key.is_some() && s.dedup_key == dedup_key && !s.is_repeat;
        let by_key = queue.stored.iter().rev().find(has_key).map(|stored| stored.appended);
        let by_key = by_key.filter(|had| moment.time.0 < had.stored.0 + DEDUP_WINDOW_MS);
        if producer != 0 {
            let named = self.names.values().find(|(id, _)| *id == producer);
            if let Some((_, newest)) = named.filter(|(_, newest)| epoch < *newest) {
                return Err(Refusal::Fenced { epoch: ProducerEpoch(*newest) });
            }
            let known = queue.of_producer(producer);
            let newest = known.iter().map(|stored| stored.epoch).max().unwrap_or(epoch);
            if epoch < newest {
                return Err(Refusal::Fenced { epoch: ProducerEpoch(newest) });
            }
            let of_epoch: Vec<_> = known.iter().filter(|stored| stored.epoch == epoch).collect();
            let next = of_epoch.last().map_or(0, |s| s.first + u64::from(s.appended.count));
            let expected = Sequence(next);
            if first > next {
                return Err(Refusal::SequenceGap { expected });
            }
            if first < next {
                let repeat = of_epoch.iter().rev().take(5);
                let repeat = repeat.rev().find(|s| s.first == first && s.appended.count == count);
                let repeat = repeat.ok_or(Refusal::SequenceStale { expected })?;
                return Ok(Appended { duplicate: true, ..by_key.unwrap_or(repeat.appended) });
            }
        }
        let base_offset = by_key.map_or(Offset(queue.end()), |had| had.base_offset);
        let (term, stored) = (by_key.map_or(moment.term, |had| had.term), moment.time);
        let appended = Appended { base_offset, timer: None, count, term, stored, duplicate: false };
        let is_repeat = by_key.is_some();
        if producer != 0 || !is_repeat {
            let stored = Stored { producer, epoch, first, appended, bytes, dedup_key, is_repeat };
            queue.stored.push(stored);
        }
        Ok(by_key.map_or(appended, |had| Appended { duplicate: true, ..had }))
    }

    fn forget_the_still(&mut self, now: TimestampMs) {
        let Some(hour_kept) = (now.0 / HOUR_MS).checked_sub(24) else { return };
        for queue in self.queues.values_mut() {
            for producer in (1..8).chain(900..902) {
                let known = queue.of_producer(producer);
                let still =
                    known.last().is_some_and(|last| last.appended.stored.0 / HOUR_MS < hour_kept);
                if still {
                    queue.forgotten.insert(producer, queue.stored.len());
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Topic {
        topic: u64,
        queues: u32,
    },
    Drop {
        topic: u64,
    },
    Append {
        topic: u64,
        queue: u32,
        producer: u64,
        epoch: u32,
        back: i64,
        count: u32,
        key: Option<u8>,
    },
    Fence {
        producer: u64,
        epoch: u32,
    },
    Init {
        name: Option<&'static str>,
    },
    Retain {
        topic: u64,
        queue: u32,
        batches: usize,
    },
    Later {
        ms: u64,
    },
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    let place = (1_u64..3, 0_u32..3);
    prop_oneof![
        2 => (1_u64..3, 1_u32..4).prop_map(|(topic, queues)| Step::Topic { topic, queues }),
        1 => (1_u64..3).prop_map(|topic| Step::Drop { topic }),
        16 => (place.clone(), 0_u64..4, 0_u32..3, -7_i64..2, 1_u32..4).prop_map(
            |((topic, queue), producer, epoch, back, count)| Step::Append {
                topic, queue, producer, epoch, back: if back < -1 { 0 } else { back }, count, key: None,
            }
        ),
        8 => (place.clone(), 0_u64..3, -2_i64..1, 1_u32..3, 0_u8..3).prop_map(
            |((topic, queue), producer, back, count, key)| Step::Append {
                topic, queue, producer, epoch: 0, back: if back < -1 { 0 } else { back }, count,
                key: Some(key),
            }
        ),
        1 => (900_u64..902, 0_u32..4).prop_map(|(producer, epoch)| Step::Fence { producer, epoch }),
        4 => (place.clone(), 900_u64..902, 0_u32..4).prop_map(
            |((topic, queue), producer, epoch)| Step::Append {
                topic, queue, producer, epoch, back: 0, count: 1, key: None,
            }
        ),
        4 => (place.clone(), 1_u64..3, -7_i64..1).prop_map(
            |((topic, queue), producer, back)| Step::Append {
                topic, queue, producer, epoch: 0, back, count: 1, key: None,
            }
        ),
        1 => prop::option::of(prop_oneof![Just("a"), Just("b")]).prop_map(|name| Step::Init { name }),
        1 => (place, 0_usize..4).prop_map(
            |((topic, queue), batches)| Step::Retain { topic, queue, batches }
        ),
        2 => prop_oneof![Just(7), Just(HOUR_MS), Just(26 * HOUR_MS)].prop_map(|ms| Step::Later { ms }),
        2 => Just(Step::Checkpoint),
    ]
}

/// Both sides, and the parts of all checkpoints so far laid over each other.
pub(super) struct Pair {
    pub(super) machine: Machine,
    model: Model,
    saved: BTreeMap<Bytes, Bytes>,
    pub(super) moment: Moment,
}

impl Pair {
    pub(super) fn new() -> Self {
        let moment = Moment { term: Term(1), index: 0, time: TimestampMs(100 * HOUR_MS), byte: 0 };
        Self {
            machine: Machine::new(SHARD),
            model: Model::default(),
            saved: BTreeMap::new(),
            moment,
        }
    }

    pub(super) fn apply(&mut self, command: Command) -> (Outcome, Option<IndexChange>) {
        self.moment.index += 1;
        let effect = self.machine.apply(self.moment, command);
        self.machine.entry_applied(self.moment);
        (effect.outcome, effect.index)
    }

    fn step(&mut self, step: &Step) {
        let index_before = self.moment.index;
        match *step {
            Step::Topic { topic, queues } => {
                let (outcome, _) = self.apply(Command::TopicConfig(config(topic, queues)));
                assert_eq!(outcome, Outcome::TopicConfig(Ok(())));
                let known = self.model.topics.entry(topic).or_default();
                *known = queues.max(*known);
                for number in 0..queues {
                    self.model.queues.entry(queue(topic, number)).or_default();
                }
            }
            Step::Drop { topic } => {
                let (outcome, index) = self.apply(Command::TopicDrop { topic: TopicId(topic) });
                let was_there = self.model.topics.remove(&topic).is_some();
                assert_eq!(outcome, Outcome::TopicDrop(was_there));
                assert_eq!(index.is_some(), was_there);
                self.model.queues.retain(|key, _| key.topic.0 != topic);
            }
            Step::Append { topic, queue: number, producer, epoch, back, count, key } => {
                self.append(queue(topic, number), producer, epoch, back, count, key);
            }
            Step::Fence { producer, epoch } => self.fence(producer, epoch),
            Step::Init { name } => self.init(name),
            Step::Retain { topic, queue: number, batches } => {
                self.retain(queue(topic, number), batches);
            }
            Step::Later { ms } => self.moment.time.0 += ms,
            Step::Checkpoint => self.checkpoint(),
        }
        if self.moment.index > index_before {
            self.model.forget_the_still(self.moment.time);
        }
        self.compare();
    }

    /// Appends with a sequence `back` records off the next one; -1 and 0 come up most.
    fn append(
        &mut self,
        key: QueueKey,
        producer: u64,
        epoch: u32,
        back: i64,
        count: u32,
        dedup_key: Option<u8>,
    ) {
        let known = self.model.queues.get(&key).map(|queue| queue.of_producer(producer));
        let next = known.unwrap_or_default();
        let next = next.iter().rev().find(|stored| stored.epoch == epoch);
        let next = next.map_or(0, |s| s.first + u64::from(s.appended.count));
        let first = next.saturating_add_signed(back);
        let batch = batch(producer, epoch, first, count);
        let bytes = batch.len() as u64;
        let (outcome, index) = self.apply(match dedup_key {
            None => Command::Append { queue: key, batch },
            Some(number) => Command::AppendOnce { queue: key, key: DedupKey::of(&[number]), batch },
        });
        let place = (producer, epoch, first, count);
        let expected = self.model.append(self.moment, key, place, bytes, dedup_key);
        assert_eq!(outcome, Outcome::Append(expected));
        let indexed = expected.is_ok_and(|appended| !appended.duplicate);
        assert_eq!(index.is_some(), indexed, "the index learns of new batches only");
    }

    fn fence(&mut self, producer: u64, epoch: u32) {
        let name = format!("fenced {producer}");
        let (_, newest) = *self.model.names.entry(name.clone()).or_insert((producer, epoch));
        let command =
            Command::Fence { producer: ProducerId(producer), epoch: ProducerEpoch(epoch) };
        let (outcome, _) = self.apply(command);
        if epoch < newest {
            let refused = Refusal::Fenced { epoch: ProducerEpoch(newest) };
            return assert_eq!(outcome, Outcome::Fence(Err(refused)));
        }
        assert_eq!(outcome, Outcome::Fence(Ok(())));
        self.model.names.insert(name, (producer, epoch));
    }

    fn init(&mut self, name: Option<&'static str>) {
        let named = name.map(|name| ProducerName::try_from(name).unwrap());
        let (outcome, _) = self.apply(Command::InitProducer { name: named, salt: SALT });
        let Outcome::InitProducer(Ok(given)) = outcome else { panic!("{outcome:?}") };
        if let Some((producer, epoch)) = name.and_then(|name| self.model.names.get_mut(name)) {
            *epoch += 1;
            assert_eq!((given.producer.0, given.epoch.0), (*producer, *epoch));
            return;
        }
        self.model.producers += 1;
        let first = 3 << 48 | u64::from(SALT) << 32;
        assert_eq!(given.producer.0, first + self.model.producers, "never given twice");
        assert_eq!(given.epoch.0, 0);
        if let Some(name) = name {
            self.model.names.insert(name.into(), (given.producer.0, 0));
        }
    }

    fn retain(&mut self, key: QueueKey, batches: usize) {
        let Some(queue) = self.model.queues.get_mut(&key) else { return };
        let is_visible = |s: &&Stored| !s.is_repeat && s.appended.base_offset.0 >= queue.start;
        let visible: Vec<_> = queue.stored.iter().filter(is_visible).collect();
        let given_up = &visible[..batches.min(visible.len())];
        let bytes_given_up = given_up.iter().map(|stored| stored.bytes).sum();
        let start = given_up.last().map_or(queue.start, |last| {
            last.appended.base_offset.0 + u64::from(last.appended.count)
        });
        let moved = usize::from(start > queue.start);
        queue.start = start;
        let retain = RetainQueue { queue: key, start: Offset(start), bytes_given_up };
        let (outcome, _) = self.apply(Command::Retain(vec![retain]));
        assert_eq!(outcome, Outcome::Retain(moved));
    }

    /// Saves what has changed, and checks that what is saved is the state.
    fn checkpoint(&mut self) {
        let before = self.machine.digest();
        for Part { key, value } in self.machine.dirty_parts() {
            match value {
                Some(value) => drop(self.saved.insert(key, value)),
                None => drop(self.saved.remove(&key)),
            }
        }
        assert_eq!(self.machine.digest(), before, "saving changes no state");
        assert!(self.machine.dirty_parts().is_empty());
        let all = self.machine.all_parts();
        let all_saved: BTreeMap<_, _> =
            all.iter().map(|part| (part.key.clone(), part.value.clone().unwrap())).collect();
        assert_eq!(all_saved, self.saved, "the deltas add up to the whole");

        let mut restored = Machine::new(SHARD);
        restored.restore(all).unwrap();
        assert_eq!(restored.digest(), before);
        assert!(restored.dirty_parts().is_empty());
        restored.take_changed();
        self.machine = restored; // go on with it: it must do all that the old one did
    }

    fn compare(&self) {
        let keys: Vec<_> = self.machine.queues().map(|(key, _)| key).collect();
        assert_eq!(keys, self.model.queues.keys().copied().collect::<Vec<_>>());
        for (key, queue) in &self.model.queues {
            let numbers = self.machine.queue(*key).unwrap();
            assert_eq!(numbers.next_offset.0, queue.end());
            assert_eq!(numbers.visible_start.0, queue.start);
            assert_eq!(numbers.bytes, queue.bytes());
            let last = queue.last().map_or(0, |last| last.appended.stored.0);
            assert_eq!(numbers.last_modified.0, last);
        }
        let windows: usize = self.machine.queues.values().map(|queue| queue.windows.len()).sum();
        assert_eq!(self.machine.windows, windows);
        let by_hour: usize = self.machine.windows_by_hour.values().map(BTreeSet::len).sum();
        assert_eq!(by_hour, windows, "every window expires some day");
        let buckets = self.machine.queues.values().map(|queue| queue.dedup.buckets.len());
        assert_eq!(self.machine.dedup_order.len(), buckets.sum::<usize>(), "and every dedup key");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_machine_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        pair.step(&Step::Topic { topic: 1, queues: 2 });
        for step in &steps {
            pair.step(step);
        }
        pair.step(&Step::Checkpoint);
    }

    #[test]
    fn apply_takes_any_bytes_without_a_panic(
        kind in 60_u16..100,
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut machine = Machine::new(SHARD);
        let moment = Moment { term: Term(1), index: 1, time: TimestampMs(1), byte: 0 };
        machine.apply(moment, Command::TopicConfig(config(0, 1)));
        let mut versioned = bytes;
        if let Some(version) = versioned.first_mut() {
            *version = 1;
        }
        if let Ok(command) = Command::decode(kind, versioned.into()) {
            machine.apply(moment, command);
            machine.entry_applied(moment);
            machine.dirty_parts();
        }
    }
}

#[test]
fn a_queue_that_changed_is_named_once() {
    let mut pair = Pair::new();
    pair.apply(Command::TopicConfig(config(1, 2)));
    assert_eq!(pair.machine.take_changed(), [queue(1, 0), queue(1, 1)]);
    for _ in 0..3 {
        pair.apply(Command::Append { queue: queue(1, 1), batch: batch(0, 0, 0, 1) });
    }
    assert_eq!(pair.machine.take_changed(), [queue(1, 1)]);
    assert_eq!(pair.machine.take_changed(), []);
    pair.apply(Command::TopicDrop { topic: TopicId(1) });
    assert_eq!(pair.machine.take_changed(), [queue(1, 0), queue(1, 1)]);
}

#[test]
fn parts_that_do_not_read_or_belong_to_nothing_leave_the_state_as_it_was() {
    let mut pair = Pair::new();
    pair.apply(Command::TopicConfig(config(1, 1)));
    pair.apply(Command::Append { queue: queue(1, 0), batch: batch(9, 0, 0, 1) });
    let whole = pair.machine.all_parts();
    let digest = pair.machine.digest();
    for lost in 0..whole.len() {
        let key = &whole[lost].key;
        let needed = key.starts_with(&[2]) || key.starts_with(&[3]);
        let mut parts = whole.clone();
        parts.remove(lost);
        let restored = Machine::new(SHARD).restore(parts);
        assert_eq!(restored.is_err(), needed, "without part {key:?}");
    }
    let mut parts = whole;
    parts[2].value = Some(Bytes::from_static(b"\x01short"));
    assert!(pair.machine.restore(parts).is_err());
    assert_eq!(pair.machine.digest(), digest);
}

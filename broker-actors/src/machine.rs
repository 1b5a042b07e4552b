//! The state of a shard: what its log says, applied entry by entry.
//!
//! Plain and deterministic: apply uses no clock, no local setting, no randomness and no hash order;
//! time is the entry's, settings of topics arrive as entries, and errors are values. So every
//! replica that has applied the same entries holds the same state, and the same [`Machine::digest`].
//!
//! * [`queue`]: offsets, visible start, counts of a queue.
//! * [`window`]: the last batches of a producer on a queue, for idempotence.
//! * [`timers`]: messages that are stored and seen later.
//! * [`schedules`]: what sends messages again and again.
//! * [`groups`]: what consumer groups have settled, and who is in them.
//! * `dedup`: which dedup keys a queue has stored of late.
//! * [`part`]: the names under which parts of the state are saved; [`Machine::freeze`] and
//!   [`Machine::frozen_parts`] give those that changed, or all, [`Machine::restore`] reads them back.

pub mod groups;
pub mod landed;
pub mod part;
pub mod queue;
pub mod schedules;
pub mod timers;
pub mod window;

pub(crate) mod caps;
mod dedup;
mod digest;
mod effect;
mod fence;
mod freeze;
mod produce;
mod refusal;
mod save;

#[cfg(test)]
mod cap_tests;
#[cfg(test)]
mod dedup_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
pub(crate) mod model_tests;
#[cfg(test)]
mod schedule_model;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod timer_tests;
#[cfg(test)]
mod topic_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{
    Offset, ProducerEpoch, ProducerId, QueueId, QueueKey, ShardId, Term, TimestampMs, TopicId,
};
use grus_protocol::message::TopicKind;
use grus_protocol::names::ProducerName;

use crate::commands::delay::Scheduling;
use crate::commands::{Command, DedupKey, RetainQueue, TopicConfig};
use crate::rings::OFFSETS_END;
use crate::timers::TimerId;
use digest::Tracked;
pub use effect::{Effect, IndexChange, Outcome, ReleasedRun};
use fence::Fence;
use freeze::Frozen;
pub use freeze::{SLICE_BYTES_MAX, SLICE_PARTS_MAX};
use groups::Groups;
use part::PartKey;
use produce::{Later, NamedProducer};
use queue::{QueueNumbers, QueueState};
pub use refusal::Refusal;
use schedules::Schedules;
use timers::Timers;

/// Most topics a shard hosts queues of.
pub const TOPICS_MAX: usize = 100_000;
/// Most queues in a shard.
pub const QUEUES_MAX: usize = 100_000;
/// Most (producer, queue) pairs remembered in a shard; further producers are refused.
pub const WINDOWS_MAX: usize = 1_000_000;
/// Most named producers in a shard.
pub const NAMED_PRODUCERS_MAX: usize = 100_000;
/// Most dedup keys remembered in a shard (some 80 bytes each); further ones are refused for now.
pub const DEDUP_KEYS_MAX: usize = 1_000_000;
/// Most messages scheduled in a shard (some 22 to 26 bytes each); further ones are refused.
pub const TIMERS_MAX: usize = 50_000_000;
/// A producer that has stored nothing on a queue for this long (entry time) is forgotten there.
pub const WINDOW_EXPIRY_MS: u64 = 24 * HOUR_MS;
/// A name that no producer has asked for in this long (entry time) may be forgotten.
pub const NAMED_PRODUCER_EXPIRY_MS: u64 = 7 * 24 * HOUR_MS;

const HOUR_MS: u64 = 3_600_000;
const _: () = assert!(QUEUES_MAX <= crate::commands::ITEM_QUEUES_MAX as usize);

/// Which entry an item belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The entry's term.
    pub term: Term,
    /// The entry's index in the log.
    pub index: u64,
    /// The entry's time; never behind an earlier entry's.
    pub time: TimestampMs,
    /// Where the item's bytes begin in the entry.
    pub byte: u32,
}

/// A batch that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record; 0 when it was scheduled.
    pub base_offset: Offset,
    /// The timer of its first record, when it was scheduled.
    pub timer: Option<TimerId>,
    /// Records in it.
    pub count: u32,
    /// The term it was first stored in.
    pub term: Term,
    /// When it was first stored.
    pub stored: TimestampMs,
    /// True if it had been stored before and this is the first receipt again.
    pub duplicate: bool,
}

/// A producer's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitializedProducer {
    /// Unique in the cluster, never given twice.
    pub producer: ProducerId,
    /// Rises each time a named producer comes back.
    pub epoch: ProducerEpoch,
}

/// What the shard as a whole remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShardNumbers {
    /// The next producer id to give.
    next_producer: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Machine {
    shard: ShardId,
    numbers: Tracked<ShardNumbers>,
    topics: BTreeMap<TopicId, Tracked<TopicConfig>>,
    queues: BTreeMap<QueueKey, QueueState>,
    named_producers: BTreeMap<ProducerName, Tracked<NamedProducer>>,
    /// The newest epochs of other shards' named producers.
    fences: BTreeMap<ProducerId, Tracked<Fence>>,
    /// Newest epoch of each named producer; derived from `named_producers` and `fences`.
    epochs: BTreeMap<ProducerId, ProducerEpoch>,
    /// Windows by the hour of their last batch; derived from the windows.
    windows_by_hour: BTreeMap<u64, BTreeSet<(QueueKey, ProducerId)>>,
    windows: usize,
    /// Buckets of dedup keys by the second in which their last key is over; derived from them.
    dedup_order: BTreeSet<(u64, QueueKey, u64)>,
    dedup_keys: usize,
    dirty: BTreeSet<PartKey>,
    /// Exclusive or of the hashes of all parts that are not dirty.
    clean_digest: u64,
    /// What a checkpoint is still to be given.
    frozen: Option<Frozen>,
    changed: Vec<QueueKey>,
    timers: Timers,
    schedules: Schedules,
    groups: Groups,
}

impl Machine {
    /// The state of a shard whose log is empty.
    pub fn new(shard: ShardId) -> Self {
        let numbers = ShardNumbers { next_producer: produce::first_producer(shard, 0) };
        Self {
            shard,
            numbers: Tracked::unsaved(numbers),
            topics: BTreeMap::new(),
            queues: BTreeMap::new(),
            named_producers: BTreeMap::new(),
            fences: BTreeMap::new(),
            epochs: BTreeMap::new(),
            windows_by_hour: BTreeMap::new(),
            windows: 0,
            dedup_order: BTreeSet::new(),
            dedup_keys: 0,
            dirty: BTreeSet::from([PartKey::Shard]),
            clean_digest: 0,
            frozen: None,
            changed: Vec::new(),
            timers: Timers::default(),
            schedules: Schedules::default(),
            groups: Groups::default(),
        }
    }

    /// A queue's numbers.
    pub fn queue(&self, queue: QueueKey) -> Option<&QueueNumbers> {
        self.queues.get(&queue).map(|state| state.numbers.get())
    }

    /// All queues with their numbers, in order.
    pub fn queues(&self) -> impl Iterator<Item = (QueueKey, &QueueNumbers)> {
        self.queues.iter().map(|(key, state)| (*key, state.numbers.get()))
    }

    /// A topic's settings.
    pub fn topic(&self, topic: TopicId) -> Option<&TopicConfig> {
        self.topics.get(&topic).map(Tracked::get)
    }

    /// Whether a topic's messages lie in no log, but in the memory of its leader.
    pub fn is_temporary(&self, topic: TopicId) -> bool {
        self.topic(topic).is_some_and(|config| config.kind == TopicKind::Temporary.number())
    }

    /// The newest epoch of a producer that has a name.
    pub fn newest_epoch(&self, producer: ProducerId) -> Option<ProducerEpoch> {
        self.epochs.get(&producer).copied()
    }

    /// All topics, in order of their incarnation.
    pub fn topics(&self) -> impl Iterator<Item = &TopicConfig> {
        self.topics_from(TopicId::UNKNOWN)
    }

    /// Topics of this shard from an incarnation on, in order of incarnations.
    pub fn topics_from(&self, from: TopicId) -> impl Iterator<Item = &TopicConfig> {
        self.topics.range(from..).map(|(_, topic)| topic.get())
    }

    /// All queues behind `from`, in order.
    pub fn queues_from(
        &self,
        from: Bound<QueueKey>,
    ) -> impl Iterator<Item = (QueueKey, &QueueNumbers)> {
        let queues = self.queues.range((from, Bound::Unbounded));
        queues.map(|(key, state)| (*key, state.numbers.get()))
    }

    /// Queues that gained batches, moved or went since the last call; each once.
    pub fn take_changed(&mut self) -> Vec<QueueKey> {
        for key in &self.changed {
            if let Some(state) = self.queues.get_mut(key) {
                state.changed = false;
            }
        }
        std::mem::take(&mut self.changed)
    }

    /// Applies one item of the entry at `moment`.
    pub fn apply(&mut self, moment: Moment, command: Command) -> Effect {
        match command {
            Command::Append { queue, batch } => self.apply_append(moment, queue, batch, None, None),
            Command::AppendOnce { queue, key, batch } => {
                self.apply_append(moment, queue, batch, Some(key), None)
            }
            Command::Schedule(scheduling) => {
                let place = moment.byte.saturating_add(scheduling.header_bytes());
                let first = TimerId { index: moment.index, place };
                let Scheduling { queue, key, due, form, batch } = scheduling;
                let later = Later { first, due: &due, form };
                self.apply_append(moment, queue, batch, key, Some(&later))
            }
            Command::Release { queue, batches } => {
                let (outcome, runs) = self.apply_release(moment, queue, &batches);
                Effect { outcome, index: Self::released(queue, runs) }
            }
            Command::Recall { queue, timer } => {
                Outcome::Recall(self.apply_recall(queue, timer)).into()
            }
            Command::Roll { queue, timer, batch } => {
                Outcome::Roll(self.apply_roll(moment, queue, timer, batch.len())).into()
            }
            Command::Recurring(item) => self.apply_recurring(moment, item),
            Command::Group(item) => self.apply_group(moment, item),
            Command::Fence { producer, epoch } => {
                Outcome::Fence(self.apply_fence(moment.time, producer, epoch)).into()
            }
            Command::TopicConfig(config) => {
                Outcome::TopicConfig(self.apply_topic_config(config)).into()
            }
            Command::TopicDrop { topic } => self.apply_topic_drop(topic),
            Command::InitProducer { name, salt } => {
                Outcome::InitProducer(self.apply_init_producer(moment.time, name, salt)).into()
            }
            Command::Retain(queues) => Outcome::Retain(self.apply_retain(&queues)).into(),
        }
    }

    /// All items of the entry at `moment` were applied: forgets producers and dedup keys whose
    /// time is over.
    pub fn entry_applied(&mut self, moment: Moment) {
        self.expire_windows(moment.time);
        self.expire_dedup_keys(moment.time);
    }

    fn change_numbers(&mut self) -> &mut ShardNumbers {
        self.touch(&PartKey::Shard);
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        self.numbers.change(|hash| {
            *digest ^= hash;
            dirty.insert(PartKey::Shard);
        })
    }

    fn apply_append(
        &mut self,
        moment: Moment,
        queue: QueueKey,
        batch: Bytes,
        key: Option<DedupKey>,
        later: Option<&Later<'_>>,
    ) -> Effect {
        let refused = |refusal| Effect::from(Outcome::Append(Err(refusal)));
        let Ok(batch) = RecordBatch::from_log(batch) else {
            return refused(Refusal::MalformedBatch);
        };
        if batch.count() == 0 {
            return refused(Refusal::MalformedBatch);
        }
        match self.store(moment, queue, &batch, key, later) {
            Err(refusal) => refused(refusal),
            Ok(appended) => {
                let is_seen = !appended.duplicate && appended.timer.is_none();
                let index = is_seen.then_some(IndexChange::Stored { queue, appended, batch });
                Effect { outcome: Outcome::Append(Ok(appended)), index }
            }
        }
    }

    fn apply_topic_config(&mut self, mut config: TopicConfig) -> Result<(), Refusal> {
        let old = self.topics.get(&config.topic).map(Tracked::get);
        let is_new = old.is_none();
        let known: BTreeSet<QueueId> =
            old.into_iter().flat_map(|old| old.queues.iter().copied()).collect();
        let all: BTreeSet<QueueId> = known.iter().chain(&config.queues).copied().collect();
        if self.queues.len() + all.len() - known.len() > QUEUES_MAX {
            return Err(Refusal::Limit { what: "queues", limit: QUEUES_MAX });
        }
        if is_new && self.topics.len() >= TOPICS_MAX {
            return Err(Refusal::Limit { what: "topics", limit: TOPICS_MAX });
        }
        if let Some(old) = old.filter(|old| old.altered > config.altered) {
            // Of a leader that has not heard of the change: it adds queues, and changes nothing.
            config = old.clone();
        }
        if let Some(old) = self.topic(config.topic) {
            config.kind = old.kind; // what its queues have been until now, they stay
        }
        config.queues = all.iter().copied().collect();
        let topic = config.topic;
        for queue in all.difference(&known) {
            let key = QueueKey { topic, queue: *queue };
            self.touch(&PartKey::Queue(key));
            let numbers = Tracked::unsaved(QueueNumbers::default());
            self.dirty.insert(PartKey::Queue(key));
            self.queues.insert(key, QueueState { numbers, ..QueueState::default() });
            self.mark_changed(key);
        }
        self.touch(&PartKey::Topic(topic));
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        dirty.insert(PartKey::Topic(topic));
        match self.topics.get_mut(&topic) {
            Some(old) => *old.change(|hash| *digest ^= hash) = config,
            None => drop(self.topics.insert(topic, Tracked::unsaved(config))),
        }
        Ok(())
    }

    fn apply_topic_drop(&mut self, topic: TopicId) -> Effect {
        self.touch(&PartKey::Topic(topic));
        let Some(config) = self.topics.remove(&topic) else {
            return Outcome::TopicDrop(false).into();
        };
        self.drop_timers_of(topic);
        self.drop_schedules_of(topic);
        self.drop_groups_of(topic);
        self.forget_part(PartKey::Topic(topic), config.clean_hash());
        for queue in &config.get().queues {
            let key = QueueKey { topic, queue: *queue };
            self.touch_queue(key);
            let Some(state) = self.queues.remove(&key) else { continue };
            self.forget_part(PartKey::Queue(key), state.numbers.clean_hash());
            for (producer, window) in &state.windows {
                self.forget_part(PartKey::Window(key, *producer), window.clean_hash());
                self.forget_window_hour(key, *producer, window.get().last_stored());
            }
            self.windows -= state.windows.len();
            self.forget_dedup_keys(key, &state.dedup);
            if !state.changed {
                self.changed.push(key);
            }
        }
        let index = Some(IndexChange::Dropped(topic));
        Effect { outcome: Outcome::TopicDrop(true), index }
    }

    fn apply_retain(&mut self, queues: &[RetainQueue]) -> usize {
        let mut moved = 0;
        for retain in queues {
            self.touch(&PartKey::Queue(retain.queue));
            // Only its leader knows where a temporary queue ends.
            let is_temporary = self.is_temporary(retain.queue.topic);
            let Some(state) = self.queues.get_mut(&retain.queue) else { continue };
            let numbers = *state.numbers.get();
            let end = if is_temporary { OFFSETS_END } else { numbers.next_offset };
            let start = retain.start.min(end);
            if start <= numbers.visible_start {
                continue;
            }
            let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
            let numbers = state.numbers.change(|hash| {
                *digest ^= hash;
                dirty.insert(PartKey::Queue(retain.queue));
            });
            numbers.visible_start = start;
            numbers.next_offset = numbers.next_offset.max(start);
            numbers.bytes = numbers.bytes.saturating_sub(retain.bytes_given_up);
            if start == numbers.next_offset {
                numbers.bytes = 0;
            }
            moved += 1;
            self.retained_under_groups(retain.queue, start);
            self.mark_changed(retain.queue);
        }
        moved
    }

    /// A part is gone: out of the digest, and named so that the next delta says so.
    fn forget_part(&mut self, key: PartKey, clean_hash: u64) {
        self.clean_digest ^= clean_hash;
        self.dirty.insert(key);
    }

    fn mark_changed(&mut self, key: QueueKey) {
        if let Some(state) = self.queues.get_mut(&key)
            && !state.changed
        {
            state.changed = true;
            self.changed.push(key);
        }
    }
}

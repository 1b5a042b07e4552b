//! Storing batches, and the identity of who stores them.

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{ProducerEpoch, ProducerId, QueueKey, ShardId, TimestampMs};
use grus_protocol::message::WhenFull;
use grus_protocol::names::ProducerName;

use super::caps::Caps;
use super::digest::Tracked;
use super::landed::Landed;
use super::part::PartKey;
use super::window::{Slot, Verdict, Window, judge_unknown};
use super::{
    Appended, HOUR_MS, InitializedProducer, Machine, Moment, NAMED_PRODUCER_EXPIRY_MS,
    NAMED_PRODUCERS_MAX, Refusal, WINDOW_EXPIRY_MS, WINDOWS_MAX,
};
use crate::codec::{CodecError, Decoder};
use crate::commands::DedupKey;
use crate::timers::TimerId;
use crate::timers::run::{NewBatch, RunForm};

/// Windows forgotten at most per entry, so that no entry takes long to apply.
const EXPIRED_PER_ENTRY_MAX: usize = 256;

const VERSION: u8 = 1;

/// The first identity of a shard whose log begins. What is drawn for it tells its identities from those
/// of a log that the shard has lost: queues elsewhere may remember these, and what is sent under one that
/// is given again would count as sent before.
pub(super) fn first_producer(shard: ShardId, salt: u16) -> u64 {
    (u64::from(shard.0) << 48 | u64::from(salt) << 32) + 1
}

/// A producer that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamedProducer {
    pub(super) producer: ProducerId,
    pub(super) epoch: ProducerEpoch,
    /// When it last asked for its epoch.
    pub(super) asked: TimestampMs,
}

impl NamedProducer {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(21);
        out.put_u8(VERSION);
        out.put_u64_le(self.producer.0);
        out.put_u32_le(self.epoch.0);
        out.put_u64_le(self.asked.0);
        out.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        let producer = ProducerId(decoder.u64()?);
        let epoch = ProducerEpoch(decoder.u32()?);
        let asked = TimestampMs(decoder.u64()?);
        decoder.finish()?;
        Ok(Self { producer, epoch, asked })
    }
}

/// What makes a batch one that is seen later.
pub(super) struct Later<'a> {
    /// The timer of its first record.
    pub(super) first: TimerId,
    /// When its records are due: one time for all, or one for each.
    pub(super) due: &'a [TimestampMs],
    /// How a run is saved that begins with it.
    pub(super) form: RunForm,
}

impl Appended {
    /// Where it was stored, as it is remembered.
    fn landed(&self) -> Landed {
        self.timer.map_or(Landed::at(self.base_offset), Landed::later)
    }
}

impl Machine {
    /// Stores a batch, or says why not, or finds that it is stored already: under its sequence or
    /// under its dedup key.
    pub(super) fn store(
        &mut self,
        moment: Moment,
        key: QueueKey,
        batch: &RecordBatch,
        dedup_key: Option<DedupKey>,
        later: Option<&Later<'_>>,
    ) -> Result<Appended, Refusal> {
        let stored = moment.time;
        let idempotent = batch.producer_id() != ProducerId(0);
        let repeat = if idempotent { self.find_duplicate(key, batch)? } else { None };
        if repeat.is_some() && dedup_key.is_none() {
            return repeat.ok_or(Refusal::MalformedBatch);
        }
        if let Some(dedup_key) = &dedup_key {
            let first = match self.find_by_dedup_key(moment, key, dedup_key) {
                Err(_) if repeat.is_some() => None, // the sequence is answer enough
                found => found?,
            };
            if let Some(first) = first.filter(|_| repeat.is_none() && idempotent) {
                // Nothing is stored, but the producer's next batch follows this one.
                let slot = Slot {
                    first_sequence: batch.first_sequence(),
                    count: batch.count(),
                    landed: first.landed(),
                    term: first.term,
                    stored,
                };
                self.remember(key, batch.producer_id(), batch.producer_epoch(), slot);
            }
            if let Some(known) = first.or(repeat) {
                return Ok(known);
            }
        }
        self.judge_cap(key, batch)?;
        let appended = match later {
            None => self.store_in_queue(moment, key, batch)?,
            Some(later) => self.store_for_later(moment, key, batch, later)?,
        };
        if idempotent {
            let slot = Slot {
                first_sequence: batch.first_sequence(),
                count: appended.count,
                landed: appended.landed(),
                term: moment.term,
                stored,
            };
            self.remember(key, batch.producer_id(), batch.producer_epoch(), slot);
        }
        if let Some(dedup_key) = dedup_key {
            self.remember_dedup_key(moment, key, dedup_key, &appended);
        }
        Ok(appended)
    }

    /// Whether a new batch finds no room even in what is applied: then it need not travel through the
    /// log to hear so. What is under way counts when it is applied, where this is judged again.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`] and [`Refusal::AboveCap`].
    pub fn judge_room(&self, key: QueueKey, batch: &RecordBatch) -> Result<(), Refusal> {
        if self.topic(key.topic).is_none_or(|config| config.when_full != WhenFull::Reject) {
            return Ok(());
        }
        let idempotent = batch.producer_id() != ProducerId(0);
        if idempotent && !matches!(self.find_duplicate(key, batch), Ok(None)) {
            return Ok(()); // stored before, or refused for another reason: the log's order tells
        }
        self.judge_cap(key, batch)
    }

    /// Whether a batch fits the caps of its queue, where its topic refuses what does not.
    fn judge_cap(&self, key: QueueKey, batch: &RecordBatch) -> Result<(), Refusal> {
        let Some(config) = self.topic(key.topic) else { return Ok(()) };
        let Some(numbers) = self.queue(key) else { return Ok(()) };
        Caps::of(config).judge(numbers.messages(), numbers.bytes, batch)
    }

    /// Gives a batch the queue's next offsets.
    pub(super) fn store_in_queue(
        &mut self,
        moment: Moment,
        key: QueueKey,
        batch: &RecordBatch,
    ) -> Result<Appended, Refusal> {
        let (term, stored) = (moment.term, moment.time);
        if self.is_temporary(key.topic) {
            return Err(Refusal::InMemory);
        }
        self.touch(&PartKey::Queue(key));
        let state = self.queues.get_mut(&key).ok_or(Refusal::UnknownQueue)?;
        let count = batch.count();
        let base_offset = state.numbers.get().next_offset;
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let numbers = state.numbers.change(|hash| {
            *digest ^= hash;
            dirty.insert(PartKey::Queue(key));
        });
        numbers.next_offset.0 += u64::from(count);
        numbers.bytes += u64::from(batch.len_bytes());
        numbers.last_modified = stored;
        self.mark_changed(key);
        Ok(Appended { base_offset, timer: None, count, term, stored, duplicate: false })
    }

    /// Makes the records of a batch timers.
    fn store_for_later(
        &mut self,
        moment: Moment,
        key: QueueKey,
        batch: &RecordBatch,
        later: &Later<'_>,
    ) -> Result<Appended, Refusal> {
        if !self.queues.contains_key(&key) {
            return Err(Refusal::UnknownQueue);
        }
        if self.is_temporary(key.topic) {
            return Err(Refusal::InMemory);
        }
        let count = batch.count();
        let due = match later.due {
            [due] => vec![*due; count as usize],
            due if due.len() == count as usize => due.to_vec(),
            _ => return Err(Refusal::MalformedBatch),
        };
        let first = later.first;
        self.may_schedule(first, due.len())?;
        let batch = NewBatch { queue: key, first, length: batch.len_bytes(), due: &due };
        self.add_timers(&batch, later.form);
        Ok(Self::scheduled(moment, first, count))
    }

    /// Judges a batch of a known producer: the first receipt, `None` to store it, or a refusal.
    fn find_duplicate(
        &self,
        key: QueueKey,
        batch: &RecordBatch,
    ) -> Result<Option<Appended>, Refusal> {
        let state = self.queues.get(&key).ok_or(Refusal::UnknownQueue)?;
        let (producer, epoch) = (batch.producer_id(), batch.producer_epoch());
        if let Some(newest) = self.epochs.get(&producer)
            && epoch < *newest
        {
            return Err(Refusal::Fenced { epoch: *newest });
        }
        let window = state.windows.get(&producer);
        let verdict = window.map_or_else(
            || judge_unknown(batch.first_sequence()),
            |window| window.get().judge(epoch, batch.first_sequence(), batch.count()),
        );
        match verdict {
            Verdict::Next if window.is_none() && self.windows >= WINDOWS_MAX => {
                Err(Refusal::Limit { what: "producers", limit: WINDOWS_MAX })
            }
            Verdict::Next => Ok(None),
            Verdict::Duplicate(slot) => Ok(Some(Appended {
                base_offset: slot.landed.offset(),
                timer: slot.landed.timer(),
                count: slot.count,
                term: slot.term,
                stored: slot.stored,
                duplicate: true,
            })),
            Verdict::Gap { expected } => Err(Refusal::SequenceGap { expected }),
            Verdict::Stale { expected } => Err(Refusal::SequenceStale { expected }),
            Verdict::Fenced { epoch } => Err(Refusal::Fenced { epoch }),
        }
    }

    fn remember(&mut self, key: QueueKey, producer: ProducerId, epoch: ProducerEpoch, slot: Slot) {
        self.touch(&PartKey::Window(key, producer));
        let Some(state) = self.queues.get_mut(&key) else { return };
        let (digest, dirty, windows) = (&mut self.clean_digest, &mut self.dirty, &mut self.windows);
        let part = || PartKey::Window(key, producer);
        let mut hour_before = None;
        let window = state
            .windows
            .entry(producer)
            .and_modify(|window| hour_before = Some(window.get().last_stored().0 / HOUR_MS))
            .or_insert_with(|| {
                *windows += 1;
                dirty.insert(part());
                Tracked::unsaved(Window::new(epoch))
            });
        window
            .change(|hash| {
                *digest ^= hash;
                dirty.insert(part());
            })
            .push(epoch, slot);
        let hour = slot.stored.0 / HOUR_MS;
        if hour_before != Some(hour) {
            if let Some(before) = hour_before {
                self.forget_hour(before, key, producer);
            }
            self.windows_by_hour.entry(hour).or_default().insert((key, producer));
        }
    }

    /// Forgets windows that have been still for [`WINDOW_EXPIRY_MS`], some at a time.
    pub(super) fn expire_windows(&mut self, time: TimestampMs) {
        let Some(last_kept_hour) = (time.0 / HOUR_MS).checked_sub(WINDOW_EXPIRY_MS / HOUR_MS)
        else {
            return;
        };
        for _ in 0..EXPIRED_PER_ENTRY_MAX {
            let Some((&hour, windows)) = self.windows_by_hour.first_key_value() else { return };
            if hour >= last_kept_hour {
                return;
            }
            let Some(&(key, producer)) = windows.first() else { return };
            self.forget_hour(hour, key, producer);
            self.touch(&PartKey::Window(key, producer));
            let window =
                self.queues.get_mut(&key).and_then(|queue| queue.windows.remove(&producer));
            if let Some(window) = window {
                self.windows -= 1;
                self.forget_part(PartKey::Window(key, producer), window.clean_hash());
            }
        }
    }

    /// Takes a window that is gone out of the order of expiry.
    pub(super) fn forget_window_hour(
        &mut self,
        key: QueueKey,
        producer: ProducerId,
        last_stored: TimestampMs,
    ) {
        self.forget_hour(last_stored.0 / HOUR_MS, key, producer);
    }

    fn forget_hour(&mut self, hour: u64, key: QueueKey, producer: ProducerId) {
        if let Some(windows) = self.windows_by_hour.get_mut(&hour) {
            windows.remove(&(key, producer));
            if windows.is_empty() {
                self.windows_by_hour.remove(&hour);
            }
        }
    }

    pub(super) fn apply_init_producer(
        &mut self,
        time: TimestampMs,
        name: Option<ProducerName>,
        salt: u16,
    ) -> Result<InitializedProducer, Refusal> {
        let Some(name) = name else {
            return Ok(self.new_producer(salt));
        };
        self.touch(&PartKey::NamedProducer(name.clone()));
        if let Some(known) = self.named_producers.get_mut(&name) {
            let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
            let known = known.change(|hash| {
                *digest ^= hash;
                dirty.insert(PartKey::NamedProducer(name));
            });
            known.epoch = ProducerEpoch(known.epoch.0.saturating_add(1));
            known.asked = time;
            self.epochs.insert(known.producer, known.epoch);
            return Ok(InitializedProducer { producer: known.producer, epoch: known.epoch });
        }
        if self.named_producers.len() >= NAMED_PRODUCERS_MAX {
            self.expire_named_producers(time);
        }
        if self.named_producers.len() >= NAMED_PRODUCERS_MAX {
            return Err(Refusal::Limit { what: "named producers", limit: NAMED_PRODUCERS_MAX });
        }
        let given = self.new_producer(salt);
        let named = NamedProducer { producer: given.producer, epoch: given.epoch, asked: time };
        self.dirty.insert(PartKey::NamedProducer(name.clone()));
        self.named_producers.insert(name, Tracked::unsaved(named));
        self.epochs.insert(given.producer, given.epoch);
        Ok(given)
    }

    /// Whether the shard has given an identity since its log began.
    pub fn has_given_identities(&self) -> bool {
        self.numbers.get().next_producer != first_producer(self.shard, 0)
    }

    fn new_producer(&mut self, salt: u16) -> InitializedProducer {
        let (shard, is_first) = (self.shard, !self.has_given_identities());
        let numbers = self.change_numbers();
        if is_first {
            numbers.next_producer = first_producer(shard, salt);
        }
        let producer = ProducerId(numbers.next_producer);
        numbers.next_producer += 1;
        InitializedProducer { producer, epoch: ProducerEpoch(0) }
    }

    fn expire_named_producers(&mut self, time: TimestampMs) {
        let due = time.0.saturating_sub(NAMED_PRODUCER_EXPIRY_MS);
        let over: Vec<ProducerName> = self
            .named_producers
            .iter()
            .filter(|(_, named)| named.get().asked.0 < due)
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            self.touch(&PartKey::NamedProducer(name.clone()));
            let Some(named) = self.named_producers.remove(&name) else { continue };
            self.epochs.remove(&named.get().producer);
            self.forget_part(PartKey::NamedProducer(name), named.clean_hash());
        }
    }
}

//! Items about scheduled messages, as bytes. Little endian; reserved bytes are 0.
//!
//! | kind | item | layout |
//! |---|---|---|
//! | 80 | Schedule | version u8, flags u8 (bit 0: with a dedup key; bit 1: a run that it begins is saved by columns, not set by earlier builds), 2 reserved bytes, queue u32, topic u64, dedup key 16 bytes (0 without), due times u32, 4 reserved bytes, then that many due times u64 (one for all records, or one for each), then the batch as it came |
//! | 81 | Release | version u8, 3 reserved bytes, queue u32, topic u64, batches u32, 4 reserved bytes, then per batch: index u64 and place u32 of its first timer, timers u32, length u32, 4 reserved bytes, the batch |
//! | 82 | Recall | version u8, 3 reserved bytes, queue u32, topic u64, index u64, place u32 of the timer |
//! | 83 | Roll | version u8, 3 reserved bytes, queue u32, topic u64, index u64, place u32 of the batch's first timer, 4 reserved bytes, then the batch as it was |

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{QueueId, QueueKey, TimestampMs, TopicId};

use super::{Command, DedupKey, VERSION};
use crate::codec::{CodecError, Decoder};
use crate::timers::TimerId;
use crate::timers::run::{BATCH_TIMERS_MAX, RunForm};

/// Item kind of [`Command::Schedule`].
pub const KIND_SCHEDULE: u16 = 80;
/// Item kind of [`Command::Release`].
pub const KIND_RELEASE: u16 = 81;
/// Item kind of [`Command::Recall`].
pub const KIND_RECALL: u16 = 82;
/// Item kind of [`Command::Roll`].
pub const KIND_ROLL: u16 = 83;

/// Bytes before the batch in a Roll item.
pub const ROLL_HEADER_BYTES: u32 = 32;
/// Most batches in a Release item.
pub const RELEASE_BATCHES_MAX: u32 = 65_536;

const SCHEDULE_HEADER_BYTES: u32 = 40;
/// Bytes before the first batch of a Release item.
pub const RELEASE_HEADER_BYTES: u32 = 24;
/// Bytes before each batch in a Release item.
pub const RELEASED_HEADER_BYTES: u32 = 24;
const FLAG_DEDUP_KEY: u8 = 1;
const FLAG_COLUMNS: u8 = 2;

/// A batch to be stored whose records are seen when they are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduling {
    /// The queue.
    pub queue: QueueKey,
    /// A key by which it is stored once.
    pub key: Option<DedupKey>,
    /// When its records are due: one time for all, or one for each, in order.
    pub due: Vec<TimestampMs>,
    /// How a run is saved that begins with it: by columns, but in items of earlier builds.
    pub form: RunForm,
    /// The batch, byte for byte as its producer encoded it.
    pub batch: Bytes,
}

/// Messages of one batch that are due together, as the queue will have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedBatch {
    /// The timer of the first of them.
    pub timer: TimerId,
    /// How many, one behind the other; as many as the batch has records.
    pub timers: u32,
    /// The batch.
    pub batch: Bytes,
}

impl Scheduling {
    /// One of this build.
    #[must_use]
    pub const fn new(
        queue: QueueKey,
        key: Option<DedupKey>,
        due: Vec<TimestampMs>,
        batch: Bytes,
    ) -> Self {
        Self { queue, key, due, form: RunForm::Columns, batch }
    }

    /// Bytes before the batch in the item.
    #[must_use]
    pub fn header_bytes(&self) -> u32 {
        let due = u32::try_from(self.due.len()).expect("due times are bounded by records");
        SCHEDULE_HEADER_BYTES + 8 * due
    }

    pub(super) fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::with_capacity(self.header_bytes() as usize);
        out.put_u8(VERSION);
        let keyed = if self.key.is_some() { FLAG_DEDUP_KEY } else { 0 };
        out.put_u8(match self.form {
            RunForm::Rows => keyed,
            RunForm::Columns => keyed | FLAG_COLUMNS,
        });
        out.put_bytes(0, 2);
        put_queue(&mut out, self.queue);
        out.put_slice(&self.key.map_or([0; 16], |key| key.0));
        out.put_u32_le(u32::try_from(self.due.len()).expect("due times are bounded by records"));
        out.put_bytes(0, 4);
        self.due.iter().for_each(|due| out.put_u64_le(due.0));
        vec![out.freeze(), self.batch.clone()]
    }

    pub(super) fn decode(mut decoder: Decoder) -> Result<Self, CodecError> {
        let flags = decoder.u8()?;
        decoder.take(2)?;
        let queue = queue_of(&mut decoder)?;
        let mut key = [0; 16];
        key.copy_from_slice(&decoder.take(16)?);
        let form = if flags & FLAG_COLUMNS == 0 { RunForm::Rows } else { RunForm::Columns };
        let key = match flags & !FLAG_COLUMNS {
            0 if key == [0; 16] => None,
            FLAG_DEDUP_KEY => Some(DedupKey(key)),
            _ => return Err(CodecError::Value("flags of a schedule")),
        };
        let count = decoder.u32()? as usize;
        decoder.take(4)?;
        if !(1..=BATCH_TIMERS_MAX).contains(&count) {
            return Err(CodecError::Value("due times"));
        }
        let times = decoder.take(count * 8)?;
        let time = |bytes: &[u8]| {
            let mut time = [0; 8];
            time.copy_from_slice(bytes);
            TimestampMs(u64::from_le_bytes(time))
        };
        let due = times.chunks_exact(8).map(time).collect();
        Ok(Self { queue, key, due, form, batch: decoder.rest() })
    }
}

pub(super) fn encode_release(queue: QueueKey, batches: &[ReleasedBatch]) -> Vec<Bytes> {
    let heads = RELEASE_HEADER_BYTES as usize + batches.len() * RELEASED_HEADER_BYTES as usize;
    let mut out = BytesMut::with_capacity(heads);
    out.put_u8(VERSION);
    out.put_bytes(0, 3);
    put_queue(&mut out, queue);
    out.put_u32_le(u32::try_from(batches.len()).expect("releases are bounded"));
    out.put_bytes(0, 4);
    let mut slices = Vec::with_capacity(1 + 2 * batches.len());
    for released in batches {
        put_timer(&mut out, released.timer);
        out.put_u32_le(released.timers);
        out.put_u32_le(
            u32::try_from(released.batch.len()).expect("a batch has a length of 32 bits"),
        );
        out.put_bytes(0, 4);
        slices.push(out.split().freeze());
        slices.push(released.batch.clone());
    }
    if batches.is_empty() {
        slices.push(out.freeze());
    }
    slices
}

pub(super) fn decode_release(mut decoder: Decoder) -> Result<Command, CodecError> {
    decoder.take(3)?;
    let queue = queue_of(&mut decoder)?;
    let count = decoder.u32()?;
    decoder.take(4)?;
    if count > RELEASE_BATCHES_MAX {
        return Err(CodecError::Value("released batches"));
    }
    let mut batches = Vec::new();
    for _ in 0..count {
        let timer = timer_of(&mut decoder)?;
        let timers = decoder.u32()?;
        let length = decoder.u32()? as usize;
        decoder.take(4)?;
        batches.push(ReleasedBatch { timer, timers, batch: decoder.take(length)? });
    }
    decoder.finish()?;
    Ok(Command::Release { queue, batches })
}

/// Where each batch of a Release item begins in it.
pub(crate) fn release_places(batches: &[ReleasedBatch]) -> impl Iterator<Item = u32> + '_ {
    batches.iter().scan(RELEASE_HEADER_BYTES, |end, released| {
        let place = *end + RELEASED_HEADER_BYTES;
        *end = place + u32::try_from(released.batch.len()).ok()?;
        Some(place)
    })
}

pub(super) fn encode_recall(queue: QueueKey, timer: TimerId) -> Vec<Bytes> {
    let mut out = BytesMut::with_capacity(28);
    out.put_u8(VERSION);
    out.put_bytes(0, 3);
    put_queue(&mut out, queue);
    put_timer(&mut out, timer);
    vec![out.freeze()]
}

pub(super) fn decode_recall(mut decoder: Decoder) -> Result<Command, CodecError> {
    decoder.take(3)?;
    let queue = queue_of(&mut decoder)?;
    let timer = timer_of(&mut decoder)?;
    decoder.finish()?;
    Ok(Command::Recall { queue, timer })
}

pub(super) fn encode_roll(queue: QueueKey, timer: TimerId, batch: &Bytes) -> Vec<Bytes> {
    let mut out = BytesMut::with_capacity(ROLL_HEADER_BYTES as usize);
    out.put_u8(VERSION);
    out.put_bytes(0, 3);
    put_queue(&mut out, queue);
    put_timer(&mut out, timer);
    out.put_bytes(0, 4);
    vec![out.freeze(), batch.clone()]
}

pub(super) fn decode_roll(mut decoder: Decoder) -> Result<Command, CodecError> {
    decoder.take(3)?;
    let queue = queue_of(&mut decoder)?;
    let timer = timer_of(&mut decoder)?;
    decoder.take(4)?;
    Ok(Command::Roll { queue, timer, batch: decoder.rest() })
}

fn put_queue(out: &mut BytesMut, queue: QueueKey) {
    out.put_u32_le(queue.queue.0);
    out.put_u64_le(queue.topic.0);
}

fn queue_of(decoder: &mut Decoder) -> Result<QueueKey, CodecError> {
    let queue = QueueId(decoder.u32()?);
    Ok(QueueKey { topic: TopicId(decoder.u64()?), queue })
}

fn put_timer(out: &mut BytesMut, timer: TimerId) {
    out.put_u64_le(timer.index);
    out.put_u32_le(timer.place);
}

fn timer_of(decoder: &mut Decoder) -> Result<TimerId, CodecError> {
    Ok(TimerId { index: decoder.u64()?, place: decoder.u32()? })
}

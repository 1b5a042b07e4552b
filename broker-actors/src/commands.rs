//! The words of a shard's log: what its state machine is told, and how that is written down.
//!
//! Each item of an entry has a kind (below 64 they are consensus's own, see `grus-consensus`) and
//! bytes. All numbers are little endian. Every layout opens with its version, and an unknown kind
//! or version stops the replica: it must not guess what its peers have applied.
//!
//! | kind | item | layout |
//! |---|---|---|
//! | 64 | Append | version u8, 3 reserved bytes (0), queue u32, topic u64, then the batch as it came |
//! | 65 | TopicConfig | version u8 (4; 3 where nothing else than the oldest going is said of caps, and no cap by messages; 2 where besides it is not known when it was altered), kind u8, durability u8, 1 reserved byte, topic u64, retention ms u64, retention bytes u64, name (u16 length, bytes), count u32, queues u32 each, dedup window ms u64 (not in version 1: the default), altered ms u64 (from version 3 on), retention messages u64, when full u8 (from version 4 on) |
//! | 66 | TopicDrop | version u8, 7 reserved bytes, topic u64 |
//! | 67 | InitProducer | version u8 (2; 1 without a salt), named u8, salt u16 (from version 2 on), name (u16 length, bytes) |
//! | 68 | Retain | version u8, 3 reserved bytes, count u32, then per queue: topic u64, queue u32, first offset kept u64, bytes given up u64 |
//! | 69 | AppendOnce | version u8, 3 reserved bytes (0), queue u32, topic u64, dedup key 16 bytes, then the batch as it came |
//! | 70 | Fence | version u8, 3 reserved bytes (0), epoch u32, producer u64 |
//! | 80 | Schedule | see [`delay`] |
//! | 81 | Release | see [`delay`] |
//! | 82 | Recall | see [`delay`] |
//! | 83 | Roll | see [`delay`] |
//! | 84 to 87 | Recurring | see [`recurring`] |
//! | 90 to 98 | Group | see [`groups`] |
//!
//! Kinds 88 and 89 are kept for schedules, 99 and 110 to 127 for groups, 100 to 109 for replicas.

pub mod coordination;
pub mod delay;
mod group_parts;
pub mod groups;
pub mod recurring;
mod topic;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{Offset, ProducerEpoch, ProducerId, QueueId, QueueKey, TopicId};
use grus_protocol::names::ProducerName;

use crate::codec::{CodecError, Decoder, put_text};
use crate::timers::TimerId;
use delay::{KIND_RECALL, KIND_RELEASE, KIND_ROLL, KIND_SCHEDULE, ReleasedBatch, Scheduling};
use groups::{GroupItem, KIND_CLAIM, KIND_HAND_BACK};
use recurring::{KIND_SCHEDULE_CREATE, KIND_SCHEDULE_RUN, Recurring};
pub use topic::TopicConfig;
pub(crate) use topic::{decode_topic_config, encode_topic_config};

/// Item kind of [`Command::Append`].
pub const KIND_APPEND: u16 = 64;
/// Item kind of [`Command::TopicConfig`].
pub const KIND_TOPIC_CONFIG: u16 = 65;
/// Item kind of [`Command::TopicDrop`].
pub const KIND_TOPIC_DROP: u16 = 66;
/// Item kind of [`Command::InitProducer`].
pub const KIND_INIT_PRODUCER: u16 = 67;
/// Item kind of [`Command::Retain`].
pub const KIND_RETAIN: u16 = 68;

/// Item kind of [`Command::AppendOnce`].
pub const KIND_APPEND_ONCE: u16 = 69;
/// Item kind of [`Command::Fence`].
pub const KIND_FENCE: u16 = 70;
/// Whether an item of this kind can be read.
#[must_use]
pub const fn is_known(kind: u16) -> bool {
    matches!(
        kind,
        KIND_APPEND..=KIND_FENCE | KIND_SCHEDULE..=KIND_SCHEDULE_RUN | KIND_CLAIM..=KIND_HAND_BACK
    )
}

/// Bytes before the batch in an Append item: a batch lies at the item's position plus this.
pub const APPEND_HEADER_BYTES: u32 = 16;
/// Bytes before the batch in an AppendOnce item.
pub const APPEND_ONCE_HEADER_BYTES: u32 = 32;
/// Most queues named by one TopicConfig or Retain item.
pub const ITEM_QUEUES_MAX: u32 = 100_000;

pub(crate) const VERSION: u8 = 1;
/// Of an [`Command::InitProducer`] with a salt.
const VERSION_SALTED: u8 = 2;

/// A dedup key as the log has it: the XXH3-128 hash of what the producer gave, so that long keys
/// cost no more than short ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DedupKey(pub [u8; 16]);

impl DedupKey {
    /// The hash of what a producer gave.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(key).to_le_bytes())
    }
}

/// A queue's new start, decided by the leader's retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainQueue {
    /// The queue.
    pub queue: QueueKey,
    /// The first offset that stays visible.
    pub start: Offset,
    /// Bytes of the batches given up.
    pub bytes_given_up: u64,
}

/// One item of an entry, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Append a record batch to a queue.
    Append {
        /// The queue.
        queue: QueueKey,
        /// The batch, byte for byte as its producer encoded it.
        batch: Bytes,
    },
    /// Create a topic's queues in this shard, add queues, or change settings.
    TopicConfig(TopicConfig),
    /// Forget a topic: its queues, their producers, their index.
    TopicDrop {
        /// The incarnation to forget.
        topic: TopicId,
    },
    /// Give a producer its id and epoch.
    InitProducer {
        /// A named producer keeps its id and raises its epoch, which fences the older one.
        name: Option<ProducerName>,
        /// Drawn for the ids that the shard gives, if this is the first; 0: nothing was drawn.
        salt: u16,
    },
    /// Move the start of queues.
    Retain(Vec<RetainQueue>),
    /// Append a record batch to a queue, unless its key was stored there within the window.
    AppendOnce {
        /// The queue.
        queue: QueueKey,
        /// The key of all its records.
        key: DedupKey,
        /// The batch, byte for byte as its producer encoded it.
        batch: Bytes,
    },
    /// Refuse a producer's batches of an epoch below this one. The producer is another shard's.
    Fence {
        /// The producer.
        producer: ProducerId,
        /// Its newest epoch.
        epoch: ProducerEpoch,
    },
    /// Store a record batch whose records are seen when they are due.
    Schedule(Scheduling),
    /// Let scheduled messages be seen: their time has come.
    Release {
        /// The queue they are for.
        queue: QueueKey,
        /// The messages, in the order in which they get their offsets.
        batches: Vec<ReleasedBatch>,
    },
    /// Take a scheduled message back, unless it was released.
    Recall {
        /// The queue it is for.
        queue: QueueKey,
        /// Which.
        timer: TimerId,
    },
    /// Carry a scheduled batch on: the entry where it lies is about to go.
    Roll {
        /// The queue it is for.
        queue: QueueKey,
        /// The timer of its first record.
        timer: TimerId,
        /// The batch, byte for byte as it was.
        batch: Bytes,
    },
    /// Something about a schedule of recurring messages.
    Recurring(Recurring),
    /// Something about a consumer group.
    Group(GroupItem),
}

impl Command {
    /// The item kind this command is written under.
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Append { .. } => KIND_APPEND,
            Self::TopicConfig(_) => KIND_TOPIC_CONFIG,
            Self::TopicDrop { .. } => KIND_TOPIC_DROP,
            Self::InitProducer { .. } => KIND_INIT_PRODUCER,
            Self::Retain(_) => KIND_RETAIN,
            Self::AppendOnce { .. } => KIND_APPEND_ONCE,
            Self::Fence { .. } => KIND_FENCE,
            Self::Schedule(_) => KIND_SCHEDULE,
            Self::Release { .. } => KIND_RELEASE,
            Self::Recall { .. } => KIND_RECALL,
            Self::Roll { .. } => KIND_ROLL,
            Self::Recurring(item) => item.kind(),
            Self::Group(item) => item.kind(),
        }
    }

    /// The item's bytes as slices to be gathered: a batch is not copied here.
    pub fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::new();
        if let Self::TopicConfig(config) = self {
            encode_topic_config(config, &mut out);
            return vec![out.freeze()];
        }
        if let Self::InitProducer { name, salt } = self {
            encode_init_producer(name.as_ref(), *salt, &mut out);
            return vec![out.freeze()];
        }
        out.put_u8(VERSION);
        match self {
            Self::Append { queue, batch } => {
                put_append(&mut out, *queue);
                return vec![out.freeze(), batch.clone()];
            }
            Self::AppendOnce { queue, key, batch } => {
                put_append(&mut out, *queue);
                out.put_slice(&key.0);
                return vec![out.freeze(), batch.clone()];
            }
            Self::Fence { producer, epoch } => {
                out.put_bytes(0, 3);
                out.put_u32_le(epoch.0);
                out.put_u64_le(producer.0);
            }
            Self::Schedule(scheduling) => return scheduling.encode(),
            Self::Release { queue, batches } => return delay::encode_release(*queue, batches),
            Self::Recall { queue, timer } => return delay::encode_recall(*queue, *timer),
            Self::Roll { queue, timer, batch } => {
                return delay::encode_roll(*queue, *timer, batch);
            }
            Self::Recurring(item) => return item.encode(),
            Self::Group(item) => return item.encode(),
            Self::TopicConfig(_) | Self::InitProducer { .. } => {}
            Self::TopicDrop { topic } => {
                out.put_bytes(0, 7);
                out.put_u64_le(topic.0);
            }
            Self::Retain(queues) => encode_retain(queues, &mut out),
        }
        vec![out.freeze()]
    }

    /// Reads an item back.
    ///
    /// # Errors
    /// When the kind or version is unknown, or the bytes do not fit the layout.
    pub fn decode(kind: u16, bytes: Bytes) -> Result<Self, CodecError> {
        if !is_known(kind) {
            return Err(CodecError::Kind(kind));
        }
        let mut decoder = Decoder::new(bytes);
        if kind == KIND_TOPIC_CONFIG {
            return decode_topic_config(decoder).map(Self::TopicConfig);
        }
        if kind == KIND_INIT_PRODUCER {
            return decode_init_producer(decoder);
        }
        decoder.version(VERSION)?;
        match kind {
            KIND_APPEND => decode_append(decoder),
            KIND_APPEND_ONCE => decode_append_once(decoder),
            KIND_FENCE => {
                decoder.take(3)?;
                let epoch = ProducerEpoch(decoder.u32()?);
                let producer = ProducerId(decoder.u64()?);
                decoder.finish()?;
                Ok(Self::Fence { producer, epoch })
            }
            KIND_TOPIC_DROP => {
                decoder.take(7)?;
                let topic = TopicId(decoder.u64()?);
                decoder.finish()?;
                Ok(Self::TopicDrop { topic })
            }
            KIND_SCHEDULE => Scheduling::decode(decoder).map(Self::Schedule),
            KIND_RELEASE => delay::decode_release(decoder),
            KIND_RECALL => delay::decode_recall(decoder),
            KIND_ROLL => delay::decode_roll(decoder),
            KIND_SCHEDULE_CREATE..=KIND_SCHEDULE_RUN => {
                Recurring::decode(kind, decoder).map(Self::Recurring)
            }
            KIND_CLAIM..=KIND_HAND_BACK => GroupItem::decode(kind, decoder).map(Self::Group),
            _ => decode_retain(decoder).map(Self::Retain),
        }
    }
}

fn put_append(out: &mut BytesMut, queue: QueueKey) {
    out.put_bytes(0, 3);
    out.put_u32_le(queue.queue.0);
    out.put_u64_le(queue.topic.0);
}

fn decode_append(mut decoder: Decoder) -> Result<Command, CodecError> {
    decoder.take(3)?;
    let queue = QueueId(decoder.u32()?);
    let topic = TopicId(decoder.u64()?);
    Ok(Command::Append { queue: QueueKey { topic, queue }, batch: decoder.rest() })
}

fn decode_append_once(mut decoder: Decoder) -> Result<Command, CodecError> {
    decoder.take(3)?;
    let queue = QueueId(decoder.u32()?);
    let topic = TopicId(decoder.u64()?);
    let mut key = [0; 16];
    key.copy_from_slice(&decoder.take(16)?);
    let queue = QueueKey { topic, queue };
    Ok(Command::AppendOnce { queue, key: DedupKey(key), batch: decoder.rest() })
}

/// Without a salt as it was before there were any: it is written as it was read.
fn encode_init_producer(name: Option<&ProducerName>, salt: u16, out: &mut BytesMut) {
    out.put_u8(if salt == 0 { VERSION } else { VERSION_SALTED });
    out.put_u8(u8::from(name.is_some()));
    if salt != 0 {
        out.put_u16_le(salt);
    }
    put_text(out, name.map_or("", ProducerName::as_str));
}

fn decode_init_producer(mut decoder: Decoder) -> Result<Command, CodecError> {
    let version = decoder.u8()?;
    if version != VERSION && version != VERSION_SALTED {
        return Err(CodecError::Version(version));
    }
    let named = decoder.u8()?;
    let salt = if version == VERSION_SALTED { decoder.u16()? } else { 0 };
    if version == VERSION_SALTED && salt == 0 {
        return Err(CodecError::Value("salt"));
    }
    let name = decoder.text("producer name")?;
    decoder.finish()?;
    match named {
        0 if name.is_empty() => Ok(Command::InitProducer { name: None, salt }),
        1 => match ProducerName::try_from(name.as_str()) {
            Ok(name) => Ok(Command::InitProducer { name: Some(name), salt }),
            Err(_) => Err(CodecError::Value("producer name")),
        },
        _ => Err(CodecError::Value("producer name")),
    }
}

fn encode_retain(queues: &[RetainQueue], out: &mut BytesMut) {
    out.put_bytes(0, 3);
    out.put_u32_le(u32::try_from(queues.len()).expect("queues of a shard are bounded"));
    for retain in queues {
        out.put_u64_le(retain.queue.topic.0);
        out.put_u32_le(retain.queue.queue.0);
        out.put_u64_le(retain.start.0);
        out.put_u64_le(retain.bytes_given_up);
    }
}

fn decode_retain(mut decoder: Decoder) -> Result<Vec<RetainQueue>, CodecError> {
    decoder.take(3)?;
    let count = decoder.u32()?;
    if count > ITEM_QUEUES_MAX {
        return Err(CodecError::Value("queue count"));
    }
    let mut queues = Vec::new();
    for _ in 0..count {
        let topic = TopicId(decoder.u64()?);
        let queue = QueueId(decoder.u32()?);
        let start = Offset(decoder.u64()?);
        let bytes_given_up = decoder.u64()?;
        queues.push(RetainQueue { queue: QueueKey { topic, queue }, start, bytes_given_up });
    }
    decoder.finish()?;
    Ok(queues)
}

#[cfg(test)]
pub(crate) mod group_examples;
#[cfg(test)]
pub(crate) mod tests;

//! The words of a shard's log: what its state machine is told, and how that is written down.
//!
//! Each item of an entry has a kind (below 64 they are consensus's own, see `grus-consensus`) and
//! bytes. All numbers are little endian. Every layout opens with its version, and an unknown kind
//! or version stops the replica: it must not guess what its peers have applied.
//!
//! | kind | item | layout |
//! |---|---|---|
//! | 64 | Append | version u8, 3 reserved bytes (0), queue u32, topic u64, then the batch as it came |
//! | 65 | TopicConfig | version u8 (2), kind u8, durability u8, 1 reserved byte, topic u64, retention ms u64, retention bytes u64, name (u16 length, bytes), count u32, queues u32 each, dedup window ms u64 (not in version 1: the default) |
//! | 66 | TopicDrop | version u8, 7 reserved bytes, topic u64 |
//! | 67 | InitProducer | version u8, named u8, name (u16 length, bytes) |
//! | 68 | Retain | version u8, 3 reserved bytes, count u32, then per queue: topic u64, queue u32, first offset kept u64, bytes given up u64 |
//! | 69 | AppendOnce | version u8, 3 reserved bytes (0), queue u32, topic u64, dedup key 16 bytes, then the batch as it came |
//! | 70 | Fence | version u8, 3 reserved bytes (0), epoch u32, producer u64 |
//!
//! Kinds 80 to 95 are kept for timers, 96 to 127 for groups and acknowledgements.

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{
    Durability, Offset, ProducerEpoch, ProducerId, QueueId, QueueKey, TopicId,
};
use grus_protocol::message::DEDUP_WINDOW_MS_DEFAULT;
use grus_protocol::names::{ProducerName, TopicName};

use crate::codec::{CodecError, Decoder, put_text};

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
/// The highest item kind there is.
pub const KIND_LAST: u16 = KIND_FENCE;

/// Bytes before the batch in an Append item: a batch lies at the item's position plus this.
pub const APPEND_HEADER_BYTES: u32 = 16;
/// Bytes before the batch in an AppendOnce item.
pub const APPEND_ONCE_HEADER_BYTES: u32 = 32;
/// Most queues named by one TopicConfig or Retain item.
pub const ITEM_QUEUES_MAX: u32 = 100_000;

const VERSION: u8 = 1;
/// Of a TopicConfig item, and of a topic's part in a checkpoint.
const TOPIC_CONFIG_VERSION: u8 = 2;

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

/// What a topic is to one shard: the part of its settings that apply needs, as an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// The topic's incarnation.
    pub topic: TopicId,
    /// Its name, for people and for listings.
    pub name: TopicName,
    /// The queues of the topic that this shard hosts, ascending.
    pub queues: Vec<QueueId>,
    /// The level its receipts name; equal to the shard's.
    pub durability: Durability,
    /// Messages older than this (milliseconds since they were stored) go; 0 keeps them for ever.
    pub retention_ms: u64,
    /// Bytes kept per queue; 0 means no bound.
    pub retention_bytes: u64,
    /// The registry's number for the kind of topic (normal, delayed and so on).
    pub kind: u8,
    /// How long a dedup key is remembered, in milliseconds; 0: messages with one are refused.
    pub dedup_window_ms: u64,
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
        }
    }

    /// The item's bytes as slices to be gathered: a batch is not copied here.
    pub fn encode(&self) -> Vec<Bytes> {
        let mut out = BytesMut::new();
        if let Self::TopicConfig(config) = self {
            encode_topic_config(config, &mut out);
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
            Self::TopicConfig(_) => {}
            Self::TopicDrop { topic } => {
                out.put_bytes(0, 7);
                out.put_u64_le(topic.0);
            }
            Self::InitProducer { name } => {
                out.put_u8(u8::from(name.is_some()));
                put_text(&mut out, name.as_ref().map_or("", ProducerName::as_str));
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
        if !(KIND_APPEND..=KIND_LAST).contains(&kind) {
            return Err(CodecError::Kind(kind));
        }
        let mut decoder = Decoder::new(bytes);
        if kind == KIND_TOPIC_CONFIG {
            return decode_topic_config(decoder).map(Self::TopicConfig);
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
            KIND_INIT_PRODUCER => decode_init_producer(decoder),
            _ => decode_retain(decoder).map(Self::Retain),
        }
    }
}

/// Writes the item; also the value of a topic's part in a checkpoint.
pub(crate) fn encode_topic_config(config: &TopicConfig, out: &mut BytesMut) {
    out.put_u8(TOPIC_CONFIG_VERSION);
    out.put_u8(config.kind);
    out.put_u8(durability_code(config.durability));
    out.put_u8(0);
    out.put_u64_le(config.topic.0);
    out.put_u64_le(config.retention_ms);
    out.put_u64_le(config.retention_bytes);
    put_text(out, config.name.as_str());
    let count = u32::try_from(config.queues.len()).expect("queues of a topic are bounded");
    out.put_u32_le(count);
    for queue in &config.queues {
        out.put_u32_le(queue.0);
    }
    out.put_u64_le(config.dedup_window_ms);
}

fn put_append(out: &mut BytesMut, queue: QueueKey) {
    out.put_bytes(0, 3);
    out.put_u32_le(queue.queue.0);
    out.put_u64_le(queue.topic.0);
}

/// Reads what [`encode_topic_config`] wrote.
pub(crate) fn decode_topic_config(mut decoder: Decoder) -> Result<TopicConfig, CodecError> {
    let version = decoder.u8()?;
    if !(1..=TOPIC_CONFIG_VERSION).contains(&version) {
        return Err(CodecError::Version(version));
    }
    let kind = decoder.u8()?;
    let durability = durability_of(decoder.u8()?)?;
    decoder.u8()?;
    let topic = TopicId(decoder.u64()?);
    let retention_ms = decoder.u64()?;
    let retention_bytes = decoder.u64()?;
    let name = topic_name(&decoder.text("topic name")?)?;
    let count = decoder.u32()?;
    if count > ITEM_QUEUES_MAX {
        return Err(CodecError::Value("queue count"));
    }
    let mut queues = Vec::new();
    for _ in 0..count {
        queues.push(QueueId(decoder.u32()?));
    }
    let dedup_window_ms = if version == 1 { DEDUP_WINDOW_MS_DEFAULT } else { decoder.u64()? };
    decoder.finish()?;
    Ok(TopicConfig {
        topic,
        name,
        queues,
        durability,
        retention_ms,
        retention_bytes,
        kind,
        dedup_window_ms,
    })
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

fn decode_init_producer(mut decoder: Decoder) -> Result<Command, CodecError> {
    let named = decoder.u8()?;
    let name = decoder.text("producer name")?;
    decoder.finish()?;
    match named {
        0 if name.is_empty() => Ok(Command::InitProducer { name: None }),
        1 => match ProducerName::try_from(name.as_str()) {
            Ok(name) => Ok(Command::InitProducer { name: Some(name) }),
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

const fn durability_code(durability: Durability) -> u8 {
    match durability {
        Durability::Persisted => 0,
        Durability::Replicated => 1,
    }
}

const fn durability_of(code: u8) -> Result<Durability, CodecError> {
    match code {
        0 => Ok(Durability::Persisted),
        1 => Ok(Durability::Replicated),
        _ => Err(CodecError::Value("durability")),
    }
}

/// A name out of the log: a user's, or a system name with its `%WORD%` prefix.
fn topic_name(text: &str) -> Result<TopicName, CodecError> {
    TopicName::parse_any(text).map_err(|_| CodecError::Value("topic name"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn joined(command: &Command) -> Bytes {
        command.encode().concat().into()
    }

    fn config() -> TopicConfig {
        TopicConfig {
            topic: TopicId(7),
            name: TopicName::try_from("orders").unwrap(),
            queues: vec![QueueId(0), QueueId(3)],
            durability: Durability::Replicated,
            retention_ms: 1_000,
            retention_bytes: 1 << 40,
            kind: 2,
            dedup_window_ms: 600_000,
        }
    }

    pub(crate) fn examples() -> Vec<Command> {
        let queue = QueueKey { topic: TopicId(7), queue: QueueId(3) };
        vec![
            Command::Append { queue, batch: Bytes::from_static(b"the batch") },
            Command::TopicConfig(config()),
            Command::TopicDrop { topic: TopicId(u64::MAX) },
            Command::InitProducer { name: None },
            Command::InitProducer { name: Some(ProducerName::try_from("billing").unwrap()) },
            Command::Retain(vec![RetainQueue { queue, start: Offset(9), bytes_given_up: 4096 }]),
            Command::AppendOnce {
                queue,
                key: DedupKey::of(b"order-7"),
                batch: Bytes::from_static(b"the batch"),
            },
            Command::Fence { producer: ProducerId(1 << 48 | 5), epoch: ProducerEpoch(3) },
        ]
    }

    #[test]
    fn every_command_reads_back_as_it_was_written() {
        for command in examples() {
            let bytes = joined(&command);
            assert_eq!(Command::decode(command.kind(), bytes), Ok(command));
        }
    }

    #[test]
    fn the_batch_of_an_append_lies_untouched_behind_its_fixed_header() {
        let bytes = joined(&examples()[0]);
        assert_eq!(&bytes[APPEND_HEADER_BYTES as usize..], b"the batch");
        let bytes = joined(&examples()[6]);
        assert_eq!(&bytes[APPEND_ONCE_HEADER_BYTES as usize..], b"the batch");
    }

    #[test]
    fn bytes_that_end_early_are_refused_at_every_length() {
        for command in examples() {
            let bytes = joined(&command);
            let least = match command {
                Command::Append { .. } => APPEND_HEADER_BYTES as usize,
                Command::AppendOnce { .. } => APPEND_ONCE_HEADER_BYTES as usize,
                _ => bytes.len(),
            };
            for length in 0..least {
                let cut = bytes.slice(..length);
                assert!(Command::decode(command.kind(), cut).is_err(), "{command:?} at {length}");
            }
        }
    }

    #[test]
    fn unknown_kinds_and_versions_are_named() {
        let bytes = joined(&Command::TopicDrop { topic: TopicId(1) });
        assert_eq!(Command::decode(200, bytes.clone()), Err(CodecError::Kind(200)));
        let mut newer = bytes.to_vec();
        newer[0] = 9;
        let newer = Command::decode(KIND_TOPIC_DROP, newer.into());
        assert_eq!(newer, Err(CodecError::Version(9)));
    }

    #[test]
    fn a_count_that_lies_allocates_nothing_and_is_refused() {
        let mut bytes = joined(&Command::Retain(Vec::new())).to_vec();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let refused = Command::decode(KIND_RETAIN, bytes.into());
        assert_eq!(refused, Err(CodecError::Value("queue count")));
    }

    #[test]
    fn golden_bytes_of_the_items() {
        let hex = |command: &Command| {
            let digits =
                joined(command).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
            digits.concat()
        };
        let all = examples();
        assert_eq!(hex(&all[0]), "01000000030000000700000000000000746865206261746368");
        assert_eq!(
            hex(&all[1]),
            "020201000700000000000000e803000000000000000000000001000006006f7264657273\
             020000000000000003000000c027090000000000"
        );
        let first_version = "010201000700000000000000e803000000000000000000000001000006006f7264657273\
             020000000000000003000000";
        let first_version: Vec<u8> = (0..first_version.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&first_version[at..at + 2], 16).unwrap())
            .collect();
        let known = Command::decode(KIND_TOPIC_CONFIG, first_version.into());
        assert_eq!(known, Ok(Command::TopicConfig(config())), "of before dedup windows");
        assert_eq!(hex(&all[2]), "0100000000000000ffffffffffffffff");
        assert_eq!(hex(&all[4]), "0101070062696c6c696e67");
        assert_eq!(
            hex(&all[5]),
            "0100000001000000070000000000000003000000090000000000000000100000 00000000"
                .replace(' ', "")
        );
        assert_eq!(
            hex(&all[6]),
            "01000000030000000700000000000000ea4f66cec037adf7dfe70b7d92549a55746865206261746368"
        );
        assert_eq!(hex(&all[7]), "01000000030000000500000000000100");
    }
}

//! Names of the parts that a shard's state is saved in.
//!
//! A checkpoint holds state as (key, value) parts: a delta holds those that changed since the last
//! one, a full checkpoint all of them. Keys open with a kind byte and go on big endian, so that
//! their byte order is the order of what they name.
//!
//! | kind | part | key after the kind byte | limit |
//! |---|---|---|---|
//! | 1 | the shard: next producer number | nothing | one |
//! | 2 | a topic's settings | topic u64 | [`TOPICS_MAX`](super::TOPICS_MAX) |
//! | 3 | a queue | topic u64, queue u32 | [`QUEUES_MAX`](super::QUEUES_MAX) |
//! | 4 | a producer's window on a queue | topic u64, queue u32, producer u64 | [`WINDOWS_MAX`](super::WINDOWS_MAX) |
//! | 5 | a named producer | its name | [`NAMED_PRODUCERS_MAX`](super::NAMED_PRODUCERS_MAX) |
//! | 6 | dedup keys of a queue, up to 256 | topic u64, queue u32, number u64 | [`DEDUP_KEYS_MAX`](super::DEDUP_KEYS_MAX) keys |
//! | 7 | the newest epoch of another shard's named producer | producer u64 | [`NAMED_PRODUCERS_MAX`](super::NAMED_PRODUCERS_MAX) |
//! | 64 | a run of timers, up to 4,096 or one batch | index u64, place u32 of its first timer | [`TIMERS_MAX`](super::TIMERS_MAX) timers |
//! | 65 | which timers of a run are over | index u64, place u32 of its first timer | one bit for each |
//! | 70 | a schedule | topic u64, queue u32, name | [`SCHEDULES_MAX`](super::schedules::SCHEDULES_MAX) |
//! | 66-69, 71-79 | kept for timers and schedules | | |
//! | 80-95 | kept for groups: members, progress, acknowledgements | | |

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{ProducerId, QueueId, QueueKey, TopicId};
use grus_protocol::names::{ProducerName, ScheduleName};

use crate::codec::CodecError;
use crate::commands::recurring::ScheduleKey;
use crate::timers::TimerId;

const KIND_SHARD: u8 = 1;
const KIND_TOPIC: u8 = 2;
const KIND_QUEUE: u8 = 3;
const KIND_WINDOW: u8 = 4;
const KIND_NAMED_PRODUCER: u8 = 5;
const KIND_DEDUP: u8 = 6;
const KIND_FENCE: u8 = 7;
const KIND_TIMER_RUN: u8 = 64;
const KIND_TIMER_DONE: u8 = 65;
const KIND_SCHEDULE: u8 = 70;

/// Names one part of the state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKey {
    /// What the shard as a whole remembers.
    Shard,
    /// A topic's settings.
    Topic(TopicId),
    /// A queue's numbers.
    Queue(QueueKey),
    /// The last batches of one producer on one queue.
    Window(QueueKey, ProducerId),
    /// A producer with a name.
    NamedProducer(ProducerName),
    /// Some of a queue's dedup keys.
    Dedup(QueueKey, u64),
    /// The newest epoch of another shard's producer.
    Fence(ProducerId),
    /// A run of timers, by the first that was in it.
    TimerRun(TimerId),
    /// Which timers of a run are over.
    TimerDone(TimerId),
    /// A schedule of recurring messages.
    Schedule(ScheduleKey),
}

impl PartKey {
    /// The key as bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        match self {
            Self::Shard => out.put_u8(KIND_SHARD),
            Self::Topic(topic) => {
                out.put_u8(KIND_TOPIC);
                out.put_u64(topic.0);
            }
            Self::Queue(queue) => {
                out.put_u8(KIND_QUEUE);
                put_queue(&mut out, *queue);
            }
            Self::Window(queue, producer) => {
                out.put_u8(KIND_WINDOW);
                put_queue(&mut out, *queue);
                out.put_u64(producer.0);
            }
            Self::NamedProducer(name) => {
                out.put_u8(KIND_NAMED_PRODUCER);
                out.put_slice(name.as_str().as_bytes());
            }
            Self::Dedup(queue, number) => {
                out.put_u8(KIND_DEDUP);
                put_queue(&mut out, *queue);
                out.put_u64(*number);
            }
            Self::Fence(producer) => {
                out.put_u8(KIND_FENCE);
                out.put_u64(producer.0);
            }
            Self::TimerRun(run) => put_timer(&mut out, KIND_TIMER_RUN, *run),
            Self::TimerDone(run) => put_timer(&mut out, KIND_TIMER_DONE, *run),
            Self::Schedule(key) => {
                out.put_u8(KIND_SCHEDULE);
                put_queue(&mut out, key.queue);
                out.put_slice(key.name.as_str().as_bytes());
            }
        }
        out.freeze()
    }

    /// Reads a key back.
    ///
    /// # Errors
    /// When the kind is not known to this build, or the length does not fit the kind.
    pub fn decode(key: &[u8]) -> Result<Self, CodecError> {
        let bad = CodecError::Value("part key");
        let (kind, rest) = key.split_first().ok_or(bad)?;
        match (*kind, rest.len()) {
            (KIND_SHARD, 0) => Ok(Self::Shard),
            (KIND_TOPIC, 8) => Ok(Self::Topic(TopicId(read_u64(rest)))),
            (KIND_QUEUE, 12) => Ok(Self::Queue(read_queue(rest))),
            (KIND_WINDOW, 20) => {
                Ok(Self::Window(read_queue(rest), ProducerId(read_u64(&rest[12..]))))
            }
            (KIND_NAMED_PRODUCER, _) => {
                let name = std::str::from_utf8(rest).map_err(|_| bad)?;
                ProducerName::try_from(name).map(Self::NamedProducer).map_err(|_| bad)
            }
            (KIND_DEDUP, 20) => Ok(Self::Dedup(read_queue(rest), read_u64(&rest[12..]))),
            (KIND_FENCE, 8) => Ok(Self::Fence(ProducerId(read_u64(rest)))),
            (KIND_TIMER_RUN, 12) => Ok(Self::TimerRun(read_timer(rest))),
            (KIND_TIMER_DONE, 12) => Ok(Self::TimerDone(read_timer(rest))),
            (KIND_SCHEDULE, 13..) => {
                let name = std::str::from_utf8(&rest[12..]).map_err(|_| bad)?;
                let name = ScheduleName::try_from(name).map_err(|_| bad)?;
                Ok(Self::Schedule(ScheduleKey { queue: read_queue(rest), name }))
            }
            (KIND_SHARD..=KIND_FENCE | KIND_TIMER_RUN | KIND_TIMER_DONE | KIND_SCHEDULE, _) => {
                Err(bad)
            }
            (kind, _) => Err(CodecError::Kind(u16::from(kind))),
        }
    }
}

fn put_queue(out: &mut BytesMut, queue: QueueKey) {
    out.put_u64(queue.topic.0);
    out.put_u32(queue.queue.0);
}

fn put_timer(out: &mut BytesMut, kind: u8, timer: TimerId) {
    out.put_u8(kind);
    out.put_u64(timer.index);
    out.put_u32(timer.place);
}

fn read_timer(bytes: &[u8]) -> TimerId {
    let mut place = [0; 4];
    place.copy_from_slice(&bytes[8..12]);
    TimerId { index: read_u64(bytes), place: u32::from_be_bytes(place) }
}

fn read_queue(bytes: &[u8]) -> QueueKey {
    let mut queue = [0; 4];
    queue.copy_from_slice(&bytes[8..12]);
    QueueKey { topic: TopicId(read_u64(bytes)), queue: QueueId(u32::from_be_bytes(queue)) }
}

fn read_u64(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(topic: u64, queue: u32) -> QueueKey {
        QueueKey { topic: TopicId(topic), queue: QueueId(queue) }
    }

    fn schedule(queue: QueueKey, name: &str) -> ScheduleKey {
        ScheduleKey { queue, name: ScheduleName::try_from(name).unwrap() }
    }

    #[test]
    fn keys_read_back_and_sort_as_bytes_as_they_sort_as_values() {
        let mut keys = vec![
            PartKey::Shard,
            PartKey::Topic(TopicId(2)),
            PartKey::Topic(TopicId(300)),
            PartKey::Queue(queue(2, 256)),
            PartKey::Queue(queue(2, 1)),
            PartKey::Queue(queue(1, 9)),
            PartKey::Window(queue(1, 9), ProducerId(1 << 40)),
            PartKey::Window(queue(1, 9), ProducerId(7)),
            PartKey::NamedProducer(ProducerName::try_from("b").unwrap()),
            PartKey::NamedProducer(ProducerName::try_from("ab").unwrap()),
            PartKey::Dedup(queue(1, 9), 256),
            PartKey::Dedup(queue(1, 9), 3),
            PartKey::Fence(ProducerId(1 << 48)),
            PartKey::TimerRun(TimerId { index: 1 << 40, place: 3 }),
            PartKey::TimerRun(TimerId { index: 7, place: 1 << 20 }),
            PartKey::TimerDone(TimerId { index: 7, place: 48 }),
            PartKey::Schedule(schedule(queue(2, 1), "a")),
            PartKey::Schedule(schedule(queue(1, 256), "b")),
            PartKey::Schedule(schedule(queue(1, 256), "ab")),
        ];
        for key in &keys {
            assert_eq!(PartKey::decode(&key.encode()).as_ref(), Ok(key));
        }
        keys.sort();
        let encoded: Vec<Bytes> = keys.iter().map(PartKey::encode).collect();
        assert!(encoded.is_sorted());
    }

    #[test]
    fn keys_of_later_kinds_and_of_wrong_lengths_are_refused() {
        assert_eq!(PartKey::decode(&[80, 1, 2]), Err(CodecError::Kind(80)));
        let bad = Err(CodecError::Value("part key"));
        assert_eq!(PartKey::decode(&[]), bad);
        assert_eq!(PartKey::decode(&[KIND_QUEUE, 1, 2]), bad);
        assert_eq!(PartKey::decode(&[KIND_SHARD, 0]), bad);
        assert_eq!(PartKey::decode(&[KIND_TIMER_RUN, 0]), bad);
    }
}

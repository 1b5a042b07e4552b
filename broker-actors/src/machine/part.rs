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
//! | 80 | what a group has done in a queue | topic u64, queue u32, group u64 | [`PROGRESS_MAX`](super::groups::PROGRESS_MAX) |
//! | 81 | retries of a group in a queue, of up to 256 neighbouring offsets | topic u64, queue u32, group u64, number u64 | [`RETRIES_MAX`](super::groups::RETRIES_MAX) retries |
//! | 82 | a group whose coordinator is here | group u64 | one for each group |
//! | 83 | a member of it | group u64, member u64 | [`MEMBERS_MAX`](super::groups::MEMBERS_MAX) |
//! | 84 | a queue given to a member | group u64, topic u64, queue u32 | [`GRANTS_MAX`](super::groups::GRANTS_MAX) |
//! | 85-95 | kept for groups | | |

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{GroupId, MemberId, ProducerId, QueueId, QueueKey, TopicId};
use grus_protocol::names::{ProducerName, ScheduleName};

use crate::codec::CodecError;
use crate::commands::groups::ProgressKey;
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
const KIND_PROGRESS: u8 = 80;
const KIND_RETRIES: u8 = 81;
const KIND_GROUP: u8 = 82;
const KIND_MEMBER: u8 = 83;
const KIND_GRANT: u8 = 84;

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
    /// What a group has done in a queue.
    Progress(ProgressKey),
    /// Retries of a group in a queue whose offsets are neighbours.
    Retries(ProgressKey, u64),
    /// A group whose coordinator is here.
    Group(GroupId),
    /// A member of it.
    Member(GroupId, MemberId),
    /// Whose a queue is in it.
    Grant(GroupId, QueueKey),
}

impl PartKey {
    /// Whether it is a part of groups: those are the last.
    pub(super) const fn is_of_groups(&self) -> bool {
        matches!(
            self,
            Self::Progress(_)
                | Self::Retries(..)
                | Self::Group(_)
                | Self::Member(..)
                | Self::Grant(..)
        )
    }

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
            Self::Progress(place) => put_progress(&mut out, KIND_PROGRESS, *place),
            Self::Retries(place, number) => {
                put_progress(&mut out, KIND_RETRIES, *place);
                out.put_u64(*number);
            }
            Self::Group(group) => {
                out.put_u8(KIND_GROUP);
                out.put_u64(group.0);
            }
            Self::Member(group, member) => {
                out.put_u8(KIND_MEMBER);
                out.put_u64(group.0);
                out.put_u64(member.0);
            }
            Self::Grant(group, queue) => {
                out.put_u8(KIND_GRANT);
                out.put_u64(group.0);
                put_queue(&mut out, *queue);
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
            (KIND_PROGRESS, 20) => Ok(Self::Progress(read_progress(rest))),
            (KIND_RETRIES, 28) => Ok(Self::Retries(read_progress(rest), read_u64(&rest[20..]))),
            (KIND_GROUP, 8) => Ok(Self::Group(GroupId(read_u64(rest)))),
            (KIND_MEMBER, 16) => {
                Ok(Self::Member(GroupId(read_u64(rest)), MemberId(read_u64(&rest[8..]))))
            }
            (KIND_GRANT, 20) => Ok(Self::Grant(GroupId(read_u64(rest)), read_queue(&rest[8..]))),
            (
                KIND_SHARD..=KIND_FENCE
                | KIND_TIMER_RUN
                | KIND_TIMER_DONE
                | KIND_SCHEDULE
                | KIND_PROGRESS..=KIND_GRANT,
                _,
            ) => Err(bad),
            (kind, _) => Err(CodecError::Kind(u16::from(kind))),
        }
    }
}

fn put_queue(out: &mut BytesMut, queue: QueueKey) {
    out.put_u64(queue.topic.0);
    out.put_u32(queue.queue.0);
}

fn put_progress(out: &mut BytesMut, kind: u8, place: ProgressKey) {
    out.put_u8(kind);
    put_queue(out, place.queue);
    out.put_u64(place.group.0);
}

fn read_progress(bytes: &[u8]) -> ProgressKey {
    ProgressKey { queue: read_queue(bytes), group: GroupId(read_u64(&bytes[12..])) }
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

    fn place(topic: u64, group: u64) -> ProgressKey {
        ProgressKey { queue: queue(topic, 0), group: GroupId(group) }
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
            PartKey::Progress(place(2, 7)),
            PartKey::Progress(place(1, 1 << 40)),
            PartKey::Retries(place(1, 7), 256),
            PartKey::Retries(place(1, 7), 1 << 50),
            PartKey::Group(GroupId(9)),
            PartKey::Member(GroupId(9), MemberId(300)),
            PartKey::Member(GroupId(9), MemberId(4)),
            PartKey::Grant(GroupId(9), queue(1, 256)),
            PartKey::Grant(GroupId(8), queue(2, 1)),
        ];
        assert!(PartKey::decode(&PartKey::Group(GroupId(9)).encode()[..8]).is_err());
        for key in &keys {
            assert_eq!(PartKey::decode(&key.encode()).as_ref(), Ok(key));
        }
        keys.sort();
        let encoded: Vec<Bytes> = keys.iter().map(PartKey::encode).collect();
        assert!(encoded.is_sorted());
    }

    #[test]
    fn keys_of_later_kinds_and_of_wrong_lengths_are_refused() {
        assert_eq!(PartKey::decode(&[90, 1, 2]), Err(CodecError::Kind(90)));
        let bad = Err(CodecError::Value("part key"));
        assert_eq!(PartKey::decode(&[]), bad);
        assert_eq!(PartKey::decode(&[KIND_QUEUE, 1, 2]), bad);
        assert_eq!(PartKey::decode(&[KIND_SHARD, 0]), bad);
        assert_eq!(PartKey::decode(&[KIND_TIMER_RUN, 0]), bad);
    }
}

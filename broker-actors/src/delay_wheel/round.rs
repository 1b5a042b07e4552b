//! A round: timers that are due, as Release items.

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::QueueKey;
use grus_protocol::limits::BatchLimits;

use crate::commands::Command;
use crate::commands::delay::ReleasedBatch;
use crate::timers::TimerId;
use crate::timers::run::Timer;

/// Most timers of a round: some 300 us of work.
pub const ROUND_TIMERS_MAX: usize = 256;
/// A round ends with the timer whose batch brings it to this many bytes.
pub const ROUND_BYTES_MAX: u64 = 256 * 1024;

/// An item ends with the batch that brings it to this many bytes: a largest batch fits an entry.
const ITEM_BYTES_MAX: usize = 256 * 1024;
/// Records of compressed batches may be far longer than what they were cut from: a round ends with
/// the batch that brings what it releases to this many bytes.
const RELEASED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What a round proposes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Releases {
    /// In order for each queue.
    pub commands: Vec<Command>,
    /// How many of the timers were looked at; the others are for the next round.
    pub looked_at: usize,
    /// Timers whose message cannot be read.
    pub unreadable: Vec<TimerId>,
}

/// Makes the items for `timers`, which come in the order in which they shall be seen. `read` gives
/// a batch's bytes.
pub fn releases(timers: &[Timer], mut read: impl FnMut(&Timer) -> Option<Bytes>) -> Releases {
    let mut made = Releases::default();
    let mut by_queue: BTreeMap<QueueKey, Vec<ReleasedBatch>> = BTreeMap::new();
    let mut bytes = 0;
    for of_batch in timers.chunk_by(|one, next| one.batch == next.batch && next.id == one.id.nth(1))
    {
        let Some(first) = of_batch.first() else { continue };
        made.looked_at += of_batch.len();
        let batch = read(first).and_then(|bytes| RecordBatch::from_log(bytes).ok());
        let Some(mut batches) = batch.and_then(|batch| cut(batch, of_batch)) else {
            made.unreadable.extend(of_batch.iter().map(|timer| timer.id));
            continue;
        };
        bytes += batches.iter().map(|released| released.batch.len()).sum::<usize>();
        by_queue.entry(first.queue).or_default().append(&mut batches);
        if bytes >= RELEASED_BYTES_MAX {
            break;
        }
    }
    for (queue, batches) in by_queue {
        let mut item = Vec::new();
        let mut bytes = 0;
        for released in batches {
            let length = released.batch.len();
            if bytes + length > ITEM_BYTES_MAX && !item.is_empty() {
                let batches = std::mem::take(&mut item);
                made.commands.push(Command::Release { queue, batches });
                bytes = 0;
            }
            bytes += length;
            item.push(released);
        }
        made.commands.push(Command::Release { queue, batches: item });
    }
    made
}

/// Records of a batch, one behind the other, as batches of one; or the batch as it is, when they
/// are all it has. None when they are not there.
fn cut(batch: RecordBatch, timers: &[Timer]) -> Option<Vec<ReleasedBatch>> {
    let first = timers.first()?;
    if batch.count() != first.count {
        return None;
    }
    if timers.len() == first.count as usize {
        let timers = first.count;
        return Some(vec![ReleasedBatch { timer: first.id, timers, batch: batch.into_bytes() }]);
    }
    let plain = batch.decompressed(&BatchLimits::FORMAT).ok()?;
    let records = plain.records().zip(0..).skip(first.number() as usize);
    let alone = records.zip(timers).map(|((record, number), timer)| {
        let batch = plain.alone(number, &record.ok()?).into_bytes();
        Some(ReleasedBatch { timer: timer.id, timers: 1, batch })
    });
    let alone: Vec<ReleasedBatch> = alone.collect::<Option<_>>()?;
    (alone.len() == timers.len()).then_some(alone)
}

/// The message of one timer, as a batch of one.
pub fn message_of(timer: &Timer, bytes: Bytes) -> Option<Bytes> {
    let batch = RecordBatch::from_log(bytes).ok()?;
    let mut alone = cut(batch, std::slice::from_ref(timer))?;
    alone.pop().map(|released| released.batch)
}

/// Whether a batch of one has a record with this key.
pub fn has_key(bytes: &Bytes, key: &[u8]) -> bool {
    let batch = RecordBatch::from_log(bytes.clone()).ok();
    let plain = batch.and_then(|batch| batch.decompressed(&BatchLimits::FORMAT).ok());
    plain.is_some_and(|plain| {
        let mut records = plain.records().filter_map(Result::ok);
        records.any(|record| record.keys().any(|found| found == key))
    })
}

#[cfg(test)]
mod tests {
    use grus_log::Position;
    use grus_protocol::batch::{BatchBuilder, Compression, NewRecord};
    use grus_protocol::ids::{MessageId, QueueId, TimestampMs, TopicId};

    use super::*;

    fn batch(bodies: &[&str]) -> Bytes {
        let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
        for body in bodies {
            let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
            builder.push(&NewRecord::new(id, TimestampMs(1), body.as_bytes().to_vec())).unwrap();
        }
        builder.finish()
    }

    fn timer(topic: u64, index: u64, number: u32, count: u32) -> Timer {
        let batch = TimerId { index, place: 40 };
        Timer {
            id: batch.nth(number),
            queue: QueueKey { topic: TopicId(topic), queue: QueueId(0) },
            due: TimestampMs(7),
            batch,
            count,
            at: Position { index, byte: 40 },
            length: 100,
        }
    }

    fn bodies(command: &Command) -> Vec<(TimerId, Vec<Bytes>)> {
        let Command::Release { batches, .. } = command else { panic!("a release") };
        let bodies = batches.iter().map(|released| {
            let batch = RecordBatch::check(released.batch.clone(), &BatchLimits::FORMAT).unwrap();
            assert_eq!(batch.count(), released.timers);
            (released.timer, batch.records().map(|r| r.unwrap().body_bytes()).collect())
        });
        bodies.collect()
    }

    #[test]
    fn a_whole_batch_goes_as_it_is_and_a_part_of_one_record_by_record() {
        let (three, two) = (batch(&["a", "b", "c"]), batch(&["x", "y"]));
        let timers = [
            timer(1, 5, 0, 3), // not the whole batch: its second record is due at another time
            timer(1, 5, 2, 3),
            timer(2, 6, 0, 2),
            timer(2, 6, 1, 2),
            timer(1, 5, 1, 3),
        ];
        let read = |timer: &Timer| Some(if timer.count == 3 { three.clone() } else { two.clone() });
        let made = releases(&timers, read);
        assert!(made.unreadable.is_empty());
        let body = |text: &'static str| vec![Bytes::from_static(text.as_bytes())];
        let one = [(timers[0].id, body("a")), (timers[1].id, body("c")), (timers[4].id, body("b"))];
        assert_eq!(bodies(&made.commands[0]), one);
        let other = [(timers[2].id, [body("x"), body("y")].concat())];
        assert_eq!(bodies(&made.commands[1]), other);
        let Command::Release { batches, .. } = &made.commands[1] else { panic!("a release") };
        assert_eq!(batches[0].batch, two, "byte for byte");
    }

    #[test]
    fn what_cannot_be_read_is_named_and_holds_up_nobody() {
        let good = batch(&["a"]);
        let timers = [timer(1, 5, 0, 1), timer(1, 6, 0, 1), timer(1, 7, 1, 2)];
        let made = releases(&timers, |timer| match timer.id.index {
            5 => None,
            _ => Some(good.clone()),
        });
        assert_eq!(made.unreadable, [timers[0].id, timers[2].id]);
        assert_eq!(made.commands.len(), 1);
        assert_eq!(bodies(&made.commands[0])[0].0, timers[1].id);
    }

    #[test]
    fn no_item_grows_beyond_what_an_entry_takes_and_what_is_too_much_waits() {
        let large = batch(&[&"x".repeat(200 * 1024)]);
        let timers: Vec<Timer> = (0..20).map(|index| timer(1, index, 0, 1)).collect();
        let made = releases(&timers, |_| Some(large.clone()));
        assert_eq!((made.looked_at, made.commands.len()), (11, 11));
        let small = batch(&["x"]);
        let made = releases(&timers, |_| Some(small.clone()));
        assert_eq!((made.looked_at, made.commands.len()), (20, 1));
    }

    #[test]
    fn a_record_of_a_compressed_batch_is_found() {
        let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
        for body in ["one", "two"] {
            let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
            let record = NewRecord::new(id, TimestampMs(1), body.repeat(100).into_bytes());
            builder.push(&NewRecord { keys: vec![Bytes::from(body)], ..record }).unwrap();
        }
        builder.compress(Compression::Lz4);
        let bytes = builder.finish();
        let alone = message_of(&timer(1, 5, 1, 2), bytes).unwrap();
        let read = RecordBatch::check(alone.clone(), &BatchLimits::FORMAT).unwrap();
        assert_eq!(read.records().next().unwrap().unwrap().body_bytes(), "two".repeat(100));
        assert!(has_key(&alone, b"two") && !has_key(&alone, b"one"));
    }
}

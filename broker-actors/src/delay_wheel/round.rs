//! A round: timers that are due, as Release items.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use grus_protocol::batch::{Record, RecordBatch};
use grus_protocol::ids::QueueKey;
use grus_protocol::limits::BatchLimits;

use crate::commands::Command;
use crate::commands::delay::{RELEASE_HEADER_BYTES, RELEASED_HEADER_BYTES, ReleasedBatch};
use crate::timers::TimerId;
use crate::timers::run::Timer;

/// Most timers of a round, but for a batch that is due as a whole: some 500 us of work.
pub const ROUND_TIMERS_MAX: usize = 512;
/// A round ends with the timers that bring what it releases to about so many bytes.
const ROUND_BYTES_MAX: u64 = 256 * 1024;
/// A round ends before a batch that would bring what it reads to more bytes; one is always read.
const ROUND_READ_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// An item ends before the batch that would bring it to more bytes, unless the log takes less in an
/// entry; one batch goes whatever its size.
const ITEM_BYTES_MAX: usize = 256 * 1024;
/// Records of compressed batches may be far longer than what they were cut from: a round ends with
/// the batch that brings what it releases to this many bytes.
pub const RELEASED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// In a gentle round, of all three: so that whoever else works in the shard waits for less than a
/// millisecond of the core and for a sync of little.
const GENTLE_PART: usize = 4;

/// How much a round may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// As much as pays.
    #[default]
    Full,
    /// A quarter: somebody else is at work.
    Gentle,
}

/// How much of a round is used up. Timers that follow one another in a batch are one piece, which is
/// never cut: what is due as a whole leaves as a whole.
#[derive(Debug, Default)]
pub struct Budget {
    pace: Pace,
    timers: usize,
    bytes: u64,
    read_bytes: u64,
    batches: BTreeSet<TimerId>,
    last: Option<Timer>,
}

impl Budget {
    /// Of a round at this pace.
    #[must_use]
    pub fn of(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// Takes a timer in, the next in order; false if it is for the next round.
    pub fn takes(&mut self, timer: &Timer) -> bool {
        let goes_on = self.last.is_some_and(|last| is_next(&last, timer));
        if !goes_on && self.timers > 0 {
            let part = match self.pace {
                Pace::Full => 1,
                Pace::Gentle => GENTLE_PART,
            };
            let is_used_up = self.timers >= ROUND_TIMERS_MAX / part
                || self.bytes >= ROUND_BYTES_MAX / part as u64;
            let is_read = self.batches.contains(&timer.batch);
            let read_bytes = self.read_bytes + u64::from(timer.length);
            if is_used_up || !is_read && read_bytes > ROUND_READ_BYTES_MAX / part as u64 {
                return false;
            }
        }
        if self.batches.insert(timer.batch) {
            self.read_bytes += u64::from(timer.length);
        }
        self.timers += 1;
        self.bytes += u64::from(timer.length / timer.count.max(1)).max(1);
        self.last = Some(*timer);
        true
    }
}

/// Whether `next` is the record behind `one` in its batch.
fn is_next(one: &Timer, next: &Timer) -> bool {
    one.batch == next.batch && next.id == one.id.nth(1)
}

/// What a round proposes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Releases {
    /// In order for each queue.
    pub commands: Vec<Command>,
    /// How many of the timers were looked at; the others are for the next round.
    pub looked_at: usize,
    /// Timers whose message cannot be read, or is larger than an item may be.
    pub unreadable: BTreeSet<TimerId>,
}

/// Makes the items for `timers`, which come in the order in which they shall be seen; none is larger
/// than `item_bytes_max`. `read` gives a batch's bytes; it is asked once for each, in the order of the
/// log.
pub fn releases(
    timers: &[Timer],
    item_bytes_max: usize,
    read: impl FnMut(&Timer) -> Option<Bytes>,
) -> Releases {
    let mut made = Releases::default();
    let mut cutter = Cutter::read(timers, read);
    let mut by_queue: BTreeMap<QueueKey, Vec<ReleasedBatch>> = BTreeMap::new();
    let mut bytes = 0;
    // The next one is the last.
    let mut pieces: Vec<&[Timer]> = timers.chunk_by(is_next).collect();
    pieces.reverse();
    while bytes < RELEASED_BYTES_MAX
        && let Some(piece) = pieces.pop()
    {
        let Some(first) = piece.first() else { continue };
        let released = cutter.cut(piece);
        let fits = released.as_ref().is_some_and(|released| {
            RELEASE_HEADER_BYTES as usize + bytes_of(released) <= item_bytes_max
        });
        if released.is_some() && !fits && piece.len() > 1 {
            // Stored when an entry took more, or longer than the compressed batch it came in.
            let (piece, rest) = piece.split_at(piece.len() / 2);
            pieces.extend([rest, piece]);
            continue;
        }
        made.looked_at += piece.len();
        let Some(released) = released.filter(|_| fits) else {
            made.unreadable.extend(piece.iter().map(|timer| timer.id));
            continue;
        };
        bytes += released.batch.len();
        by_queue.entry(first.queue).or_default().push(released);
    }
    let item_bytes_max = item_bytes_max.min(ITEM_BYTES_MAX);
    for (queue, batches) in by_queue {
        let mut item = Vec::new();
        let mut bytes = RELEASE_HEADER_BYTES as usize;
        for released in batches {
            let length = bytes_of(&released);
            if bytes + length > item_bytes_max && !item.is_empty() {
                let batches = std::mem::take(&mut item);
                made.commands.push(Command::Release { queue, batches });
                bytes = RELEASE_HEADER_BYTES as usize;
            }
            bytes += length;
            item.push(released);
        }
        made.commands.push(Command::Release { queue, batches: item });
    }
    made
}

/// What a batch takes of an item.
fn bytes_of(released: &ReleasedBatch) -> usize {
    RELEASED_HEADER_BYTES as usize + released.batch.len()
}

/// The batches that some timers lie in, each read once and walked over once at most.
struct Cutter {
    batches: BTreeMap<TimerId, Cut>,
}

/// A batch, and those of its records that are wanted.
struct Cut {
    wanted: BTreeSet<u32>,
    batch: Option<RecordBatch>,
    /// Decompressed, once a part of it was wanted.
    plain: Option<(RecordBatch, BTreeMap<u32, Record>)>,
}

impl Cutter {
    fn read(timers: &[Timer], mut read: impl FnMut(&Timer) -> Option<Bytes>) -> Self {
        let mut places: BTreeMap<(u64, u32), Timer> = BTreeMap::new();
        let mut batches: BTreeMap<TimerId, Cut> = BTreeMap::new();
        for timer in timers {
            places.entry((timer.at.index, timer.at.byte)).or_insert(*timer);
            let new = || Cut { wanted: BTreeSet::new(), batch: None, plain: None };
            let cut = batches.entry(timer.batch).or_insert_with(new);
            cut.wanted.insert(timer.number());
        }
        for timer in places.values() {
            let batch = read(timer).and_then(|bytes| RecordBatch::from_log(bytes).ok());
            let batch = batch.filter(|batch| batch.count() == timer.count);
            if let Some(cut) = batches.get_mut(&timer.batch) {
                cut.batch = batch;
            }
        }
        Self { batches }
    }

    /// Records of a batch, one behind the other: the batch as it is, byte for byte, when they are all it
    /// has. None when they cannot be read.
    fn cut(&mut self, piece: &[Timer]) -> Option<ReleasedBatch> {
        let first = piece.first()?;
        let cut = self.batches.get_mut(&first.batch)?;
        let batch = cut.batch.as_ref()?;
        if piece.len() == first.count as usize {
            let batch = batch.clone().into_bytes();
            return Some(ReleasedBatch { timer: first.id, timers: first.count, batch });
        }
        if cut.plain.is_none() {
            let plain = batch.decompressed(&BatchLimits::FORMAT).ok()?;
            let numbered = plain.records().zip(0..);
            let last = cut.wanted.last().copied().unwrap_or(0);
            let records = numbered
                .take(last as usize + 1)
                .filter(|(_, number)| cut.wanted.contains(number))
                .filter_map(|(record, number)| Some((number, record.ok()?)))
                .collect();
            cut.plain = Some((plain, records));
        }
        let (plain, records) = cut.plain.as_ref()?;
        let records: Vec<Record> = piece
            .iter()
            .map(|timer| records.get(&timer.number()).cloned())
            .collect::<Option<_>>()?;
        let batch = plain.part(first.number(), &records).into_bytes();
        let timers = u32::try_from(piece.len()).ok()?;
        Some(ReleasedBatch { timer: first.id, timers, batch })
    }
}

/// The messages of some timers, each as a batch of one; none where one cannot be read.
pub fn messages_of(
    timers: &[Timer],
    read: impl FnMut(&Timer) -> Option<Bytes>,
) -> Vec<Option<Bytes>> {
    let mut cutter = Cutter::read(timers, read);
    let alone = |timer| Some(cutter.cut(std::slice::from_ref(timer))?.batch);
    timers.iter().map(alone).collect()
}

/// Brings timers up to where their batches lie by now, which `known` says; true when one of them was
/// carried on. Those that it does not know any more are left as they are.
pub fn follow(timers: &mut [Timer], known: impl Fn(TimerId) -> Option<Timer>) -> bool {
    let mut has_moved = false;
    for timer in timers {
        if let Some(now) = known(timer.id).filter(|now| now.at != timer.at) {
            (*timer, has_moved) = (now, true);
        }
    }
    has_moved
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

    /// More than any item of these tests, where it is not about that.
    const ITEM: usize = 8 << 20;

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

    fn message_of(timer: &Timer, bytes: &Bytes) -> Option<Bytes> {
        messages_of(&[*timer], |_| Some(bytes.clone())).remove(0)
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
        let made = releases(&timers, ITEM, read);
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
    fn a_part_whose_records_follow_one_another_is_one_batch_and_each_batch_is_read_once() {
        let large = batch(&["a", "b", "c", "d", "e"]);
        let numbers = [3, 4, 0, 1]; // due in that order; the third one is not due yet
        let mut timers: Vec<Timer> = numbers.iter().map(|n| timer(1, 5, *n, 5)).collect();
        timers.insert(2, timer(1, 9, 0, 5));
        let mut reads = Vec::new();
        let made = releases(&timers, ITEM, |timer| {
            reads.push(timer.at.index);
            Some(large.clone())
        });
        assert_eq!((made.commands.len(), reads), (1, vec![5, 9]));
        let of = |texts: &[&'static str]| texts.iter().map(|text| Bytes::from(*text)).collect();
        let id = |index, number| timer(1, index, number, 5).id;
        let wanted: Vec<(TimerId, Vec<Bytes>)> =
            vec![(id(5, 3), of(&["d", "e"])), (id(9, 0), of(&["a"])), (id(5, 0), of(&["a", "b"]))];
        assert_eq!(bodies(&made.commands[0]), wanted);
        let Command::Release { batches, .. } = &made.commands[0] else { panic!("a release") };
        assert_eq!(batches.iter().map(|batch| batch.timers).collect::<Vec<_>>(), [2, 1, 2]);
    }

    #[test]
    fn a_round_takes_a_whole_batch_however_large_and_of_the_others_so_much() {
        let large = |index, number| Timer { length: 1 << 20, ..timer(1, index, number, 1_000) };
        let mut budget = Budget::default();
        assert!((0..1_000).all(|number| budget.takes(&large(5, number))), "the batch as a whole");
        assert!(!budget.takes(&large(6, 0)), "the next one in another round");
        let mut budget = Budget::default();
        let taken = (0..9_999).take_while(|index| budget.takes(&timer(1, *index, 0, 1))).count();
        assert_eq!(taken, ROUND_TIMERS_MAX, "small ones");
        let mut budget = Budget::default();
        let taken = (0..9_999).take_while(|index| budget.takes(&large(*index, 0))).count();
        assert_eq!(taken, 4, "one message of each large batch: what is read is bounded");
        assert!(budget.takes(&large(0, 500)), "what is read already has more to give");
        let mut budget = Budget::default();
        let taken = (0..1_000).take_while(|n| budget.takes(&large(5, *n * 2 % 999))).count();
        assert_eq!(taken, 251, "256 KiB of one that is due message by message");
        let mut budget = Budget::of(Pace::Gentle);
        let taken = (0..9_999).take_while(|index| budget.takes(&timer(1, *index, 0, 1))).count();
        assert_eq!(taken, ROUND_TIMERS_MAX / GENTLE_PART);
        let mut budget = Budget::of(Pace::Gentle);
        assert!((0..1_000).all(|number| budget.takes(&large(5, number))), "the batch as a whole");
        assert!(!budget.takes(&large(6, 0)));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_holds_up_nobody() {
        let good = batch(&["a"]);
        let timers = [timer(1, 5, 0, 1), timer(1, 6, 0, 1), timer(1, 7, 1, 2)];
        let made = releases(&timers, ITEM, |timer| match timer.id.index {
            5 => None,
            _ => Some(good.clone()),
        });
        assert_eq!(made.unreadable, BTreeSet::from([timers[0].id, timers[2].id]));
        assert_eq!(made.commands.len(), 1);
        assert_eq!(bodies(&made.commands[0])[0].0, timers[1].id);
    }

    #[test]
    fn no_item_grows_beyond_what_an_entry_takes_and_what_is_too_much_waits() {
        let large = batch(&[&"x".repeat(200 * 1024)]);
        let timers: Vec<Timer> = (0..20).map(|index| timer(1, index, 0, 1)).collect();
        let made = releases(&timers, ITEM, |_| Some(large.clone()));
        assert_eq!((made.looked_at, made.commands.len()), (11, 11));
        let small = batch(&["x"]);
        let made = releases(&timers, ITEM, |_| Some(small.clone()));
        assert_eq!((made.looked_at, made.commands.len()), (20, 1));
    }

    #[test]
    fn every_item_fits_the_log_however_little_an_entry_of_it_takes() {
        let one = batch(&[&"x".repeat(2_000)]);
        let timers: Vec<Timer> = (0..500).map(|index| timer(1, index, 0, 1)).collect();
        for item_bytes_max in [one.len() + 48, 10_000, 100_000, 262_143, 262_144, 300_000] {
            let made = releases(&timers, item_bytes_max, |_| Some(one.clone()));
            assert!(made.unreadable.is_empty() && made.looked_at == timers.len());
            let lengths = made
                .commands
                .iter()
                .map(|command| command.encode().iter().map(Bytes::len).sum::<usize>());
            let longest = lengths.max().unwrap();
            let bound = item_bytes_max.min(ITEM_BYTES_MAX);
            assert!((bound - one.len() - 48..=bound).contains(&longest), "{longest} of {bound}");
            let all: Vec<TimerId> =
                made.commands.iter().flat_map(bodies).map(|(id, _)| id).collect();
            assert!(all.iter().eq(timers.iter().map(|timer| &timer.id)), "each once, in order");
        }
        let made = releases(&timers, one.len() + 47, |_| Some(one.clone()));
        assert_eq!((made.commands.len(), made.unreadable.len()), (0, 500), "larger than any item");
    }

    #[test]
    fn a_batch_from_times_when_an_entry_took_more_leaves_in_parts() {
        let texts: Vec<String> = (0..9).map(|number| number.to_string().repeat(1_000)).collect();
        let whole = batch(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut timers: Vec<Timer> = (0..9).map(|number| timer(1, 5, number, 9)).collect();
        timers.push(timer(1, 6, 0, 1));
        let alone = batch(&["alone"]);
        let read =
            |timer: &Timer| Some(if timer.count == 9 { whole.clone() } else { alone.clone() });
        let made = releases(&timers, 5_000, read);
        assert!(made.unreadable.is_empty() && made.looked_at == 10);
        let lengths =
            made.commands.iter().map(|command| command.encode().iter().map(Bytes::len).sum());
        assert!(lengths.max().is_some_and(|longest: usize| longest <= 5_000));
        let came: Vec<Bytes> =
            made.commands.iter().flat_map(bodies).flat_map(|(_, bodies)| bodies).collect();
        assert!(came.iter().eq(texts.iter().map(String::as_str).chain(["alone"])));
    }

    #[test]
    fn what_was_carried_on_meanwhile_is_read_from_where_it_lies_now() {
        let mut timers = [timer(1, 5, 0, 2), timer(1, 5, 1, 2), timer(1, 6, 0, 1)];
        let before = timers;
        assert!(!follow(&mut timers, |id| before.iter().find(|timer| timer.id == id).copied()));
        let at = Position { index: 90, byte: 32 };
        let moved = |id: TimerId| match id.index {
            5 => before.iter().find(|timer| timer.id == id).map(|timer| Timer { at, ..*timer }),
            _ => None, // taken back
        };
        assert!(follow(&mut timers, moved));
        assert_eq!(timers, [Timer { at, ..before[0] }, Timer { at, ..before[1] }, before[2]]);
        assert!(!follow(&mut timers, moved), "once it is known");
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
        let alone = message_of(&timer(1, 5, 1, 2), &bytes).unwrap();
        let read = RecordBatch::check(alone.clone(), &BatchLimits::FORMAT).unwrap();
        assert_eq!(read.records().next().unwrap().unwrap().body_bytes(), "two".repeat(100));
        assert!(has_key(&alone, b"two") && !has_key(&alone, b"one"));
    }
}

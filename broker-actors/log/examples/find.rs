//! Measures finding messages in a log on the real disk:
//! `cargo run --release -p grus-log --example find -- fill FOLDER MESSAGES BYTES` stores them, each with
//! a key of its own, and says what noting them and making their tables costs;
//! `... -- look FOLDER MESSAGES` opens the log again and looks some of them up, one by one.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grus_log::{
    AppendError, CheckpointData, EntryKind, FindBy, FindIndex, FindQuery, Log, LogConfig, NewEntry,
    Position, RealDisk, Run,
};
use grus_protocol::batch::{BatchBuilder, NewRecord};
use grus_protocol::ids::{MessageId, Offset, QueueId, QueueKey, Term, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;

const QUEUE: QueueKey = QueueKey { topic: TopicId(1), queue: QueueId(0) };
/// Messages of a batch, as of an entry.
const BATCH: u64 = 1_000;
/// Look-ups of each kind.
const LOOKS: u64 = 1_000;
/// Messages of one millisecond.
const PER_MS: u64 = 2_500;
const FEED_BYTES: u64 = 16 * 1024 * 1024;

/// The id of message `number`: as the client makes them, without its randomness.
fn id(number: u64) -> MessageId {
    let mut random = [0x5a; 10];
    random[2..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    MessageId::from_parts(TimestampMs(1_700_000_000_000 + number / PER_MS), &random)
}

fn key(number: u64) -> Bytes {
    format!("key-{number}").into_bytes().into()
}

fn batch(first: u64, body: &Bytes) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for number in first..first + BATCH {
        let born = TimestampMs(1_700_000_000_000 + number / PER_MS);
        let record =
            NewRecord { keys: vec![key(number)], ..NewRecord::new(id(number), born, body.clone()) };
        builder.push(&record).unwrap();
    }
    builder.finish()
}

struct Bench {
    log: Log<RealDisk>,
    index: FindIndex<RealDisk>,
    /// Processor time of the thread, in nanoseconds.
    fed_ns: u64,
    built_ns: u64,
    longest_step: Duration,
}

impl Bench {
    fn open(folder: &Path) -> Self {
        let config = LogConfig { find_index: true, ..LogConfig::default() };
        let begun = Instant::now();
        let (log, _) = Log::open(&RealDisk, folder, config).unwrap();
        println!("opened in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
        let index = FindIndex::new(RealDisk, folder.to_path_buf());
        Self { log, index, fed_ns: 0, built_ns: 0, longest_step: Duration::ZERO }
    }

    fn work(&mut self) {
        while let Some(job) = self.log.next_job() {
            self.log.complete(job.run()).unwrap();
        }
    }

    fn append(&mut self, entry: &NewEntry<'_>) {
        while let Err(error) = self.log.append(&[*entry]) {
            assert_eq!(error, AppendError::NoRoom);
            self.work();
        }
        self.work();
    }

    fn feed(&mut self) {
        let feed = self.log.find_feed(u64::MAX);
        let begun = processor_ns();
        assert!(self.index.feed(feed).is_empty());
        self.fed_ns += processor_ns() - begun;
    }

    fn build(&mut self) {
        while let Some(view) = self.log.next_find_build() {
            let begun = processor_ns();
            let mut built = self.index.begin_build(view);
            while built.is_none() {
                let step = Instant::now();
                built = self.index.build_step();
                self.longest_step = self.longest_step.max(step.elapsed());
            }
            self.log.find_built(&built.unwrap());
            self.built_ns += processor_ns() - begun;
        }
    }

    fn fill(&mut self, messages: u64, bytes: usize) {
        let body: Bytes = (0..bytes).map(|at| (at * 31 % 251) as u8).collect::<Vec<u8>>().into();
        let begun = Instant::now();
        let (mut stored, mut sealed) = (0, false);
        for index in 0.. {
            let first = index * BATCH;
            if first >= messages {
                break;
            }
            let seals = self.log.should_seal();
            let kind = if seals { EntryKind::Seal } else { EntryKind::Normal };
            let payload = [batch(first, &body)];
            let length = u32::try_from(payload[0].len()).unwrap();
            self.append(&NewEntry { kind, term: 1, index, payload: &payload });
            self.log.index_add(Run {
                queue: QUEUE,
                base: Offset(first),
                count: u32::try_from(BATCH).unwrap(),
                at: Position { index, byte: 0 },
                length,
                term: Term(1),
                stored: TimestampMs(first),
                born_max: TimestampMs(first),
                tag_bloom: 0,
            });
            stored += u64::from(length);
            if self.log.find_waiting_bytes() >= FEED_BYTES {
                self.feed();
            }
            if seals {
                let (membership, parts, full) = (Bytes::new(), Vec::new(), !sealed);
                sealed = true;
                let data = CheckpointData { index, term: 1, membership, full, parts, digest: 0 };
                self.log.checkpoint(data).unwrap();
                self.work();
                self.feed();
                self.build();
            }
        }
        self.feed();
        let each = |took_ns: u64| took_ns as f64 / messages as f64;
        println!(
            "{messages} messages of {bytes} B, {:.2} GB in batches, {} segments, {:.1} s in all",
            stored as f64 / 1e9,
            self.log.stats().segments,
            begun.elapsed().as_secs_f64()
        );
        println!(
            "processor time: noting {:.1} ns a message, tables {:.1} ns a message; longest step {:.2} ms",
            each(self.fed_ns),
            each(self.built_ns),
            self.longest_step.as_secs_f64() * 1e3
        );
    }

    fn look(&mut self, what: &str, by: impl Fn(u64) -> FindBy, messages: u64, expected: usize) {
        let views = self.log.find_views();
        let mut took = Vec::new();
        let mut scanned = 0;
        for nth in 0..LOOKS {
            // In no order.
            let number = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) % messages;
            let query = FindQuery { by: by(number), messages_max: 10, scope: None };
            let begun = Instant::now();
            let outcome = self.index.search(&query, &views);
            took.push(begun.elapsed());
            scanned += outcome.scanned_bytes + outcome.unsearched_bytes;
            assert_eq!(outcome.matches.len(), expected, "{what} {number}");
        }
        took.sort_unstable();
        let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64();
        println!(
            "{what:<16} p50 {:.3} ms, p99 {:.3} ms, longest {:.3} ms; {scanned} B read without a table",
            at(50) * 1e3,
            at(99) * 1e3,
            at(100) * 1e3
        );
    }
}

/// How long this thread has been on a processor.
fn processor_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", folder, messages, bytes] => {
            let mut bench = Bench::open(Path::new(folder));
            bench.fill(messages.parse().unwrap(), bytes.parse().unwrap());
        }
        ["look", folder, messages] => {
            let mut bench = Bench::open(Path::new(folder));
            let messages: u64 = messages.parse().unwrap();
            // What lies behind the last seal is applied again by a broker; here it is left out.
            let there = messages * 9 / 10;
            let stranger = |number| {
                let mut bytes = *id(number).as_bytes();
                bytes[15] ^= 0x55;
                FindBy::Id(MessageId::from_bytes(bytes))
            };
            let by_key = |key| FindBy::Key { topic: QUEUE.topic, key };
            bench.look("id, there", |number| FindBy::Id(id(number)), there, 1);
            bench.look("id, not there", stranger, there, 0);
            bench.look("key, there", |number| by_key(key(number)), there, 1);
            let nobody = |number| by_key(format!("nobody-{number}").into_bytes().into());
            bench.look("key, not there", nobody, there, 0);
        }
        _ => println!("fill FOLDER MESSAGES BYTES, or look FOLDER MESSAGES"),
    }
}

//! What scheduled messages cost in memory and in checkpoints: `cargo run --release --example
//! delay_state -- [messages] [records of a batch]`. Applies Schedule items to a state machine, then
//! saves it and reads it back.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::Instant;

use bytes::Bytes;
use grus_broker::commands::delay::Scheduling;
use grus_broker::commands::{Command, TopicConfig};
use grus_broker::machine::{Machine, Moment};
use grus_protocol::batch::{BatchBuilder, NewRecord};
use grus_protocol::ids::{MessageId, QueueId, QueueKey, ShardId, Term, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::names::TopicName;

/// Due times spread over thirty days, in no order.
const SPREAD_MS: u64 = 30 * 86_400_000;
/// Batches of one entry.
const BATCHES_PER_ENTRY: u64 = 500;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let messages = arguments.next().unwrap_or(10_000_000);
    let records = arguments.next().unwrap_or(1).max(1);
    let queue = QueueKey { topic: TopicId(1), queue: QueueId(0) };
    let mut machine = Machine::new(ShardId(0));
    let mut moment = Moment { term: Term(1), index: 1, time: TimestampMs(1), byte: 18 };
    machine.apply(moment, Command::TopicConfig(topic()));
    let batch = batch(records);
    let (before, start) = (anonymous_bytes(), Instant::now());
    for nth in 0..messages / records {
        if nth % BATCHES_PER_ENTRY == 0 {
            (moment.index, moment.byte) = (moment.index + 1, 18);
        }
        moment.byte += 2_048;
        let due = (0..records)
            .map(|record| TimestampMs(scattered(nth * records + record) % SPREAD_MS))
            .collect();
        let scheduling = Scheduling::new(queue, None, due, batch.clone());
        machine.apply(moment, Command::Schedule(scheduling));
    }
    let bytes = anonymous_bytes() - before;
    let pending = machine.timers().pending();
    println!("{pending} pending, stored in {:.2?}", start.elapsed());
    println!("{} MB anonymous, {} bytes each", bytes >> 20, bytes / pending.max(1));

    let start = Instant::now();
    let timers = machine.timers_mut();
    let runs: Vec<_> = timers.runs_behind(None).map(|(run, _)| run).collect();
    for run in runs {
        timers.next_due(run, (TimestampMs(0), grus_broker::timers::TimerId::FIRST));
    }
    let bytes = anonymous_bytes() - before;
    println!("{} MB once all runs are sorted, which took {:.2?}", bytes >> 20, start.elapsed());

    let start = Instant::now();
    let parts = machine.all_parts();
    let saved: usize = parts.iter().map(|part| part.value.as_ref().map_or(0, Bytes::len)).sum();
    let each = saved / pending.max(1);
    println!("{saved} bytes in a whole checkpoint, {each} each, made in {:.2?}", start.elapsed());
    let start = Instant::now();
    let mut read = Machine::new(ShardId(0));
    read.restore(parts).expect("what was saved reads back");
    println!("read back in {:.2?}", start.elapsed());
    assert_eq!(read.timers().pending(), pending);
}

fn topic() -> TopicConfig {
    let name = TopicName::try_from("later").expect("a name");
    TopicConfig::plain(TopicId(1), name, vec![QueueId(0)])
}

fn batch(records: u64) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    for _ in 0..records {
        let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(1), "body")).expect("a small record");
    }
    builder.finish()
}

/// A number that has nothing to do with those of its neighbours (SplitMix64).
const fn scattered(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// Anonymous memory of this process, by the kernel.
fn anonymous_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}

//! How fast a shard alone takes and gives batches: no sockets, no protocol, one process.
//!
//! `cargo run --release -p grus-broker --example shard_speed -- FOLDER [persisted|replicated]
//! [body bytes] [records per batch] [batches in flight] [entries in flight] [seconds]`
//!
//! Prints one line: time to start, settings, MB/s and messages/s produced, receipts' p50 and p99, MB/s fetched.

use std::collections::VecDeque;
use std::error::Error;
use std::path::PathBuf;

use grus_broker::shard::{ShardPlaces, ShardRequest, ShardSettings, TopicConfig, start};
use grus_broker::topic_queue::{Fetch, Produce, QueueHandle};
use grus_mailbox::reply::port;
use grus_mailbox::{Clock, Places, Process, System};
use grus_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use grus_protocol::ids::{
    BrokerId, Durability, MessageId, Offset, QueueId, QueueKey, ShardId, Term, TimestampMs, TopicId,
};
use grus_protocol::limits::BatchLimits;
use grus_protocol::names::TopicName;

type Anything = Box<dyn Error>;

struct Options {
    folder: PathBuf,
    durability: Durability,
    body_bytes: usize,
    records: usize,
    batches_in_flight: usize,
    entries_in_flight: usize,
    seconds: u64,
}

fn options() -> Result<Options, Anything> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| -> Result<usize, Anything> {
        Ok(arguments.get(at).map_or(Ok(default), |text| text.parse())?)
    };
    let durability = match arguments.get(1).map(String::as_str) {
        Some("replicated") => Durability::Replicated,
        _ => Durability::Persisted,
    };
    Ok(Options {
        folder: arguments.first().ok_or("which folder?")?.into(),
        durability,
        body_bytes: number(2, 1024)?,
        records: number(3, 1000)?,
        batches_in_flight: number(4, 8)?,
        entries_in_flight: number(5, 1)?,
        seconds: number(6, 5)? as u64,
    })
}

fn batch(options: &Options) -> Result<RecordBatch, Anything> {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    let body = vec![7_u8; options.body_bytes];
    for _ in 0..options.records {
        let id = MessageId::from_parts(TimestampMs(1), &[3; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(1), body.clone()))?;
    }
    Ok(RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE)?)
}

/// Produces for a while; bytes, batches, and the latencies of receipts in nanoseconds.
async fn produce(
    queue: &QueueHandle,
    options: &Options,
    clock: Clock,
) -> Result<(u64, Vec<u64>), Anything> {
    let batch = batch(options)?;
    let (mut bytes, mut waits, mut under_way) = (0, Vec::new(), VecDeque::new());
    let end_ns = clock.monotonic_ns() + options.seconds * 1_000_000_000;
    loop {
        let is_over = clock.monotonic_ns() >= end_ns;
        while !is_over && under_way.len() < options.batches_in_flight {
            let (reply, answer) = port();
            queue
                .produce
                .put(Produce { batch: batch.clone(), dedup_key: None, due: None, reply })
                .await?;
            under_way.push_back((clock.monotonic_ns(), answer));
        }
        let Some((sent_ns, answer)) = under_way.pop_front() else { break };
        answer.await??;
        bytes += u64::from(batch.len_bytes());
        waits.push(clock.monotonic_ns() - sent_ns);
    }
    Ok((bytes, waits))
}

async fn consume(queue: &QueueHandle) -> Result<u64, Anything> {
    let (mut offset, mut bytes) = (Offset(0), 0);
    loop {
        let (reply, answer) = port();
        let fetch = Fetch { offset, last_term: Term(0), bytes_max: 1 << 20, wait_ms: 0, reply };
        queue.fetch.put(fetch).await?;
        let fetched = answer.await??;
        let Some(last) = fetched.batches.last() else { return Ok(bytes) };
        offset = Offset(last.base_offset.0 + u64::from(last.count));
        bytes += fetched.batches.iter().map(|batch| batch.bytes.len() as u64).sum::<u64>();
    }
}

async fn run(options: Options) -> Result<(), Anything> {
    let process = Process::system();
    let clock = process.clock;
    let mut places = Places::start(1, &process);
    let at = ShardPlaces {
        core: places.core(0).clone(),
        flush: places.open("flush"),
        reader: places.open("reader"),
        finder: places.open("finder"),
    };
    let folder = options.folder.clone();
    let mut settings = ShardSettings::new(ShardId(0), BrokerId(1), folder, options.durability);
    settings.gather.in_flight_max = options.entries_in_flight;
    let begin_ns = clock.monotonic_ns();
    let shard = start(at, settings).await?;
    let start_ms = (clock.monotonic_ns() - begin_ns) / 1_000_000;
    let plain = TopicConfig::plain(TopicId(1), TopicName::try_from("speed")?, vec![QueueId(0)]);
    let config = TopicConfig { durability: options.durability, ..plain };
    let (reply, opened) = port();
    shard.handle().inbox.put(ShardRequest::OpenTopic { config, reply }).await?;
    opened.await??;
    let key = QueueKey { topic: TopicId(1), queue: QueueId(0) };
    let queue = shard.handle().queue(key).ok_or("the queue is not there")?;

    let begin_ns = clock.monotonic_ns();
    let (bytes, mut waits) = produce(&queue, &options, clock).await?;
    let produced_ns = clock.monotonic_ns() - begin_ns;
    let begin_ns = clock.monotonic_ns();
    let read = consume(&queue).await?;
    let consumed_ns = clock.monotonic_ns() - begin_ns;
    waits.sort_unstable();
    let megabytes = |bytes: u64, ns: u64| bytes * 1000 / ns.max(1);
    let messages = waits.len() as u64 * options.records as u64;
    println!(
        "start {start_ms} ms; {:?} body {} B x {}, {} batches and {} entries in flight: {} MB/s, {} messages/s, p50 {} us, \
         p99 {} us; fetch {} MB/s",
        options.durability,
        options.body_bytes,
        options.records,
        options.batches_in_flight,
        options.entries_in_flight,
        megabytes(bytes, produced_ns),
        messages * 1_000_000_000 / produced_ns.max(1),
        waits[waits.len() / 2] / 1000,
        waits[waits.len() * 99 / 100] / 1000,
        megabytes(read, consumed_ns),
    );
    shard.stop().await;
    places.stop_and_join().await;
    Ok(())
}

fn main() -> Result<(), Anything> {
    let options = options()?;
    System::new().block_on(run(options))
}

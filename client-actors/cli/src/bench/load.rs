//! Load on a broker: producing, consuming, and one message at a time.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use grus_client::{Client, ClientConfig, Message, ProducerConfig, ReadMode, ReaderConfig, StartAt};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::body::Bodies;
use super::pace::Pace;
use super::sound::Sound;
use super::stopwatch::Stopwatch;
use crate::failure::Failure;

/// What a load is made of.
#[derive(Debug, Clone)]
pub struct Load {
    /// Brokers to begin with.
    pub bootstrap: Vec<String>,
    /// How long to wait for one of them to answer.
    pub connect_wait_max: Duration,
    /// Topic; it must exist.
    pub topic: String,
    /// Bytes of a message's body.
    pub body_bytes: usize,
    /// Messages a batch.
    pub batch: usize,
    /// Batches on their way at once, per connection.
    pub in_flight: usize,
    /// Connections, each a client of its own.
    pub connections: usize,
    /// How long to go on.
    pub time: Duration,
    /// Messages a second to send, over all connections; none: as fast as receipts come.
    pub rate: Option<u64>,
    /// How long after they are taken messages are due; none: they are not scheduled.
    pub delay: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Rate {
    /// Messages stored or read.
    pub messages: u64,
    /// Body bytes of these.
    pub bytes: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// Body bytes, in decimal megabytes, a second.
    pub mb_per_s: f64,
    /// Messages a second.
    pub messages_per_s: f64,
    /// Time from handing a batch over, or from when it was due at a given rate, to its receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_ms: Option<Percentiles>,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// 999 of 1000 are at most this.
    pub p999: f64,
    /// The worst.
    pub max: f64,
}

impl Rate {
    fn new(messages: u64, bytes: u64, elapsed: Duration, times: Option<&Histogram<u64>>) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self {
            messages,
            bytes,
            seconds,
            mb_per_s: bytes as f64 / 1e6 / seconds,
            messages_per_s: messages as f64 / seconds,
            batch_ms: times.map(Percentiles::of),
        }
    }
}

impl Percentiles {
    /// Of a histogram of microseconds.
    pub fn of(times: &Histogram<u64>) -> Self {
        let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: ms(0.5), p99: ms(0.99), p999: ms(0.999), max: times.max() as f64 / 1e3 }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order")
}

fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
}

async fn connect(load: &Load) -> Result<Client, Failure> {
    let mut config = ClientConfig::new(&load.bootstrap);
    config.connect_wait_max = Some(load.connect_wait_max);
    Client::connect(config).await.map_err(|error| {
        Failure::because(format!("no broker at {}", load.bootstrap.join(", ")), error)
    })
}

/// Sends until the time is up, then waits for the receipts that are still out.
///
/// # Errors
/// The first message that was not stored.
pub async fn produce(load: &Load) -> Result<Rate, Failure> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        clients.push(connect(load).await?);
    }
    let watch = Stopwatch::start();
    let mut lanes: FuturesUnordered<_> = clients
        .iter()
        .enumerate()
        .map(|(lane, client)| lane_of(load, client, lane, watch))
        .collect();
    let (mut messages, mut times) = (0, histogram());
    while let Some(lane) = lanes.next().await {
        let (sent, taken) = lane?;
        messages += sent;
        times.add(&taken).expect("histograms of one shape");
    }
    let elapsed = watch.elapsed();
    drop(lanes);
    for client in clients {
        client.close().await;
    }
    Ok(Rate::new(messages, messages * load.body_bytes as u64, elapsed, Some(&times)))
}

async fn lane_of(
    load: &Load,
    client: &Client,
    lane: usize,
    watch: Stopwatch,
) -> Result<(u64, Histogram<u64>), Failure> {
    let told = |error: &dyn std::fmt::Display| Failure::because("a message was not stored", error);
    let config = ProducerConfig::new(&load.topic).map_err(|error| told(&error))?;
    let producer = client.producer(config).map_err(|error| told(&error))?;
    let mut bodies = Bodies::new(load.body_bytes);
    let (mut sent, mut stored, mut times) = ((lane as u64) << 40, 0, histogram());
    let pace = Pace::new(load.rate, load.batch, load.connections, lane);
    let (mut out, mut batches) = (VecDeque::new(), 0);
    loop {
        let now = watch.elapsed();
        let going = now < load.time;
        if !going && out.is_empty() {
            return Ok((stored, times));
        }
        let has_room = going && out.len() < load.in_flight;
        let due = pace.map_or(now, |pace| pace.due(batches));
        if has_room && due <= now {
            let message = |body| match load.delay {
                None => Message::new(body),
                Some(delay) => Message::new(body).delay(delay),
            };
            let batch: Vec<Message> =
                bodies.make(sent, load.batch).into_iter().map(message).collect();
            sent += load.batch as u64;
            batches += 1;
            let pending = producer.enqueue_batch(batch).await.map_err(|error| told(&error))?;
            out.push_back((due, pending));
            continue;
        }
        let until_due = tokio::time::sleep(due.min(load.time).saturating_sub(now));
        let Some((since, pending)) = out.front_mut() else {
            until_due.await;
            continue;
        };
        tokio::select! {
            receipts = pending => {
                receipts.map_err(|error| told(&error))?;
                record(&mut times, watch.elapsed().saturating_sub(*since));
                stored += load.batch as u64;
                out.pop_front();
            }
            () = until_due, if has_room => {}
        }
    }
}

/// Reads `messages` messages from the beginning, checking each body and that none is missing.
///
/// # Errors
/// A body that is not as it was sent, or a broker that cannot be read.
pub async fn consume(load: &Load, messages: u64, mode: ReadMode) -> Result<Rate, Failure> {
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        clients.push(connect(load).await?);
    }
    let each = messages / load.connections as u64;
    let watch = Stopwatch::start();
    let mut lanes: FuturesUnordered<_> =
        clients.iter().map(|client| read_lane(load, client, each, mode)).collect();
    let (mut count, mut bytes) = (0, 0);
    while let Some(lane) = lanes.next().await {
        let (read, size) = lane?;
        count += read;
        bytes += size;
    }
    Ok(Rate::new(count, bytes, watch.elapsed(), None))
}

async fn read_lane(
    load: &Load,
    client: &Client,
    messages: u64,
    mode: ReadMode,
) -> Result<(u64, u64), Failure> {
    let told = |error: &dyn std::fmt::Display| Failure::because("cannot read", error);
    let mut config =
        ReaderConfig::new(&load.topic, StartAt::First).map_err(|error| told(&error))?;
    config.mode = mode;
    let mut reader = client.reader(config).map_err(|error| told(&error))?;
    let (mut read, mut bytes, mut sound) = (0, 0, Sound::default());
    while read < messages {
        // Load and broker share the processors: messages are looked at where they lie.
        let batch = reader.next_stored_batch().await.map_err(|error| told(&error))?;
        let (count, size) = sound.look(&batch).map_err(|error| told(&error))?;
        read += count;
        bytes += size;
    }
    Ok((read, bytes))
}

/// Sends one message after the other, each when the receipt of the one before has come.
///
/// # Errors
/// The first message that was not stored.
pub async fn one_by_one(load: &Load) -> Result<(u64, Percentiles), Failure> {
    let told = |error: &dyn std::fmt::Display| Failure::because("a message was not stored", error);
    let client = connect(load).await?;
    let config = ProducerConfig::new(&load.topic).map_err(|error| told(&error))?;
    let producer = client.producer(config).map_err(|error| told(&error))?;
    let mut bodies = Bodies::new(load.body_bytes);
    let (mut sent, mut times) = (0, histogram());
    let watch = Stopwatch::start();
    while watch.elapsed() < load.time {
        let body = bodies.make(sent, 1).remove(0);
        let one = Stopwatch::start();
        producer.send(Message::new(body)).await.map_err(|error| told(&error))?;
        record(&mut times, one.elapsed());
        sent += 1;
    }
    Ok((sent, Percentiles::of(&times)))
}

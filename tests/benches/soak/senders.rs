//! Those who send, and what all threads of the run know of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use grus_cli::bench::body::Bodies;
use grus_cli::bench::pace::Pace;
use grus_client::{Client, ClientConfig, Message, ProducerConfig, SendError};
use grus_tests::watch::Watch;
use hdrhistogram::Histogram;

use crate::TOPIC;
use crate::judge::Batch;

/// Messages a batch.
pub(crate) const BATCH: usize = 1_000;
/// Batches under way at once, per connection, as fast as receipts come.
const IN_FLIGHT: usize = 8;
/// The same at a given rate: an open loop, so as many as a restart may hold back.
const IN_FLIGHT_PACED: usize = 256;

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) bootstrap: SocketAddr,
    pub(crate) body_bytes: usize,
    pub(crate) connections: usize,
    /// Messages a second over all connections; none: as fast as receipts come.
    pub(crate) rate: Option<u64>,
    pub(crate) time: Duration,
    /// Loads of one topic have numbers, which their messages carry.
    pub(crate) round: u64,
}

/// What senders, reader and samples share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Messages acknowledged so far.
    pub(crate) stored: AtomicU64,
    /// Messages read so far.
    pub(crate) read: AtomicU64,
    /// Batches that were acknowledged and that the judge has not heard of.
    acked: Mutex<Vec<Batch>>,
    /// Microseconds that batches waited since they were last asked for.
    waits: Mutex<Histogram<u64>>,
    senders: AtomicUsize,
    failed: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            stored: AtomicU64::new(0),
            read: AtomicU64::new(0),
            acked: Mutex::default(),
            waits: Mutex::new(histogram()),
            senders: AtomicUsize::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order")
}

impl Shared {
    /// The batches acknowledged since this was last asked.
    pub(crate) fn acked(&self) -> Vec<Batch> {
        std::mem::take(&mut self.acked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long batches waited since this was last asked.
    pub(crate) fn waits(&self) -> Histogram<u64> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut waits, histogram())
    }

    /// Whether anybody still sends.
    pub(crate) fn is_sent(&self) -> bool {
        self.senders.load(Relaxed) == 0
    }

    /// Batches that were not acknowledged so far.
    pub(crate) fn failed_count(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    fn failed(&self, batch: Batch, error: &SendError) {
        println!("{batch:?}: {error}");
        self.failed.fetch_add(1, Relaxed);
    }

    fn took(&self, batch: Batch, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX).max(1);
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
        self.stored.fetch_add(BATCH as u64, Relaxed);
    }
}

/// Sends until the time is up and all receipts are here.
pub(crate) async fn send(load: &Load, shared: &Shared) {
    shared.senders.store(load.connections, Relaxed);
    let watch = Watch::start();
    join_all((0..load.connections).map(|lane| async move {
        one(load, shared, lane, watch).await;
        shared.senders.fetch_sub(1, Relaxed);
    }))
    .await;
}

async fn one(load: &Load, shared: &Shared, lane: usize, watch: Watch) {
    let config = ClientConfig::new([load.bootstrap.to_string()]);
    let client = Client::connect(config).await.expect("a broker");
    let producer = client.producer(ProducerConfig::new(TOPIC).expect("a name"));
    let producer = producer.expect("a producer");
    let mut bodies = Bodies::new(load.body_bytes);
    let pace = Pace::new(load.rate, BATCH, load.connections, lane);
    let in_flight = if pace.is_some() { IN_FLIGHT_PACED } else { IN_FLIGHT };
    let (mut out, mut number) = (VecDeque::new(), 0);
    loop {
        let now = watch.elapsed();
        let going = now < load.time;
        if !going && out.is_empty() {
            break;
        }
        let has_room = going && out.len() < in_flight;
        let due = pace.map_or(now, |pace| pace.due(number));
        if has_room && due <= now {
            let batch = Batch::new(load.round, lane, number);
            let made = bodies.make(batch.first_sequence(), BATCH).into_iter().map(Message::new);
            let pending = producer.enqueue_batch(made.collect()).await.expect("it is taken");
            out.push_back((due, batch, pending));
            number += 1;
            continue;
        }
        let until_due = tokio::time::timeout(
            due.min(load.time).saturating_sub(now),
            std::future::pending::<()>(),
        );
        let Some((since, batch, pending)) = out.front_mut() else {
            let _ = until_due.await;
            continue;
        };
        tokio::select! {
            receipts = pending => {
                match receipts {
                    Ok(_) => shared.took(*batch, watch.elapsed().saturating_sub(*since)),
                    Err(error) => shared.failed(*batch, &error),
                }
                out.pop_front();
            }
            _ = until_due, if has_room => {}
        }
    }
    client.close().await;
}

//! What the tests of this binary share: a shard with its places, batches, and short questions.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use grus_broker::error::QueueError;
use grus_broker::shard::{
    InitializedProducer, Shard, ShardHandle, ShardPlaces, ShardRequest, ShardSettings,
    ShardStartError, ShardStatus, TopicConfig, start_on,
};
use grus_broker::topic_queue::{
    At, Fetch, Fetched, ListedOffset, Produce, QueueAsk, QueueHandle, QueueStatus, Receipt,
};
use grus_log::{Disk, SimDisk};
use grus_mailbox::reply::{Answer, port};
use grus_mailbox::{Clock, Fatal, FatalPort, Places, Process};
use grus_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use grus_protocol::ids::{
    BrokerId, Durability, MessageId, Offset, ProducerEpoch, ProducerId, QueueId, QueueKey,
    Sequence, ShardId, Term, TimestampMs, TopicId,
};
use grus_protocol::limits::BatchLimits;
use grus_protocol::names::{ProducerName, TopicName};
use tokio::sync::mpsc::UnboundedReceiver;

/// A shard and the threads it lives on.
pub struct Bench<D: Disk> {
    pub disk: D,
    pub settings: ShardSettings,
    pub places: Places,
    pub shard: Shard<D>,
    pub fatals: UnboundedReceiver<Fatal>,
}

/// Settings with small segments, in `folder`.
pub fn settings(folder: PathBuf, durability: Durability) -> ShardSettings {
    let mut settings = ShardSettings::new(ShardId(0), BrokerId(1), folder, durability);
    settings.log.first_segment_bytes = 256 * 1024;
    settings.log.segment_bytes = 256 * 1024;
    settings
}

/// A persisted shard on a simulated disk.
pub async fn sim_bench() -> Bench<SimDisk> {
    Bench::start(SimDisk::new(7), settings("/data/0".into(), Durability::Persisted)).await
}

impl<D: Disk> Bench<D> {
    pub async fn start(disk: D, settings: ShardSettings) -> Self {
        Self::try_start(disk, settings).await.map_err(|error| error.to_string()).unwrap()
    }

    pub async fn try_start(disk: D, settings: ShardSettings) -> Result<Self, ShardStartError> {
        let (fatal, fatals) = FatalPort::channel();
        let process = Process::new(Clock::system().with_hand(), fatal);
        let mut places = Places::start(1, &process);
        let at = ShardPlaces {
            core: places.core(0).clone(),
            flush: places.open("flush"),
            reader: places.open("reader"),
            finder: places.open("finder"),
        };
        match start_on(disk.clone(), at, settings.clone()).await {
            Ok(shard) => Ok(Self { disk, settings, places, shard, fatals }),
            Err(error) => {
                places.stop_and_join().await;
                Err(error)
            }
        }
    }

    /// Moves the wall time of the shard ahead.
    pub fn move_clock(&self, ms: u64) {
        let hand = self.places.process().clock.hand().unwrap();
        hand.move_by(i64::try_from(ms).unwrap());
    }

    pub fn handle(&self) -> &ShardHandle {
        self.shard.handle()
    }

    /// Stops in order; nobody may have panicked, nobody may be left.
    pub async fn stop(mut self) -> (D, ShardSettings) {
        self.shard.stop().await;
        assert!(self.places.process().census.is_empty(), "actors are left running");
        assert_eq!(self.places.stop_and_join().await, Vec::<Arc<str>>::new());
        assert!(self.fatals.try_recv().is_err(), "nothing fatal happened");
        (self.disk, self.settings)
    }

    /// Ends all threads without a word to any actor.
    pub async fn abandon(self) -> (D, ShardSettings) {
        self.places.stop_and_join().await;
        (self.disk, self.settings)
    }

    /// Stops in order and starts again.
    pub async fn restart(self) -> Self {
        let (disk, settings) = self.stop().await;
        Self::start(disk, settings).await
    }

    pub async fn open(&self, config: TopicConfig) -> Result<Vec<Arc<QueueHandle>>, QueueError> {
        let request = |reply| ShardRequest::OpenTopic { config, reply };
        self.ask(request).await.map(|opened| opened.queues)
    }

    pub async fn drop_topic(&self, topic: u64) -> Result<(), QueueError> {
        self.ask(|reply| ShardRequest::DropTopic { topic: TopicId(topic), reply }).await
    }

    pub async fn init_producer(&self, name: Option<&str>) -> InitializedProducer {
        let name = name.map(|name| ProducerName::try_from(name).unwrap());
        self.ask(|reply| ShardRequest::InitProducer { name, reply }).await.unwrap()
    }

    pub async fn status(&self) -> ShardStatus {
        self.ask(|reply| ShardRequest::Status { reply }).await
    }

    pub async fn ask<T>(&self, request: impl FnOnce(grus_mailbox::Port<T>) -> ShardRequest) -> T {
        let (reply, answer) = port();
        self.handle().inbox.put(request(reply)).await.unwrap();
        answer.await.unwrap()
    }

    pub fn queue(&self, topic: u64, queue: u32) -> Arc<QueueHandle> {
        self.handle().queue(key(topic, queue)).expect("the queue lives here")
    }
}

pub fn key(topic: u64, queue: u32) -> QueueKey {
    QueueKey { topic: TopicId(topic), queue: QueueId(queue) }
}

/// A topic of `queues` queues that keeps everything.
pub fn topic(topic: u64, queues: u32) -> TopicConfig {
    let name = TopicName::try_from(format!("topic-{topic}").as_str()).unwrap();
    let plain = TopicConfig::plain(TopicId(topic), name, (0..queues).map(QueueId).collect());
    TopicConfig { dedup_window_ms: 600_000, ..plain }
}

/// A batch of these bodies, without a producer.
pub fn batch(bodies: &[&[u8]]) -> RecordBatch {
    stamped(bodies, ProducerId::NONE, ProducerEpoch(0), 0)
}

/// A batch of these bodies.
pub fn stamped(
    bodies: &[&[u8]],
    producer: ProducerId,
    epoch: ProducerEpoch,
    first: u64,
) -> RecordBatch {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    if producer != ProducerId::NONE {
        builder.set_producer(producer, epoch, Sequence(first));
    }
    for body in bodies {
        let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(1), body.to_vec())).unwrap();
    }
    RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap()
}

/// What the questions below are asked of.
pub trait Queue {
    fn send(&self, batch: RecordBatch)
    -> impl Future<Output = Answer<Result<Receipt, QueueError>>>;
    fn produce(&self, batch: RecordBatch) -> impl Future<Output = Result<Receipt, QueueError>>;
    fn fetch(
        &self,
        offset: u64,
        last_term: u64,
        wait_ms: u32,
    ) -> impl Future<Output = Answer<Result<Fetched, QueueError>>>;
    fn list(&self, at: At) -> impl Future<Output = Result<ListedOffset, QueueError>>;
    fn status(&self) -> impl Future<Output = QueueStatus>;
    /// All batches from the first offset on, fetched as a reader would.
    fn read_all(&self) -> impl Future<Output = Vec<(u64, Bytes)>>;
    /// All bodies there are.
    fn bodies(&self) -> impl Future<Output = Vec<Bytes>>;
}

impl Queue for QueueHandle {
    async fn send(&self, batch: RecordBatch) -> Answer<Result<Receipt, QueueError>> {
        let (reply, answer) = port();
        self.produce.put(Produce { batch, dedup_key: None, due: None, reply }).await.unwrap();
        answer
    }

    async fn produce(&self, batch: RecordBatch) -> Result<Receipt, QueueError> {
        self.send(batch).await.await.expect("a producer is answered")
    }

    async fn fetch(
        &self,
        offset: u64,
        last_term: u64,
        wait_ms: u32,
    ) -> Answer<Result<Fetched, QueueError>> {
        let (reply, answer) = port();
        let (offset, last_term) = (Offset(offset), Term(last_term));
        let fetch = Fetch { offset, last_term, bytes_max: 64 * 1024, wait_ms, reply };
        self.fetch.put(fetch).await.unwrap();
        answer
    }

    async fn list(&self, at: At) -> Result<ListedOffset, QueueError> {
        let (reply, answer) = port();
        self.ask.put(QueueAsk::ListOffset { at, reply }).await.unwrap();
        answer.await.unwrap()
    }

    async fn status(&self) -> QueueStatus {
        let (reply, answer) = port();
        self.ask.put(QueueAsk::Status { reply }).await.unwrap();
        answer.await.unwrap().unwrap()
    }

    async fn read_all(&self) -> Vec<(u64, Bytes)> {
        let mut next = self.list(At::First).await.unwrap().offset.0;
        let (mut last_term, mut all) = (0, Vec::new());
        loop {
            let fetched = self.fetch(next, last_term, 0).await.await.unwrap().unwrap();
            let Some(last) = fetched.batches.last() else {
                assert_eq!(next, fetched.end_offset.0, "an empty answer means the end");
                return all;
            };
            last_term = last.term.0;
            for batch in fetched.batches {
                assert_eq!(batch.base_offset.0, next, "offsets are dense");
                next += u64::from(batch.count);
                all.push((batch.base_offset.0, batch.bytes));
            }
        }
    }

    async fn bodies(&self) -> Vec<Bytes> {
        let mut bodies = Vec::new();
        for (_, bytes) in self.read_all().await {
            let batch = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
            bodies.extend(batch.records().map(|record| record.unwrap().body_bytes()));
        }
        bodies
    }
}

//! A broker that forgets nothing while the test lasts, and misbehaves on demand: it keeps its
//! queues in memory, takes batches only in sequence as the real one does, cuts connections at any
//! byte, answers with errors, falls silent, stops and comes back on the same port.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::struct_excessive_bools,
    reason = "test support: each test uses a part of it"
)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use grus_client::protocol::error::ErrorDetail;
use grus_client::protocol::message::TopicSettings;
use grus_client::protocol::{
    BatchLimits, ErrorCode, ErrorReply, Offset, ProducerEpoch, ProducerId, RecordBatch, Sequence,
    Term, TimestampMs, TopicId,
};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::task::JoinSet;

mod connection;
pub mod groups;
mod serve;

/// Longest that anything may take, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A batch as it is kept.
pub struct Kept {
    pub base_offset: Offset,
    pub stored: TimestampMs,
    pub term: Term,
    pub batch: RecordBatch,
}

/// One queue: batches as they came, and what is known of their producers.
#[derive(Default)]
pub struct Queue {
    pub batches: Vec<Kept>,
    pub log_start: Offset,
    pub end: Offset,
    known: HashMap<(ProducerId, ProducerEpoch), Known>,
}

#[derive(Default)]
struct Known {
    expected: u64,
    last_five: VecDeque<(u64, Offset)>,
}

impl Queue {
    /// Stores a batch in its turn; the offset it got, and whether it was there before.
    fn store(
        &mut self,
        batch: RecordBatch,
        now: TimestampMs,
        term: Term,
    ) -> Result<(Offset, bool), ErrorReply> {
        let known = self.known.entry((batch.producer_id(), batch.producer_epoch())).or_default();
        let first = batch.first_sequence().0;
        if let Some((_, offset)) = known.last_five.iter().find(|(had, _)| *had == first) {
            return Ok((*offset, true));
        }
        if first != known.expected {
            let expected = ErrorDetail::ExpectedSequence(Sequence(known.expected));
            let code = if first < known.expected {
                ErrorCode::DuplicateForgotten
            } else {
                ErrorCode::OutOfSequence
            };
            return Err(ErrorReply::new(code, "").with_detail(expected));
        }
        let offset = self.end;
        known.expected += u64::from(batch.count());
        known.last_five.push_back((first, offset));
        known.last_five.drain(..known.last_five.len().saturating_sub(5));
        self.end = Offset(offset.0 + u64::from(batch.count()));
        self.batches.push(Kept { base_offset: offset, stored: now, term, batch });
        Ok((offset, false))
    }

    /// The bodies of all records, in order.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        let plain = |kept: &Kept| kept.batch.decompressed(&BatchLimits::FORMAT).unwrap();
        let bodies = |batch: RecordBatch| -> Vec<_> {
            batch.records().map(|record| record.unwrap().body().to_vec()).collect()
        };
        self.batches.iter().map(plain).flat_map(bodies).collect()
    }
}

pub struct Topic {
    pub id: TopicId,
    pub settings: TopicSettings,
    pub queues: Vec<Queue>,
}

impl Topic {
    fn new(id: u64, settings: TopicSettings) -> Self {
        let queues = (0..settings.queues).map(|_| Queue::default()).collect();
        Self { id: TopicId(id), settings, queues }
    }
}

/// What goes wrong next.
#[derive(Default)]
pub struct Faults {
    /// For each connection to come: how many bytes pass, both ways together, before it is cut.
    pub cut_after_bytes: VecDeque<u64>,
    /// For each produce request to come: how it is refused, and whether it is stored all the same.
    pub produce: VecDeque<Option<(ErrorCode, bool)>>,
    /// Nothing is answered, not even a sign of life.
    pub is_mute: bool,
    /// Produce requests are not answered.
    pub ignores_produce: bool,
    /// Topics are not made by asking for their route.
    pub no_auto_create: bool,
    /// The compressions agreed on in Hello, bit n for compression n; others are refused.
    pub compressions: Option<u32>,
    /// What Hello agrees to is refused all the same.
    pub breaks_its_word: bool,
    /// The next reply to a request that changes topics is not sent: the connection is cut.
    pub cut_before_topic_reply: bool,
}

/// All the broker has.
pub struct State {
    pub topics: BTreeMap<String, Topic>,
    pub faults: Faults,
    pub term: Term,
    pub now: TimestampMs,
    pub connections: u64,
    pub produce_requests: u64,
    pub fetch_requests: u64,
    /// Fetches that wait for something to come.
    pub parked: u64,
    /// The one group there is.
    pub group: groups::Group,
    next_topic: u64,
    next_producer: u64,
}

impl State {
    pub fn make_topic(&mut self, name: &str, settings: TopicSettings) -> TopicId {
        self.next_topic += 1;
        self.topics.insert(name.to_owned(), Topic::new(self.next_topic, settings));
        TopicId(self.next_topic)
    }

    pub fn queue(&mut self, topic: &str, queue: usize) -> &mut Queue {
        &mut self.topics.get_mut(topic).unwrap().queues[queue]
    }

    /// The bodies of a topic's records, queue by queue.
    pub fn bodies(&self, topic: &str) -> Vec<Vec<Vec<u8>>> {
        self.topics[topic].queues.iter().map(Queue::bodies).collect()
    }
}

pub struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// See the module documentation. Its tasks run in the test's own runtime.
pub struct FakeBroker {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Bound and never listening: nobody else is given the port while it is not listened on.
    _kept: TcpSocket,
    tasks: Option<JoinSet<()>>,
}

impl FakeBroker {
    /// A broker that listens on a free port.
    pub async fn start() -> Self {
        let mut broker = Self::stopped();
        broker.resume().await;
        broker
    }

    /// A broker that does not listen yet, on a port that was free just now.
    pub fn stopped() -> Self {
        let kept = TcpSocket::new_v4().unwrap();
        kept.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        kept.set_reuseaddr(true).unwrap(); // as a listener does
        let address = kept.local_addr().unwrap();
        let state = State {
            topics: BTreeMap::new(),
            faults: Faults::default(),
            term: Term(1),
            now: TimestampMs(1_000_000),
            connections: 0,
            produce_requests: 0,
            fetch_requests: 0,
            parked: 0,
            group: groups::Group::default(),
            next_topic: 0,
            next_producer: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
        Self { shared, address, _kept: kept, tasks: None }
    }

    /// Listens (again), with all that was stored before.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let shared = Arc::clone(&self.shared);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let cut_after = {
                    let mut state = shared.lock();
                    state.connections += 1;
                    state.faults.cut_after_bytes.pop_front()
                };
                connections.spawn(connection::run(stream, Arc::clone(&shared), cut_after));
            }
        });
        self.tasks = Some(tasks);
    }

    /// Drops the listener and all connections, whatever was under way.
    pub async fn kill(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Makes a topic with so many queues.
    pub fn topic(&self, name: &str, queues: u32) -> TopicId {
        self.state().make_topic(name, TopicSettings { queues, ..TopicSettings::default() })
    }

    /// Waits until `is_so`.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&mut State) -> bool) {
        let waiting = async {
            while !is_so(&mut self.shared.lock()) {
                // What the broker sees changes with its requests; this is only for the impatient.
                let _ =
                    tokio::time::timeout(Duration::from_millis(20), self.shared.changed.notified())
                        .await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "it never came to be that {what}");
    }
}

//! Clients that send and read as fast as they can.

use std::collections::VecDeque;
use std::future::Future;
use std::thread;
use std::time::Duration;

use grus_client::{
    Client, ClientConfig, Message, PendingReceipt, ProducerConfig, Queues, ReaderConfig, StartAt,
};
use grus_protocol::ids::QueueId;
use grus_tests::broker::Home;
use grus_tests::watch::Watch;

const TOPIC: &str = "measured";
/// Messages under way per connection.
const OUTSTANDING_MAX: usize = 20_000;

/// What is measured.
#[derive(Clone, Copy)]
pub struct Load {
    /// Durability of the topic.
    pub durability: &'static str,
    /// Bytes of each message's body.
    pub body_bytes: usize,
    /// Connections, each with a queue of its own.
    pub connections: u32,
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn connect(address: &str) -> Client {
    Client::connect(ClientConfig::new([address])).await.expect("a broker")
}

impl Load {
    /// Creates the topic.
    pub fn create(&self, home: &Home) {
        let queues = self.connections.to_string();
        home.grus(&[
            "topic",
            "create",
            TOPIC,
            "--queues",
            &queues,
            "--durability",
            self.durability,
        ])
        .ok();
    }

    /// Sends for `time` on every connection: receipted messages per second, and how many there are.
    pub fn produce(&self, home: &Home, time: Duration) -> (f64, u64) {
        let watch = Watch::start();
        let sent: u64 = self.on_each(home, move |load, address, queue| {
            block_on(load.send_while(&address, queue, move |_| !watch.left(time).is_zero()))
        });
        (as_f64(sent) / watch.elapsed().as_secs_f64(), sent)
    }

    /// Sends until so many bytes of bodies are receipted.
    pub fn produce_bytes(&self, home: &Home, bytes: u64) {
        let each = bytes / self.body_bytes as u64 / u64::from(self.connections);
        self.on_each(home, move |load, address, queue| {
            block_on(load.send_while(&address, queue, move |sent| sent < each))
        });
    }

    /// Reads all `messages` on as many connections: messages per second.
    pub fn consume(&self, home: &Home, messages: u64) -> f64 {
        let watch = Watch::start();
        let read: u64 =
            self.on_each(home, |_, address, queue| block_on(read_queue(&address, queue)));
        assert_eq!(read, messages, "all are read");
        as_f64(read) / watch.elapsed().as_secs_f64()
    }

    /// Sends one by one: how long each took, in order of length.
    pub fn one_by_one(&self, home: &Home, sends: usize) -> Vec<Duration> {
        let body = vec![b'x'; self.body_bytes];
        block_on(async {
            let client = connect(&home.listen.to_string()).await;
            let producer =
                client.producer(ProducerConfig::new(TOPIC).expect("a name")).expect("a producer");
            let mut took = Vec::with_capacity(sends);
            for _ in 0..sends {
                let watch = Watch::start();
                producer
                    .send(Message::new(body.clone()).queue(QueueId(0)))
                    .await
                    .expect("a receipt");
                took.push(watch.elapsed());
            }
            client.close().await;
            took.sort();
            took
        })
    }

    fn on_each(
        &self,
        home: &Home,
        work: impl Fn(Load, String, QueueId) -> u64 + Send + Copy + 'static,
    ) -> u64 {
        let (load, address) = (*self, home.listen.to_string());
        let start = |queue| {
            let address = address.clone();
            thread::spawn(move || work(load, address, QueueId(queue)))
        };
        let threads: Vec<_> = (0..self.connections).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("it works to its end")).sum()
    }

    async fn send_while(self, address: &str, queue: QueueId, more: impl Fn(u64) -> bool) -> u64 {
        let body = bytes::Bytes::from(vec![b'x'; self.body_bytes]);
        let client = connect(address).await;
        let producer =
            client.producer(ProducerConfig::new(TOPIC).expect("a name")).expect("a producer");
        let mut outstanding: VecDeque<PendingReceipt> = VecDeque::with_capacity(OUTSTANDING_MAX);
        let mut sent = 0;
        while more(sent) {
            if outstanding.len() >= OUTSTANDING_MAX {
                for receipt in outstanding.drain(..OUTSTANDING_MAX / 2) {
                    receipt.await.expect("a receipt");
                }
            }
            let message = Message::new(body.clone()).queue(queue);
            outstanding.push_back(producer.enqueue(message).await.expect("room"));
            sent += 1;
        }
        for receipt in outstanding {
            receipt.await.expect("a receipt");
        }
        client.close().await;
        sent
    }
}

/// Reads a queue up to where it ends now.
async fn read_queue(address: &str, queue: QueueId) -> u64 {
    let client = connect(address).await;
    let described = client.describe_topic(TOPIC).await.expect("the topic");
    let end =
        described.queues.iter().find(|known| known.queue == queue).expect("the queue").end_offset;
    let mut config = ReaderConfig::new(TOPIC, StartAt::First).expect("a name");
    config.queues = Queues::Only(vec![queue]);
    let mut reader = client.reader(config).expect("a reader");
    let mut read = 0;
    while read < end.0 {
        read += reader.next_batch().await.expect("messages").len() as u64;
    }
    client.close().await;
    read
}

fn as_f64(number: u64) -> f64 {
    f64::from(u32::try_from(number).expect("fewer than 4 thousand million"))
}

//! One sender for each queue of a topic, each with a client and a thread of its own: whatever the test itself waits
//! for, and whatever other queues do, a queue that stands still is seen, and for how long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use grus_client::{Client, ClientConfig, Message, ProducerConfig, QueueId};

use crate::calm::wait_until;
use crate::cluster::block_on;
use crate::strain::Strain;
use crate::watch::{PATIENCE, Watch};

/// How long a send took.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// From the send to the receipt.
    pub waited: Duration,
    /// What it may have waited beyond its bound, see [`Strain::allowed`].
    pub allowed: Duration,
}

/// A send that is over.
struct Sent {
    queue: u32,
    body: String,
    wait: Wait,
    /// Why it failed, if it did.
    failed: Option<String>,
}

/// See the module documentation. Each of them sends one message behind the other's receipt.
pub struct QueueSenders {
    goes_on: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    told: Receiver<Sent>,
    acked: Vec<String>,
}

impl QueueSenders {
    /// Starts a sender for each of so many queues of the topic that `config` names, which rests for so long after
    /// each receipt: whoever makes the disk busy all the time is told that all of that time was lost.
    pub fn start(at: &[SocketAddr], config: &ProducerConfig, queues: u32, rest: Duration) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let (tell, told) = channel();
        let strain = Arc::new(Strain::watch());
        let bootstrap: Vec<String> = at.iter().map(ToString::to_string).collect();
        let start = |queue| {
            let one = OneQueue {
                queue,
                rest,
                bootstrap: bootstrap.clone(),
                config: config.clone(),
                goes_on: Arc::clone(&goes_on),
                strain: Arc::clone(&strain),
                tell: tell.clone(),
            };
            thread::spawn(move || block_on(one.send()))
        };
        let threads = (0..queues).map(start).collect();
        Self { goes_on, threads, told, acked: Vec::new() }
    }

    /// Waits until each queue has taken so many more messages; how long each send waited that ended since this was
    /// asked for the last time, those included that ended before this call.
    ///
    /// # Panics
    /// When a send fails, or a queue takes none any more.
    pub fn go_on(&mut self, more: usize) -> Vec<Wait> {
        let mut waits = Vec::new();
        while let Ok(sent) = self.told.try_recv() {
            waits.push(self.note(sent));
        }
        let (mut left, watch) = (vec![more; self.threads.len()], Watch::start());
        while left.iter().any(|left| *left > 0) {
            let sent = self.told.recv_timeout(watch.left(PATIENCE));
            let sent = sent.unwrap_or_else(|_| panic!("no more receipts, by queue: {left:?}"));
            let of_queue = &mut left[sent.queue as usize];
            *of_queue = of_queue.saturating_sub(1);
            waits.push(self.note(sent));
        }
        waits
    }

    fn note(&mut self, sent: Sent) -> Wait {
        let Sent { queue, body, wait, failed } = sent;
        assert!(failed.is_none(), "queue {queue}, {body}, after {wait:?}: {failed:?}");
        self.acked.push(body);
        wait
    }

    /// Ends them; what was sent.
    ///
    /// # Panics
    /// When a send fails.
    pub fn end(mut self) -> Vec<String> {
        self.goes_on.store(false, Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().expect("a sender that ends");
        }
        self.go_on(0);
        self.acked
    }
}

/// One of them, on its thread.
struct OneQueue {
    queue: u32,
    rest: Duration,
    bootstrap: Vec<String>,
    config: ProducerConfig,
    goes_on: Arc<AtomicBool>,
    strain: Arc<Strain>,
    tell: Sender<Sent>,
}

impl OneQueue {
    async fn send(self) {
        let config = ClientConfig::new(self.bootstrap);
        let client = Client::connect(config).await.expect("somebody who knows the way");
        let producer = client.producer(self.config).expect("a producer");
        let mut number = 0;
        while self.goes_on.load(Relaxed) {
            let body = format!("queue {} message {number:06}", self.queue);
            number += 1;
            let message = Message::new(body.clone()).queue(QueueId(self.queue));
            let (mark, watch) = (self.strain.mark(), Watch::start());
            let result = producer.send(message).await;
            let waited = watch.elapsed();
            let wait = Wait { waited, allowed: self.strain.allowed_since(mark) };
            let failed = result.err().map(|error| error.to_string());
            if self.tell.send(Sent { queue: self.queue, body, wait, failed }).is_err() {
                break; // the test is over
            }
            wait_until(&Watch::start(), self.rest);
        }
        client.close().await;
    }
}

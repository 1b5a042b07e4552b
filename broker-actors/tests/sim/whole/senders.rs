//! Producers with sequences, as programs: each sends what it is asked to, one batch after the other, and sends it
//! again, to one broker after the other, until it has the receipt.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use grus_broker::error::QueueError;
use grus_broker::shard::{InitializedProducer, ShardHandle, ShardRequest};
use grus_broker::topic_queue::Produce;
use grus_mailbox::reply::port;
use grus_mailbox::{Clock, Port};
use grus_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use grus_protocol::ids::{
    Durability, MessageId, ProducerEpoch, ProducerId, QueueKey, Sequence, TimestampMs,
};
use grus_protocol::limits::BatchLimits;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

use super::history::{History, NUMBERS_EACH, Receipt, Sent};
use crate::groups::facts::{Dice, Fact};
use crate::groups::town::Town;
use crate::later::body_of;
use crate::trace::Trace;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Brokers have the numbers 1 to this one.
pub(crate) const BROKERS: u32 = 3;

/// The shard that gives producers their ids where the story's does not.
pub(crate) const OTHER_SHARD: u64 = 7;

/// A batch that is to be sent.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) queue: QueueKey,
    pub(crate) count: u64,
    pub(crate) body_bytes: usize,
    /// It is to be seen so much later; none: at once.
    pub(crate) later_ms: Option<u64>,
}

/// What all clients' ways to brokers have in common.
#[derive(Default)]
pub(crate) struct Lines {
    /// Requests and answers that are lost, of 1000.
    pub(crate) loss: Cell<u64>,
    /// Wishes that are not fulfilled.
    pub(crate) open: Cell<u64>,
    /// Requests of producers that were refused, and those whose answer never came.
    pub(crate) refused: Cell<u64>,
    pub(crate) unanswered: Cell<u64>,
}

/// One producer.
pub(crate) struct Sender {
    pub(crate) number: u64,
    pub(crate) town: Rc<Town>,
    pub(crate) lines: Rc<Lines>,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) trace: Trace,
    pub(crate) clock: Clock,
    pub(crate) dice: Dice,
    /// Of the shard.
    pub(crate) durability: Durability,
}

struct Program {
    sender: Sender,
    /// The broker that it believes the leader.
    target: u32,
    producer: Option<InitializedProducer>,
    /// The next sequence in each queue.
    sequences: BTreeMap<QueueKey, u64>,
    /// How many messages it has sent.
    sent: u64,
}

/// Fulfils wishes, one after the other.
pub(crate) async fn send_all(sender: Sender, mut wishes: UnboundedReceiver<Wish>) {
    let lines = Rc::clone(&sender.lines);
    let sequences = BTreeMap::new();
    let mut program = Program { sender, target: 1, producer: None, sequences, sent: 0 };
    while let Some(wish) = wishes.recv().await {
        program.fulfil(wish).await;
        lines.open.set(lines.open.get() - 1);
    }
}

impl Program {
    async fn fulfil(&mut self, wish: Wish) {
        let Wish { queue, count, body_bytes, later_ms } = wish;
        let number = self.sender.number * NUMBERS_EACH + self.sent;
        self.sent += count;
        let now = self.sender.clock.now().0;
        let due_of = |nth: u64| later_ms.map(|later_ms| now + later_ms + 37 * nth);
        for nth in 0..count {
            let sent = Sent { queue, due: due_of(nth).unwrap_or(0) };
            self.sender.history.borrow_mut().sent.insert(number + nth, sent);
        }
        let due: Option<Vec<TimestampMs>> =
            later_ms.map(|_| (0..count).filter_map(due_of).map(TimestampMs).collect());
        let producer = self.identity().await;
        let sequence = self.sequences.get(&queue).copied().unwrap_or(0);
        let bodies: Vec<_> = (number..number + count).map(|it| body_of(it, body_bytes)).collect();
        let batch = batch_of(producer, Sequence(sequence), &bodies);
        let receipt = loop {
            let (batch, due) = (batch.clone(), due.clone());
            let answer = self.ask(|broker, reply| {
                let Some(queue) = broker.queue(queue) else {
                    return reply.send(Err(QueueError::NotLeader { leader: None }));
                };
                let produce = Produce { batch, dedup_key: None, due, reply };
                let _ = queue.produce.try_put(produce); // refused: its port is dropped
            });
            let answer = answer.await;
            if let Some(receipt) = self.judge(answer, "a batch").await {
                break receipt;
            }
        };
        self.sequences.insert(queue, sequence + count);
        assert_eq!(u64::from(receipt.count), count, "all of the batch");
        let receipt = Receipt {
            queue,
            number,
            count,
            offset: receipt.base_offset.0,
            is_later: receipt.timer.is_some(),
            term: receipt.term.0,
        };
        self.sender.trace.line(format!("receipt: {receipt:?}"));
        if !receipt.is_later {
            for (_, offset) in receipt.messages() {
                self.sender.town.scribe.note(Fact::Sent(queue, offset));
            }
        }
        self.sender.history.borrow_mut().receipts.push(receipt);
    }

    /// Its id, which it is given once.
    async fn identity(&mut self) -> InitializedProducer {
        if self.sender.durability != Durability::Persisted {
            // Only a `persisted` shard gives any: it has that of another one.
            let producer = ProducerId(OTHER_SHARD << 48 | self.sender.number);
            return InitializedProducer { producer, epoch: ProducerEpoch(0) };
        }
        loop {
            if let Some(producer) = self.producer {
                return producer;
            }
            let answer = self.ask(|broker, reply| {
                let request = ShardRequest::InitProducer { name: None, reply };
                let _ = broker.inbox.try_put(request); // refused: its port is dropped
            });
            let answer = answer.await;
            self.producer = self.judge(answer, "an id").await;
        }
    }

    /// One request and its answer, each of which may be lost.
    async fn ask<T: Send + 'static>(
        &mut self,
        put: impl FnOnce(&ShardHandle, Port<Result<T, QueueError>>),
    ) -> Option<Result<T, QueueError>> {
        self.leg().await?;
        let broker = self.sender.town.broker(self.target)?; // else its connection is refused
        let (reply, answer) = port();
        put(&broker, reply);
        let answer = timeout(ANSWER_WITHIN, answer).await.ok()?.ok()?;
        self.leg().await?;
        Some(answer)
    }

    /// A way there or back; none: what went it is lost.
    async fn leg(&mut self) -> Option<()> {
        sleep(Duration::from_millis(1 + self.sender.dice.below(10))).await;
        (self.sender.dice.below(1_000) >= self.sender.lines.loss.get()).then_some(())
    }

    /// What it got, if it got it; else it turns to whom it is told to, or to the next one, after a while.
    async fn judge<T>(&mut self, answer: Option<Result<T, QueueError>>, what: &str) -> Option<T> {
        let error = match answer {
            Some(Ok(got)) => return Some(got),
            Some(Err(error)) => Some(error),
            None => None,
        };
        let lines = &self.sender.lines;
        let counted = if error.is_some() { &lines.refused } else { &lines.unanswered };
        counted.set(counted.get() + 1);
        let leader = match error {
            Some(QueueError::NotLeader { leader }) => leader,
            None
            | Some(
                QueueError::OutcomeUnknown
                | QueueError::Overloaded { .. }
                | QueueError::Unavailable
                | QueueError::Stopping
                // One whose power goes can make no segment any more; no disk here is ever full.
                | QueueError::StorageFull
                | QueueError::UnknownQueue,
            ) => None,
            Some(error) => {
                let outrage = format!("sender {} is refused {what}: {error}", self.sender.number);
                self.sender.history.borrow_mut().outrages.push(outrage);
                return std::future::pending().await;
            }
        };
        let next = self.target % BROKERS + 1;
        self.target = leader.and_then(|leader| u32::try_from(leader).ok()).unwrap_or(next);
        sleep(Duration::from_millis(20 + self.sender.dice.below(150))).await;
        None
    }
}

/// A batch of a producer with these bodies.
fn batch_of(
    producer: InitializedProducer,
    first: Sequence,
    bodies: &[bytes::Bytes],
) -> RecordBatch {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    builder.set_producer(producer.producer, producer.epoch, first);
    for body in bodies {
        let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(1), body.clone())).unwrap();
    }
    RecordBatch::check(builder.finish(), &BatchLimits::FORMAT).unwrap()
}

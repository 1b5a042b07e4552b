//! Producers of the client, as programs use them: a program hands over what it is to send as it comes, and the
//! client's own logic puts it into batches, sends several of them at once, sends them again, and finds out who
//! leads.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grus_broker::error::QueueError;
use grus_broker::shard::{InitializedProducer, ShardHandle, ShardRequest};
use grus_broker::topic_queue::{Produce, Receipt as Stored};
use grus_client::ProducerConfig;
use grus_client::simulated::{ProducerStep, SentBatch, SimulatedProducer, StoredAt};
use grus_mailbox::reply::port;
use grus_protocol::batch::{NewRecord, RecordBatch};
use grus_protocol::ids::{
    BrokerId, Durability, MessageId, ProducerEpoch, ProducerId, QueueId, QueueKey, TimestampMs,
    TopicId,
};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{InitProducerReply, ProduceReply, Timer};
use grus_protocol::{ErrorCode, ErrorReply};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet, spawn_local};
use tokio::time::{interval, sleep};

use super::history::{NUMBERS_EACH, Receipt, Sent};
use super::kinds::Kind;
use super::lines::{Back, Line, Ways, port_back};
use super::senders::{BROKERS, OTHER_SHARD, Sender, Wish, send_all};
use super::{CONSUMED, LATER, ORDERS_NAME};
use crate::groups::facts::Fact;
use crate::later::body_of;

const TICK: Duration = Duration::from_millis(20);
/// An attempt that is not answered in this time counts as lost. A story is over long before as many of them
/// have passed as a message has.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 1_000;
/// Who asks for a way and is not heard gives up after this.
const UNHEARD: Duration = Duration::from_secs(1);

/// What one call to send was about.
#[derive(Debug)]
struct Parcel {
    queue: QueueKey,
    number: u64,
    count: u64,
}

/// What a producer is told.
enum Event {
    Up { link: u32 },
    Down { link: u32 },
    Answered { to: Sending, answer: Result<Stored, QueueError> },
    Identity { topic: TopicId, answer: Option<InitializedProducer> },
    Route { topic: TopicId, links: Option<Vec<Option<u32>>> },
}

/// What a batch was sent as.
#[derive(Debug, Clone, Copy)]
struct Sending {
    queue: QueueKey,
    token: (u64, u64),
}

/// What all that a producer starts has in common.
struct Office {
    sender: Sender,
    ways: Rc<Ways>,
    events: UnboundedSender<Event>,
}

impl Office {
    fn tell(&self, event: Event) {
        let _ = self.events.send(event); // the story may be over
    }

    /// Who leads the queues of a topic, as somebody sees it.
    async fn find_route(self: Rc<Self>, topic: TopicId, queues: u32) {
        let links = find_links(&self.ways, topic, queues).await;
        self.tell(Event::Route { topic, links });
    }

    /// Asks a broker for an identity.
    async fn find_identity(self: Rc<Self>, topic: TopicId, broker: u32) {
        let asked = async {
            sleep(self.ways.way()?).await;
            let broker = self.sender.town.broker(broker)?;
            let (reply, answer) = port();
            let request = ShardRequest::InitProducer { name: None, reply };
            let _ = broker.inbox.try_put(request); // refused: its port is dropped
            let answer = answer.await.ok()?.ok()?;
            sleep(self.ways.way()?).await;
            Some(answer)
        };
        let answer = asked.await;
        self.tell(Event::Identity { topic, answer });
    }
}

/// Who leads the queues of a topic, as somebody sees it; none: nobody said so.
pub(super) async fn find_links(
    ways: &Ways,
    topic: TopicId,
    queues: u32,
) -> Option<Vec<Option<u32>>> {
    let Some((there, back)) = ways.way().zip(ways.way()) else {
        sleep(UNHEARD).await;
        return None;
    };
    sleep(there).await;
    let leader = |number| {
        let key = QueueKey { topic, queue: QueueId(number) };
        let leads = |broker: &u32| {
            ways.town.broker(*broker).is_some_and(|broker| broker.queue(key).is_some())
        };
        (1..=BROKERS).find(leads)
    };
    let links = (0..queues).map(leader).collect();
    sleep(back).await; // it may be another one by now
    Some(links)
}

/// Hands a batch to the queue that it is for.
fn produce(broker: &ShardHandle, to: Sending, bytes: Bytes, back: &Back<Event>) {
    let reply = port_back(back, move |answer| Event::Answered { to, answer });
    let Some(queue) = broker.queue(to.queue) else {
        return reply.send(Err(QueueError::NotLeader { leader: None }));
    };
    let batch = RecordBatch::check(bytes, &BatchLimits::PRODUCE).expect("a batch");
    let due: Option<Vec<_>> =
        batch.views().map(|record| record.expect("a record").deliver_at()).collect();
    let _ = queue.produce.try_put(Produce { batch, dedup_key: None, due, reply }); // refused: dropped
}

/// A producer for each topic, and what they have in common.
struct Program {
    office: Rc<Office>,
    lines: Vec<Rc<Line<Event>>>,
    producers: BTreeMap<TopicId, (u32, SimulatedProducer<Parcel>)>,
    /// How many messages it has sent.
    sent: u64,
    /// How many identities were asked for.
    identities: u64,
    /// The term that each message was stored in, by its place.
    terms: BTreeMap<(QueueKey, u64), u64>,
    /// What is sent and not answered: over which connection.
    asked: BTreeMap<(QueueKey, (u64, u64)), u32>,
}

/// A sender goes to work: the client's own producers, or a program that sends by itself.
pub(super) fn begin_to_send(
    kind: Kind,
    sender: Sender,
    wishes: UnboundedReceiver<Wish>,
) -> JoinHandle<()> {
    if kind.is_by_client {
        spawn_local(send_by_client(sender, wishes))
    } else {
        spawn_local(send_all(sender, wishes))
    }
}

/// Fulfils wishes as they come.
async fn send_by_client(sender: Sender, mut wishes: UnboundedReceiver<Wish>) {
    let (events, mut happens) = unbounded_channel();
    let ways = Rc::new(Ways {
        town: Rc::clone(&sender.town),
        lines: Rc::clone(&sender.lines),
        dice: RefCell::new(sender.dice.clone()),
        strings: None,
        loss_part: 1,
    });
    let mut connections = JoinSet::new();
    let mut lines = Vec::new();
    for broker in 1..=BROKERS {
        let line = Line::new(broker, &ways, &events);
        let up = |link| Event::Up { link };
        connections.spawn_local(Rc::clone(&line).keep(up, |link| Event::Down { link }));
        lines.push(line);
    }
    let office = Rc::new(Office { sender, ways, events });
    let mut program = Program::new(office, lines);
    let mut ticks = interval(TICK);
    loop {
        tokio::select! {
            biased;
            Some(event) = happens.recv() => program.hear(event),
            wish = wishes.recv() => match wish {
                Some(wish) => program.take(&wish),
                None => return,
            },
            _ = ticks.tick() => program.tick(),
        }
        program.pump();
    }
}

impl Program {
    fn new(office: Rc<Office>, lines: Vec<Rc<Line<Event>>>) -> Self {
        let mut producers = BTreeMap::new();
        let orders = u32::try_from(CONSUMED.len()).unwrap();
        for (name, topic, queues) in
            [(ORDERS_NAME, CONSUMED[0].topic, orders), ("later", LATER.topic, 1)]
        {
            let mut config = ProducerConfig::new(name).unwrap();
            config.send_timeout = SEND_TIMEOUT;
            config.retries = RETRIES;
            let producer = SimulatedProducer::new(&config, office.ways.dice.borrow_mut().next());
            producers.insert(topic, (queues, producer));
        }
        let (sent, identities, terms) = (0, 0, BTreeMap::new());
        let asked = BTreeMap::new();
        Self { office, lines, producers, sent, identities, terms, asked }
    }

    fn now_ms(&self) -> u64 {
        self.office.sender.clock.monotonic_ms()
    }

    fn producer(&mut self, topic: TopicId) -> &mut SimulatedProducer<Parcel> {
        &mut self.producers.get_mut(&topic).expect("a topic of the story").1
    }

    fn take(&mut self, wish: &Wish) {
        let Wish { queue, count, body_bytes, later_ms } = *wish;
        let sender = &self.office.sender;
        let number = sender.number * NUMBERS_EACH + self.sent;
        self.sent += count;
        let now = sender.clock.now().0;
        let mut records = Vec::new();
        for nth in 0..count {
            let due = later_ms.map(|later_ms| now + later_ms + 37 * nth);
            let sent = Sent { queue, due: due.unwrap_or(0) };
            sender.history.borrow_mut().sent.insert(number + nth, sent);
            let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
            let mut record = NewRecord::new(id, TimestampMs(1), body_of(number + nth, body_bytes));
            record.deliver_at = due.map(TimestampMs);
            records.push(record);
        }
        let now_ms = self.now_ms();
        let parcel = Parcel { queue, number, count };
        self.producer(queue.topic).send(queue.queue, &records, parcel, now_ms);
    }

    fn hear(&mut self, event: Event) {
        let now_ms = self.now_ms();
        match event {
            Event::Up { link } => {
                let broker = BrokerId(link.into());
                self.producers.values_mut().for_each(|(_, it)| it.link_up(link, broker));
            }
            Event::Down { link } => {
                let before = self.asked.len();
                self.asked.retain(|_, over| *over != link);
                let lost = (before - self.asked.len()) as u64;
                let lines = &self.office.sender.lines;
                lines.unanswered.set(lines.unanswered.get() + lost);
                self.producers.values_mut().for_each(|(_, it)| it.link_down(link));
            }
            Event::Answered { to, answer } => self.answered(to, answer, now_ms),
            Event::Identity { topic, answer } => {
                let answer = answer.map(|given| InitProducerReply {
                    producer_id: given.producer,
                    producer_epoch: given.epoch,
                    epochs: 0,
                });
                let none = || ErrorReply::new(ErrorCode::Unavailable, "not heard");
                self.producer(topic).identity(answer.ok_or_else(none), now_ms);
            }
            Event::Route { topic, links } => {
                let none = || ErrorReply::new(ErrorCode::Unavailable, "not heard");
                let route = links.map(|links| (topic, links)).ok_or_else(none);
                self.producer(topic).route(route, now_ms);
            }
        }
    }

    fn answered(&mut self, to: Sending, answer: Result<Stored, QueueError>, now_ms: u64) {
        self.asked.remove(&(to.queue, to.token));
        if let Ok(stored) = &answer {
            let offsets = stored.base_offset.0..stored.base_offset.0 + u64::from(stored.count);
            for offset in offsets.filter(|_| stored.timer.is_none()) {
                self.terms.insert((to.queue, offset), stored.term.0);
            }
        } else {
            let lines = &self.office.sender.lines;
            lines.refused.set(lines.refused.get() + 1);
        }
        let answer = answer.map(|stored| ProduceReply {
            base_offset: stored.base_offset,
            term: stored.term,
            stored: stored.stored,
            durability: stored.durability,
            duplicate: stored.duplicate,
            timer: stored.timer.map(|id| Timer { index: id.index, place: id.place }),
            delays_from: None,
        });
        let answer = answer.map_err(|error| error.to_reply());
        self.producer(to.queue.topic).answered(to.queue.queue, to.token, answer, now_ms);
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms();
        self.producers.values_mut().for_each(|(_, it)| it.tick(now_ms));
    }

    /// Does all there is to do.
    fn pump(&mut self) {
        let now_ms = self.now_ms();
        let topics: Vec<TopicId> = self.producers.keys().copied().collect();
        for topic in topics {
            while let Some(step) = self.producer(topic).poll(now_ms) {
                self.step(topic, step);
            }
        }
    }

    fn step(&mut self, topic: TopicId, step: ProducerStep<Parcel>) {
        let office = Rc::clone(&self.office);
        match step {
            ProducerStep::Send(SentBatch { link, queue, token, bytes }) => {
                let to = Sending { queue: QueueKey { topic, queue }, token };
                self.asked.insert((to.queue, token), link);
                let line = &self.lines[link as usize - 1];
                line.send(move |broker, back, _| produce(broker, to, bytes, back));
            }
            ProducerStep::FindRoute => {
                let queues = self.producers[&topic].0;
                spawn_local(office.find_route(topic, queues));
            }
            ProducerStep::FindIdentity => {
                self.identities += 1;
                if office.sender.durability == Durability::Persisted {
                    let broker = u32::try_from(self.identities % u64::from(BROKERS)).unwrap() + 1;
                    spawn_local(office.find_identity(topic, broker));
                } else {
                    // Only a `persisted` shard gives any: it has that of another one.
                    let number = office.sender.number * NUMBERS_EACH + self.identities;
                    let producer = ProducerId(OTHER_SHARD << 48 | number);
                    let given = InitializedProducer { producer, epoch: ProducerEpoch(0) };
                    office.tell(Event::Identity { topic, answer: Some(given) });
                }
            }
            ProducerStep::Answer { port, result } => {
                let Sender { history, lines, trace, town, number, .. } = &office.sender;
                lines.open.set(lines.open.get() - 1);
                let Parcel { queue, number: first, count } = port;
                let StoredAt { offset, is_scheduled, .. } = match result {
                    Ok(stored) => stored,
                    Err(error) => {
                        let outrage = format!("client {number} gives up {first}: {error}");
                        return history.borrow_mut().outrages.push(outrage);
                    }
                };
                let term = self.terms.get(&(queue, offset.0)).copied().unwrap_or(0);
                let offset = offset.0;
                let is_later = is_scheduled;
                let receipt = Receipt { queue, number: first, count, offset, is_later, term };
                trace.line(format!("receipt: {receipt:?}"));
                if !is_later {
                    for (_, offset) in receipt.messages() {
                        town.scribe.note(Fact::Sent(queue, offset));
                    }
                }
                history.borrow_mut().receipts.push(receipt);
            }
        }
    }
}

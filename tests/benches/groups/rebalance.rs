//! How long a group needs to share its queues anew.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use grus_broker::consumer_group::field::{Field, FieldTopic};
use grus_broker::consumer_group::strategy::{Target, divide};
use grus_client::{
    Client, ConsumerEvent, ConsumerStop, Message, Outcome, Producer, ProducerConfig, QueueId,
};
use grus_protocol::ids::{MemberId, TopicId};
use grus_protocol::message::GroupStrategy;
use grus_tests::broker::Home;
use grus_tests::watch::Watch;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::options::Options;
use crate::spread::{Spread, judge};
use crate::{TOPIC, block_on, connect, create, member, seconds};

/// Longest that dividing may take, in milliseconds.
const DIVIDE_MS_MAX: f64 = 200.0;
/// Longest until all queues are served again, in seconds.
const SERVED_S_MAX: f64 = 2.0;
/// Connections of all members.
const CONNECTIONS: usize = 10;

pub(crate) fn run(options: &Options) {
    let (queues, members) = (options.number("queues", 1_000), options.number("members", 100));
    let (rounds, durability) =
        (options.number("rounds", 5), options.text("durability", "persisted"));
    println!("{queues} queues, {members} members on {CONNECTIONS} connections, {durability}");
    divide_alone(queues, members, rounds);
    let home = Home::new();
    let _broker = home.start();
    create(&home, &durability, TOPIC, queues);
    block_on(async {
        let clients = join_all((0..CONNECTIONS).map(|_| connect(&home))).await;
        let config = ProducerConfig::new(TOPIC).expect("a name");
        let producer = clients[0].producer(config).expect("a producer");
        let mut crowd = Crowd::new(clients, producer, u32::try_from(queues).expect("few"));
        let watch = Watch::start();
        for _ in 0..members {
            crowd.join();
        }
        crowd.until_served().await;
        println!(
            "all {members} begin together: {:.2} s until all queues are served",
            seconds(watch.elapsed())
        );
        let (mut one, mut half, mut back) =
            (Spread::default(), Spread::default(), Spread::default());
        for _ in 0..rounds {
            let watch = Watch::start();
            crowd.join();
            crowd.until_served().await;
            one.push(seconds(watch.elapsed()));
            let some = crowd.members.len() / 2;
            let watch = Watch::start();
            crowd.leave(some).await;
            crowd.until_served().await;
            half.push(seconds(watch.elapsed()));
            let watch = Watch::start();
            while (crowd.members.len() as u64) < members {
                crowd.join();
            }
            crowd.until_served().await;
            back.push(seconds(watch.elapsed()));
        }
        println!(
            "seconds until a message of each queue has come: one joins {one}, half leave {half}, half join {back}"
        );
        let worst = [&one, &half, &back].into_iter().map(Spread::median).fold(0.0, f64::max);
        judge("all queues served again in 2 s", worst <= SERVED_S_MAX);
        crowd.end().await;
    });
}

fn divide_alone(queues: u64, members: u64, rounds: u64) {
    let field = |members: u64| {
        Field::from_topics(vec![FieldTopic {
            name: TOPIC.try_into().expect("a name"),
            id: TopicId(1),
            queues: (0..u32::try_from(queues).expect("few")).map(QueueId).collect(),
            members: (1..=members).map(MemberId).collect(),
        }])
    };
    let (before, after) = (field(members), field(members + 1));
    let owners: Target = divide(GroupStrategy::Sticky, &before, |_| None);
    let mut took = Spread::default();
    for _ in 0..rounds {
        let watch = Watch::start();
        let target = divide(GroupStrategy::Sticky, &after, |queue| owners.get(&queue).copied());
        took.push(seconds(watch.elapsed()) * 1e3);
        assert_eq!(target.len() as u64, queues);
    }
    println!("dividing alone, sticky, one more member: {took} ms");
    judge("computing in 200 ms", took.greatest() <= DIVIDE_MS_MAX);
}

/// What is heard of members, by their numbers.
enum Heard {
    Event(u64, ConsumerEvent),
    Message(u32),
}

struct Crowd {
    clients: Vec<Client>,
    producer: Producer,
    queues: u32,
    told: UnboundedSender<Heard>,
    heard: UnboundedReceiver<Heard>,
    next: u64,
    members: BTreeMap<u64, (ConsumerStop, JoinHandle<()>)>,
    owned: BTreeMap<u64, BTreeSet<u32>>,
}

impl Crowd {
    fn new(clients: Vec<Client>, producer: Producer, queues: u32) -> Self {
        let (told, heard) = unbounded_channel();
        let (members, owned) = (BTreeMap::new(), BTreeMap::new());
        Self { clients, producer, queues, told, heard, next: 0, members, owned }
    }

    fn join(&mut self) {
        let number = self.next;
        self.next += 1;
        let told = self.told.clone();
        let config = member("g", TOPIC).on_event(move |event| {
            let _ = told.send(Heard::Event(number, event.clone()));
        });
        let client = &self.clients[usize::try_from(number).expect("few") % self.clients.len()];
        let mut consumer = client.consumer(config).expect("a consumer");
        let (stopper, told) = (consumer.stopper(), self.told.clone());
        let work = tokio::spawn(async move {
            while let Ok(handed) = consumer.next().await {
                let _ = told.send(Heard::Message(handed.queue.0));
                handed.answer(Outcome::Ack);
            }
        });
        self.members.insert(number, (stopper, work));
        self.owned.insert(number, BTreeSet::new());
    }

    async fn leave(&mut self, count: usize) {
        let mut leaving = Vec::new();
        for _ in 0..count {
            leaving.extend(self.members.pop_first());
        }
        join_all(leaving.iter().map(|(_, (stopper, _))| stopper.stop())).await;
        for (number, (_, work)) in leaving {
            work.await.expect("it only takes messages");
            self.owned.remove(&number);
        }
    }

    fn take(&mut self, event: u64, of: &ConsumerEvent) {
        let Some(owned) = self.owned.get_mut(&event) else { return };
        match of {
            ConsumerEvent::Assigned(queues) => owned.extend(queues.iter().map(|one| one.queue.0)),
            ConsumerEvent::Revoked(queues) | ConsumerEvent::Lost(queues) => {
                owned.retain(|queue| queues.iter().all(|one| one.queue.0 != *queue));
            }
            _ => {}
        }
    }

    /// Whether each queue is a member's, and each member has its share.
    fn is_shared(&self) -> bool {
        let all: usize = self.owned.values().map(BTreeSet::len).sum();
        let least = self.queues as usize / self.owned.len().max(1);
        all == self.queues as usize && self.owned.values().all(|owned| owned.len() >= least)
    }

    /// Until all is shared, and a message that was sent to each queue then has come.
    async fn until_served(&mut self) {
        while !self.is_shared() {
            if let Heard::Event(number, event) = self.heard.recv().await.expect("they live") {
                self.take(number, &event);
            }
        }
        for queue in 0..self.queues {
            let message = Message::new(vec![7; 100]).queue(QueueId(queue));
            drop(self.producer.enqueue(message).await.expect("taken"));
        }
        let mut left: BTreeSet<u32> = (0..self.queues).collect();
        while !left.is_empty() {
            match self.heard.recv().await.expect("they live") {
                Heard::Message(queue) => left.retain(|other| *other != queue),
                Heard::Event(number, event) => self.take(number, &event),
            }
        }
    }

    async fn end(mut self) {
        self.leave(self.members.len()).await;
        for client in self.clients {
            client.close().await;
        }
    }
}

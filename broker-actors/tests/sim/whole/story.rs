//! Three brokers that are the members of one shard, producers, and the members of a group, with all that happens
//! to them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use grus_broker::commands::groups::ProgressKey;
use grus_broker::group_ties::GroupTies;
use grus_broker::registry_link::routes::{Leader, QueuePlace, Routes, TopicRoute};
use grus_broker::shard::TopicConfig;
use grus_consensus::{NodeId, Sabotage};
use grus_log::Seeded;
use grus_mailbox::{Outlet, outlet};
use grus_protocol::ids::{Offset, QueueId, QueueKey, ShardId, TimestampMs, TopicId};
use grus_protocol::message::{GroupSubscription, MessageFilter, TopicSettings};
use grus_protocol::names::{GroupName, TopicName};
use grus_registry::RegistryRequest;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::checks::Checks;
use super::clients::begin_to_send;
use super::consumers::begin_to_live;
use super::history::History;
use super::kinds::{Kind, Memories};
use super::senders::{Lines, Sender, Wish};
use super::tally::{Seen, Tally};
use super::{CONSUMED, LATER, ORDERS_NAME};
use crate::groups::facts::{Dice, Fact, Facts, Scribe};
use crate::groups::member::{Life, Strings};
use crate::groups::town::{GROUP, Town};
use crate::later::waiting;
use crate::trace::Trace;
use crate::world::{DISK_US_MAX, World, topic};

const NODES: [NodeId; 3] = [1, 2, 3];
const SENDERS: u64 = 3;
/// Members of the group that there are at most.
const SEATS: u64 = 4;
/// How long everything may take to come right once nothing is broken any more, in milliseconds: clocks may have
/// been a minute ahead.
const HEALS_MS_MAX: u64 = 240_000;

/// A place for a member of the group.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) strings: Rc<Strings>,
    life: Option<JoinHandle<()>>,
}

impl Seat {
    pub(super) fn is_taken(&self) -> bool {
        self.life.as_ref().is_some_and(|life| !life.is_finished())
    }
}

/// What happened in a story: the trace, what the leaders and the members of the group have seen, and how much it was.
pub(crate) struct Told {
    pub(crate) trace: Vec<String>,
    pub(crate) facts: Facts,
    pub(crate) tally: Tally,
}

pub(crate) struct Story {
    pub(super) seed: u64,
    pub(super) kind: Kind,
    pub(super) world: World,
    pub(super) rng: Seeded,
    pub(super) trace: Trace,
    pub(super) town: Rc<Town>,
    pub(super) lines: Rc<Lines>,
    pub(super) seats: Vec<Seat>,
    /// How wrong each clock is, in milliseconds.
    pub(super) skews: BTreeMap<NodeId, i64>,
    pub(super) history: Rc<RefCell<History>>,
    pub(super) checks: Checks,
    pub(super) memories: Memories,
    pub(super) tally: Tally,
    pub(super) seen: Seen,
    /// Where each dead letter came from, by its place among them.
    pub(super) letters: BTreeMap<u64, (QueueKey, u64)>,
    wishes: Vec<UnboundedSender<Wish>>,
    sending: Vec<JoinHandle<()>>,
    lives: u64,
    from: UnboundedReceiver<(u64, Fact)>,
    pub(super) facts: Facts,
    views: Vec<(NodeId, u64, Option<NodeId>)>,
    /// What ends when nobody holds it.
    _held: (watch::Sender<Arc<Routes>>, watch::Sender<bool>, Outlet<RegistryRequest>),
}

/// The topics, with how many queues each has.
fn topics() -> [(u64, TopicName, u32); 3] {
    let letters = GroupName::try_from("g").unwrap().dead_letters();
    let named = |name: &str| TopicName::try_from(name).unwrap();
    let queues = u32::try_from(CONSUMED.len()).unwrap();
    [
        (CONSUMED[0].topic.0, named(ORDERS_NAME), queues),
        (LATER.topic.0, named("later"), 1),
        (GROUP.0, letters, 1),
    ]
}

fn configs(kind: Kind) -> Vec<TopicConfig> {
    let config = |(id, name, queues)| TopicConfig {
        name,
        queues: (0..queues).map(QueueId).collect(),
        durability: kind.durability,
        ..topic(id, kind.retention_bytes)
    };
    topics().into_iter().map(config).collect()
}

fn routes() -> Routes {
    let mut routes = Routes::default();
    for (id, name, queues) in topics() {
        let place = |_| QueuePlace { shard: ShardId(0), handle: None, leader: Leader::Here };
        routes.put(TopicRoute {
            name,
            id: TopicId(id),
            settings: TopicSettings::default(),
            created: TimestampMs(0),
            queues: (0..queues).map(place).collect(),
        });
    }
    routes
}

impl Story {
    /// All brokers run, one leads, and its queues are open.
    pub(crate) async fn begin(seed: u64, kind: Kind, sabotage: Sabotage) -> Self {
        let mut world = World::harsh(&NODES, seed);
        world.sabotage = sabotage;
        world.durability = kind.durability;
        let (routes, watched) = watch::channel(Arc::new(routes()));
        let (settled, is_settled) = watch::channel(true);
        let (registry, questions) = outlet(64);
        world.groups = Some(GroupTies { registry, routes: watched, settled: is_settled });
        let (scribe, from) = Scribe::new(world.clock);
        let mut story = Self {
            seed,
            kind,
            rng: Seeded::new(seed),
            trace: Trace::new(),
            town: Rc::new(Town::one_shard(scribe)),
            lines: Rc::default(),
            seats: (0..SEATS).map(|_| Seat::default()).collect(),
            skews: BTreeMap::new(),
            history: Rc::default(),
            checks: Checks::default(),
            memories: Memories::default(),
            tally: Tally::default(),
            seen: Seen::default(),
            letters: BTreeMap::new(),
            wishes: Vec::new(),
            sending: Vec::new(),
            lives: 0,
            from,
            facts: Facts::new(),
            views: Vec::new(),
            _held: (routes, settled, questions),
            world,
        };
        for node in NODES {
            story.start(node).await;
        }
        story.open().await;
        for number in 1..=SENDERS {
            story.add_sender(number);
        }
        story
    }

    /// Has the queues opened where they are led.
    async fn open(&mut self) {
        for _ in 0..600 {
            if let Some(leader) = self.leader()
                && self.world.open_topics(leader, &configs(self.kind)).await
            {
                return;
            }
            self.run(100).await;
        }
        panic!("not opened in a minute\n{}", self.trace.tail(60));
    }

    fn add_sender(&mut self, number: u64) {
        let (to, wishes) = unbounded_channel();
        let sender = Sender {
            number,
            town: Rc::clone(&self.town),
            lines: Rc::clone(&self.lines),
            history: Rc::clone(&self.history),
            trace: self.trace.clone(),
            clock: self.world.clock,
            dice: Dice::new(self.seed, 10_000 + number),
            durability: self.kind.durability,
        };
        self.wishes.push(to);
        self.sending.push(begin_to_send(self.kind, sender, wishes));
    }

    /// Somebody is to send a batch.
    pub(super) fn wish(&mut self, wish: Wish) {
        let sender = usize::try_from(self.rng.below(SENDERS)).unwrap();
        self.lines.open.set(self.lines.open.get() + 1);
        self.wishes[sender].send(wish).expect("senders live as long as the story");
    }

    /// Starts a broker on what its disk holds; its power may go while it starts.
    pub(super) async fn start(&mut self, node: NodeId) {
        if let Err(error) = self.world.start(node).await {
            if self.world.members[&node].disk.is_off() {
                self.trace.line(format!("broker {node} loses its power while it starts"));
                self.world.cut_power(node).await;
                return self.note_end(node, true);
            }
            panic!("broker {node} does not start: {error}\n{}", self.trace.tail(60));
        }
        self.checks.restarted(node);
        self.trace.line(format!("broker {node} starts"));
        let handle = self.world.running(node).handle.clone();
        self.town.enter(u32::try_from(node).unwrap(), handle);
    }

    /// A broker ends from one moment to the next, with its power or without.
    pub(super) async fn end(&mut self, node: NodeId, is_power: bool) {
        let how = if is_power { "loses its power" } else { "is killed" };
        self.trace.line(format!("broker {node} {how}"));
        self.town.leave(u32::try_from(node).unwrap());
        if is_power {
            self.world.cut_power(node).await;
        } else {
            self.world.kill(node).await;
        }
        self.note_end(node, is_power);
    }

    /// Brokers that have lost their power by themselves are gone; one that cannot go on although it has its
    /// power has met a fault of its own.
    async fn reap(&mut self) {
        for node in NODES {
            let member = &self.world.members[&node];
            if member.running.is_none() || member.is_alive() {
                continue;
            }
            if !member.disk.is_off() {
                let fault = member.fault.get();
                panic!("broker {node} stopped: {fault:?}\n{}", self.trace.tail(60));
            }
            self.end(node, true).await;
        }
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.world.members[&node].running.is_some()
    }

    /// Lets simulated time pass, then looks at everything.
    pub(super) async fn run(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(20);
            tokio::time::sleep(Duration::from_millis(step)).await;
            left -= step;
            self.reap().await;
            self.look();
        }
    }

    fn look(&mut self) {
        self.note_leaders();
        self.note_standings();
        self.note_counts();
        self.read_letters();
        let mut found = Ok(());
        while let Ok((at_ns, fact)) = self.from.try_recv() {
            found = found.and_then(|()| self.checks.fact(at_ns, &fact));
            self.facts.push((at_ns, fact));
        }
        let found =
            found.and_then(|()| self.checks.all(&self.world.members, &self.history.borrow()));
        if let Err(what) = found {
            panic!("{what}\n{}", self.last_words());
        }
    }

    /// Puts every change of leaders into the trace.
    fn note_leaders(&mut self) {
        let view = |(node, running): (NodeId, &crate::world::Running)| {
            let status = running.group.status();
            (node, status.term, status.leader)
        };
        let now: Vec<_> = self.world.alive().map(view).collect();
        if now != self.views {
            self.trace.line(format!("(broker, term, leader): {now:?}"));
            self.views = now;
        }
    }

    /// The broker that leads and may serve.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.world.leader().filter(|node| self.world.members[node].is_alive())
    }

    /// Somebody comes to a seat that is free, as a member of the group.
    pub(super) fn join(&mut self) {
        let Some(at) = self.seats.iter().position(|seat| !seat.is_taken()) else { return };
        self.lives += 1;
        let seat = &mut self.seats[at];
        seat.strings.leaves.set(false);
        let orders =
            GroupSubscription { topics: ORDERS_NAME.parse().unwrap(), filter: MessageFilter::All };
        let life = Life {
            town: Rc::clone(&self.town),
            strings: Rc::clone(&seat.strings),
            number: at as u64 + 1,
            session: self.lives,
            subscriptions: vec![orders],
            dice: Dice::new(self.seed, 1_000 + self.lives),
            poison: (CONSUMED[0], u64::MAX), // none
        };
        seat.life = Some(begin_to_live(self.kind, life, &self.lines));
    }

    /// The process of a member of the group ends; its broker notices, or does not.
    pub(super) async fn end_of_life(&mut self, at: usize, is_noticed: bool) {
        let Some(life) = self.seats[at].life.take() else { return };
        life.abort();
        let _ = life.await; // it was aborted
        self.seats[at].strings.cut(&self.town, at as u64 + 1, is_noticed);
    }

    /// Nothing is broken any more, and nobody is away.
    pub(super) async fn mend(&mut self) {
        self.trace.line("all is mended");
        self.reap().await; // whose power has gone since the last look
        self.world.net.heal();
        self.lines.loss.set(0);
        for node in NODES {
            let member = &self.world.members[&node];
            member.disk.cut_at_step(u64::MAX);
            self.memories.doomed.remove(&node);
            member.disk_us_max.store(DISK_US_MAX, Relaxed);
            let skew = self.skews.remove(&node).unwrap_or(0);
            member.clock.hand().expect("it can be set").move_by(-skew);
        }
        for node in NODES {
            if !self.is_up(node) {
                self.start(node).await;
            }
        }
    }

    /// With everything mended all comes right: what was wished for is stored, what waits comes, and the group
    /// settles all of it.
    pub(crate) async fn heal(&mut self) {
        self.mend().await;
        let until = self.trace.now_ms() + HEALS_MS_MAX;
        loop {
            while self.seats.iter().filter(|seat| seat.is_taken()).count() < 3 {
                self.join();
            }
            self.run(100).await;
            let left = self.left();
            if left.is_empty() {
                return;
            }
            let is_late = self.trace.now_ms() >= until;
            assert!(!is_late, "not right after {HEALS_MS_MAX} ms: {left}\n{}", self.last_words());
        }
    }

    /// What is not done yet, in words.
    fn left(&self) -> String {
        let Some(leader) = self.leader() else { return "nobody leads".to_owned() };
        let running = self.world.running(leader);
        let last = running.group.status().last;
        let is_behind =
            |(_, other): (NodeId, &crate::world::Running)| other.group.status().applied != last;
        let mut left = Vec::new();
        if self.lines.open.get() > 0 {
            left.push(format!("{} wishes", self.lines.open.get()));
        }
        if self.world.alive().count() < NODES.len() || self.world.alive().any(is_behind) {
            left.push("somebody is behind".to_owned());
        }
        let waits = waiting(running).0.len();
        if waits > 0 {
            left.push(format!("{waits} messages wait for their time"));
        }
        let machine = running.machine.borrow();
        for queue in CONSUMED {
            let numbers = machine.state.queue(queue);
            let (start, end) =
                numbers.map_or((Offset(0), Offset(0)), |it| (it.visible_start, it.next_offset));
            let held = machine.state.progress(ProgressKey { queue, group: GROUP });
            let lag = held.map_or(end.0 - start.0, |held| held.lag(start, end));
            if lag > 0 {
                left.push(format!("{lag} messages of {queue} are not settled"));
            }
        }
        left.join(", ")
    }

    /// Each broker leads in turn, and has everything, once.
    pub(crate) async fn everyone_leads(&mut self) {
        for seat in 0..self.seats.len() {
            self.end_of_life(seat, true).await;
        }
        for node in NODES {
            self.make_leader(node).await;
            self.checks.restarted(node); // held against each receipt once more
            self.checks.contents.forget_reads_of(node);
            self.look();
            self.trace.line(format!("broker {node} leads and has everything"));
        }
    }

    async fn make_leader(&mut self, node: NodeId) {
        for _ in 0..200 {
            let leader = self.leader();
            if leader == Some(node) {
                return;
            }
            if let Some(leader) = leader {
                let group = self.world.running(leader).group.clone();
                let _ = group.transfer_leader(node).await; // it is asked again
            }
            self.run(200).await;
        }
        panic!("broker {node} never leads\n{}", self.trace.tail(60));
    }

    /// Every message that was acknowledged has come where it was to be seen, and the group was sent each of its
    /// own, and has handled it or given it up, once.
    pub(crate) fn all_was_delivered(&self) {
        let history = self.history.borrow();
        let contents = &self.checks.contents;
        let sent = |queue: QueueKey| history.sent.values().filter(move |sent| sent.queue == queue);
        for queue in super::QUEUES {
            let (sent, there) = (sent(queue).count(), contents.count(queue));
            assert_eq!(sent, there, "all that was sent to {queue} is there, once");
        }
        assert_eq!(self.checks.given.unseen(), 0, "what was handed out lies in its queue");
        let letters: BTreeSet<_> = self.letters.values().collect();
        let leader = self.leader().expect("one leads");
        let machine = self.world.running(leader).machine.borrow();
        let mut delivered = BTreeSet::new();
        let mut handled = BTreeSet::new();
        for (_, fact) in &self.facts {
            match fact {
                Fact::Delivered { by, messages } => {
                    delivered.extend(messages.iter().map(|(offset, _)| (by.queue, *offset)));
                }
                Fact::Handled(queue, offset) => drop(handled.insert((*queue, *offset))),
                _ => {}
            }
        }
        for (_, fact) in &self.facts {
            let Fact::Sent(queue, offset) = fact else { continue };
            let place = (*queue, *offset);
            let start = machine.state.queue(*queue).map_or(0, |numbers| numbers.visible_start.0);
            if *offset < start {
                continue; // it was old enough to go, also unseen
            }
            assert!(delivered.contains(&place), "nobody was ever sent {queue} at {offset}");
            let is_over = handled.contains(&place) || letters.contains(&place);
            assert!(is_over, "nobody has handled {queue} at {offset}");
        }
    }

    /// Ends all of it; what happened.
    pub(crate) async fn end_all(mut self) -> Told {
        self.count_all();
        for seat in 0..self.seats.len() {
            self.end_of_life(seat, false).await;
        }
        for sending in self.sending.drain(..) {
            sending.abort();
            let _ = sending.await; // it was aborted
        }
        for node in NODES {
            if self.is_up(node) {
                self.end(node, false).await;
            }
        }
        Told { trace: self.trace.lines(), facts: self.facts, tally: self.tally }
    }
}

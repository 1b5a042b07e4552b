//! A cluster of members, what clients were told, and what may happen to it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use grus_consensus::{NodeId, ProposeError, Standing};
use grus_log::Seeded;

use super::checks::Checks;
use super::machine::{self, Placed};
use super::member::{FLUSH_US_MAX, Member, Setup, SimGroup};
use super::net::Net;
use super::trace::Trace;

thread_local! {
    /// When the simulation of this thread was last looked at, in simulated milliseconds, and how often it was.
    static LOOKED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// When the last simulation of this thread was last looked at, in its milliseconds, and how often it was.
pub fn looked() -> (u64, u64) {
    LOOKED.get()
}

/// A receipt that a client was given.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    pub id: u64,
    pub index: u64,
    pub term: u64,
    pub placed: Placed,
}

/// A cluster in simulation.
pub struct Cluster {
    pub seed: u64,
    pub setup: Setup,
    pub net: Net,
    pub members: BTreeMap<NodeId, Member>,
    pub rng: Seeded,
    pub trace: Trace,
    pub receipts: Rc<RefCell<Vec<Receipt>>>,
    pub checks: Checks,
    /// Members whose disk will lose its power at a step to come.
    pub doomed: BTreeSet<NodeId>,
    /// Since when each member has been sound.
    pub sound_since: BTreeMap<NodeId, u64>,
    /// How many members have joined.
    pub lives: u64,
    next_id: u64,
    views: Vec<(NodeId, u64, Option<NodeId>)>,
}

impl Cluster {
    /// A cluster whose founders run.
    pub async fn start(seed: u64, setup: Setup) -> Self {
        LOOKED.set((0, 0));
        let members = setup.founders.iter().map(|node| (*node, Member::new(*node, seed)));
        let mut cluster = Self {
            seed,
            net: Net::new(seed),
            members: members.collect(),
            rng: Seeded::new(seed),
            trace: Trace::new(),
            receipts: Rc::default(),
            checks: Checks::default(),
            doomed: BTreeSet::new(),
            sound_since: BTreeMap::new(),
            lives: 0,
            next_id: 0,
            views: Vec::new(),
            setup,
        };
        for node in cluster.nodes() {
            cluster.start_member(node).await;
        }
        cluster
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.nodes().into_iter().filter(|other| *other != node).collect()
    }

    /// Starts a member; its disk must give a log that can be used. Its power may go while it starts.
    pub async fn start_member(&mut self, node: NodeId) {
        let (net, setup, trace) = (self.net.clone(), self.setup.clone(), self.trace.clone());
        let member = self.members.get_mut(&node).unwrap();
        self.doomed.remove(&node);
        if let Err(error) = member.start(&net, &setup, &trace).await {
            if member.disk.is_off() {
                trace.line(format!("member {node} loses its power while it starts"));
                return;
            }
            panic!("member {node} does not start: {error}\n{}", trace.tail(60));
        }
        self.checks.restarted(node);
        let group = member.group().unwrap();
        self.trace.line(format!("member {node} starts: {}", brief(group)));
    }

    /// Makes a member's disk slow or fast.
    pub fn set_flush_us(&self, node: NodeId, us_max: u64) {
        self.members[&node].flush_us_max.set(us_max);
    }

    pub async fn kill(&mut self, node: NodeId) {
        self.trace.line(format!("kill -9 member {node}"));
        self.members.get_mut(&node).unwrap().kill(&self.net).await;
    }

    pub async fn cut_power(&mut self, node: NodeId) {
        self.trace.line(format!("cut the power of member {node}"));
        self.members.get_mut(&node).unwrap().cut_power(&self.net).await;
    }

    /// Ends the processes that lost their power or were stopped by a fault.
    pub async fn reap(&mut self) {
        for node in self.nodes() {
            let member = self.members.get_mut(&node).unwrap();
            if member.running.is_none() || member.is_alive() {
                continue;
            }
            if member.disk.is_off() {
                self.trace.line(format!("member {node} has lost its power"));
                member.cut_power(&self.net).await;
            } else {
                let fault = member.fault.borrow().clone();
                panic!("member {node} stopped: {fault:?}\n{}", self.trace.tail(60));
            }
        }
    }

    /// Lets simulated time pass, then looks at everything.
    pub async fn run(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(20);
            tokio::time::sleep(Duration::from_millis(step)).await;
            left -= step;
            self.reap().await;
            self.check();
        }
    }

    pub fn check(&mut self) {
        LOOKED.set((self.trace.now_ms(), LOOKED.get().1 + 1));
        self.note_leaders();
        self.note_standings();
        let found = self.checks.all(&self.members, &self.receipts.borrow());
        if let Err(what) = found {
            panic!("{what}\n{}", self.trace.tail(60));
        }
    }

    fn note_standings(&mut self) {
        let now = self.trace.now_ms();
        for (node, member) in &self.members {
            let group = member.group().filter(|_| member.is_alive());
            if group.is_some_and(|group| group.status().standing == Standing::Sound) {
                self.sound_since.entry(*node).or_insert(now);
            } else {
                self.sound_since.remove(node);
            }
        }
    }

    /// Puts every change of leaders into the trace.
    fn note_leaders(&mut self) {
        let alive = self.members.values().filter(|member| member.is_alive());
        let view = |member: &Member| {
            let status = member.group()?.status();
            Some((member.node, status.term, status.leader))
        };
        let now: Vec<_> = alive.filter_map(view).collect();
        if now != self.views {
            self.trace.line(format!("(member, term, leader): {now:?}"));
            self.views = now;
        }
    }

    /// The member that leads and is ready, with the highest term.
    pub fn leader(&self) -> Option<NodeId> {
        let alive = self.members.values().filter(|member| member.is_alive());
        let leads = alive.filter_map(|member| {
            let status = member.group()?.status();
            status.ready.then_some((status.term, member.node))
        });
        leads.max().map(|(_, node)| node)
    }

    pub fn group(&self, node: NodeId) -> SimGroup {
        self.members[&node].group().expect("runs").clone()
    }

    /// Sends `count` messages to a member that may lead; receipts come when they come.
    pub fn send(&mut self, node: NodeId, count: u64) {
        self.send_up_to(node, count, 4_000);
    }

    /// The same with so many bytes at most.
    pub fn send_up_to(&mut self, node: NodeId, count: u64, bytes_max: u64) {
        let Some(group) = self.members[&node].group().cloned() else { return };
        for _ in 0..count {
            let id = self.next_id;
            self.next_id += 1;
            let queue = u32::try_from(self.rng.below(3)).unwrap();
            let bytes = usize::try_from(16 + self.rng.below(bytes_max)).unwrap();
            let answer = group.propose(&[machine::append(queue, id, bytes)]);
            let receipts = Rc::clone(&self.receipts);
            let disk = self.members[&node].disk.clone();
            let trace = self.trace.clone();
            tokio::task::spawn_local(async move {
                let Ok(reply) = answer.await else { return };
                // A receipt counts when it left before the power did.
                if !disk.is_off() {
                    let [placed] = reply.replies[..] else { panic!("one item, one answer") };
                    let (index, term) = (reply.index, reply.term);
                    trace.line(format!("receipt: message {id} is entry {term}-{index}"));
                    receipts.borrow_mut().push(Receipt { id, index, term, placed });
                }
            });
        }
    }

    /// Waits until some member leads, at most `ms`.
    pub async fn wait_leader(&mut self, ms: u64) -> NodeId {
        let until = self.trace.now_ms() + ms;
        loop {
            if let Some(node) = self.leader() {
                return node;
            }
            assert!(
                self.trace.now_ms() < until,
                "nobody leads after {ms} ms: {}\n{}",
                self.brief(),
                self.trace.tail(60)
            );
            self.run(20).await;
        }
    }

    /// Nothing is broken any more, and all members run.
    pub async fn mend(&mut self) {
        self.trace.line("all is mended");
        self.reap().await; // whose power has gone since the last look
        self.net.heal();
        self.doomed.clear();
        for node in self.nodes() {
            self.members[&node].disk.cut_at_step(u64::MAX);
            self.set_flush_us(node, FLUSH_US_MAX);
            if self.members[&node].running.is_none() {
                self.start_member(node).await;
            }
        }
    }

    /// Liveness: with everything mended, all members lead to one log, and new messages go in.
    pub async fn settle(&mut self, ms: u64) {
        self.mend().await;
        let until = self.trace.now_ms() + ms;
        let goal = self.receipts.borrow().len() + 20;
        while self.receipts.borrow().len() < goal || !self.all_applied() {
            assert!(
                self.trace.now_ms() < until,
                "not settled after {ms} ms: {}\n{}",
                self.brief(),
                self.trace.tail(60)
            );
            if self.receipts.borrow().len() < goal
                && let Some(leader) = self.leader()
            {
                self.send(leader, 5);
            }
            self.run(100).await;
            for node in self.nodes() {
                if self.members[&node].running.is_none() {
                    self.start_member(node).await;
                }
            }
        }
    }

    /// Whether all members have applied the same, up to what the leader has.
    pub fn all_applied(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let last = self.group(leader).status().last;
        let applied = |member: &Member| member.group().map(|group| group.status().applied);
        self.members.values().all(|member| applied(member) == Some(last))
    }

    /// Makes one member the leader.
    pub async fn make_leader(&mut self, node: NodeId) {
        for _ in 0..200 {
            let leader = self.wait_leader(60_000).await;
            if leader == node && self.all_applied() {
                return;
            }
            if leader != node && self.all_applied() {
                let asked = self.group(leader).transfer_leader(node).await;
                assert!(matches!(asked, Ok(()) | Err(ProposeError::Stopped)));
            }
            self.run(200).await;
        }
        panic!("member {node} never leads: {}\n{}", self.brief(), self.trace.tail(60));
    }

    pub fn brief(&self) -> String {
        let lines = self.members.values().map(|member| {
            let state = member.group().map_or("down".to_owned(), brief);
            format!("member {}: {state}", member.node)
        });
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// A group in a few words.
pub fn brief(group: &SimGroup) -> String {
    let s = group.status();
    format!(
        "term {} leader {:?} last {:?} committed {:?} applied {:?} durable {:?} purged {:?} {:?}",
        s.term, s.leader, s.last, s.committed, s.applied, s.durable, s.purged, s.standing
    )
}

//! Changes of the members of a group: who carries them out, who joins, who leaves, and stories of them.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use grus_consensus::{Approach, ChangeError, NodeId, Peers, Sabotage, ask_members};
use grus_protocol::ids::Durability;
use tokio::task::JoinHandle;

use super::chaos::{self, Mishaps};
use super::cluster::Cluster;
use super::member::Member;
use super::scenarios::{fill, mend_and_read, three};

/// How long a change may take once everything is mended, in milliseconds.
const CHANGE_MS_MAX: u64 = 120_000;

/// A step that was begun.
type Step = JoinHandle<Result<Approach, ChangeError>>;

/// Who has a change carried out: asks whoever leads for the next step, as a broker does.
pub struct Driver {
    pub wanted: BTreeSet<NodeId>,
    /// The step under way, who takes it, and in which of its lives.
    under_way: Option<(NodeId, u64, Step)>,
}

impl Driver {
    pub fn new(wanted: &[NodeId]) -> Self {
        Self { wanted: wanted.iter().copied().collect(), under_way: None }
    }

    /// Who is to be a member, and is not there at all, starts.
    pub async fn start_joiners(&self, cluster: &mut Cluster) {
        for node in &self.wanted {
            if !cluster.members.contains_key(node) {
                cluster.setup.joiners.insert(*node);
                cluster.lives += 1;
                let seed = cluster.seed ^ (cluster.lives << 20);
                cluster.members.insert(*node, Member::new(*node, seed));
                cluster.start_member(*node).await;
            }
        }
    }

    /// Asks for a step, or looks for the answer of the last one. True: it is there.
    pub async fn turn(&mut self, cluster: &mut Cluster) -> bool {
        let Some((node, life, step)) = self.under_way.take() else {
            self.start_joiners(cluster).await;
            if let Some(leader) = cluster.leader() {
                let (group, wanted) = (cluster.group(leader), self.wanted.clone());
                let step = async move { group.approach(&wanted).await };
                let life = cluster.members[&leader].life();
                self.under_way = Some((leader, life, tokio::task::spawn_local(step)));
            }
            return false;
        };
        let goes_on = |member: &Member| member.is_alive() && member.life() == life;
        if !cluster.members.get(&node).is_some_and(goes_on) {
            step.abort(); // it ended with its process
            return false;
        }
        if !step.is_finished() {
            self.under_way = Some((node, life, step));
            return false;
        }
        let done = step.await.unwrap();
        cluster.trace.line(format!("{node} towards {:?}: {done:?}", self.wanted));
        done == Ok(Approach::There)
    }

    /// Lets the change come to its end, with messages under way, and those that are out leave.
    pub async fn finish(&mut self, cluster: &mut Cluster) {
        let until = cluster.trace.now_ms() + CHANGE_MS_MAX;
        while !self.turn(cluster).await {
            let late = cluster.trace.now_ms() >= until;
            assert!(!late, "not changed: {}\n{}", cluster.brief(), cluster.trace.tail(80));
            if let Some(leader) = cluster.leader() {
                cluster.send(leader, 1);
            }
            cluster.run(20).await;
        }
        for node in cluster.nodes() {
            while !self.wanted.contains(&node) && !leave(cluster, node).await {
                let late = cluster.trace.now_ms() >= until;
                assert!(!late, "{node} is never told that it is out: {}", cluster.trace.tail(80));
                cluster.run(100).await;
            }
        }
    }
}

/// What a member hears when it asks the others whether it is out; none: nobody leads who would know.
async fn is_out(cluster: &Cluster, node: NodeId) -> Option<bool> {
    let peers: Rc<dyn Peers> = Rc::new(cluster.net.peers(node, || false));
    for other in cluster.others(node) {
        let told = ask_members(&peers, other, Duration::from_millis(500)).await;
        let Ok(Some(list)) = told else { continue };
        cluster.trace.line(format!("member {node} hears from {other}: {list:?}"));
        return Some(!list.contains(node));
    }
    None
}

/// A member that may be out: is stopped, asks the others, and goes with its disk if it is; else it goes
/// on. True if it is gone.
pub async fn leave(cluster: &mut Cluster, node: NodeId) -> bool {
    let was_running = cluster.members[&node].running.is_some();
    if was_running {
        cluster.kill(node).await;
    }
    if is_out(cluster, node).await == Some(true) {
        cluster.members.remove(&node);
        return true;
    }
    if was_running {
        cluster.start_member(node).await;
    }
    false
}

fn three_of(cluster: &Cluster) -> (NodeId, NodeId, NodeId) {
    let leader = cluster.leader().unwrap();
    let [one, two] = cluster.others(leader)[..] else { unreachable!() };
    (leader, one, two)
}

/// A follower is dead for good; another one takes its place, which has to install what is trimmed. When
/// the dead one comes back it is told that it is out, and only it is.
pub async fn a_dead_follower_is_replaced(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 5).await;
    let (leader, dead, other) = three_of(&cluster);
    cluster.kill(dead).await;
    let half = cluster.group(leader).status().applied.unwrap() / 2;
    let point = cluster.group(leader).trim(half).await.unwrap().unwrap();
    cluster.run(2_000).await;
    let mut driver = Driver::new(&[leader, other, 4]);
    let gone = cluster.members.remove(&dead).unwrap();
    driver.finish(&mut cluster).await;
    assert_eq!(cluster.group(4).status().purged, Some(point.index), "it installs the purge point");
    let voters: BTreeSet<NodeId> = cluster.group(4).voters();
    assert_eq!(voters, driver.wanted);
    // It comes back and stands for election as long as it likes: nobody follows it.
    cluster.members.insert(dead, gone);
    cluster.start_member(dead).await;
    let term = cluster.group(leader).status().term;
    cluster.run(10_000).await;
    assert_eq!(cluster.group(leader).status().term, term, "it disturbs the others");
    let led_by = cluster.leader().unwrap();
    for node in [leader, other, 4, dead].into_iter().filter(|node| *node != led_by) {
        assert_eq!(is_out(&cluster, node).await, Some(node == dead), "member {node}");
    }
    assert!(leave(&mut cluster, dead).await, "it is out");
    mend_and_read(&mut cluster).await;
}

/// The leader is not to remain: it gives its leadership away first, and serves until then.
pub async fn a_leader_is_replaced(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    cluster.run(1_500).await;
    let (leader, one, two) = three_of(&cluster);
    let mut driver = Driver::new(&[one, two, 4]);
    driver.finish(&mut cluster).await;
    assert!(!cluster.members.contains_key(&leader), "it is out and gone");
    mend_and_read(&mut cluster).await;
}

/// The first of those that could take over is about to be stopped: another one does.
pub async fn an_heir_that_does_not_want_to_lead(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    cluster.run(1_500).await;
    let (leader, one, two) = three_of(&cluster);
    cluster.group(one).retire();
    Driver::new(&[one, two, 4]).finish(&mut cluster).await;
    assert!(!cluster.members.contains_key(&leader), "it is out and gone");
    cluster.kill(one).await;
    cluster.start_member(one).await;
    mend_and_read(&mut cluster).await;
}

/// From three to one that is none of them, and to three again, two of which had been members before and
/// have lost everything since.
pub async fn all_members_change(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 2).await;
    for wanted in [&[4][..], &[1, 2, 4], &[1, 2, 3, 4, 5], &[3, 5]] {
        Driver::new(wanted).finish(&mut cluster).await;
    }
    mend_and_read(&mut cluster).await;
}

/// Of three one is away: a list of the leader and the absent one could not be agreed on, and in the middle
/// of it nothing could be.
pub async fn a_change_that_could_not_end(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    cluster.run(1_500).await;
    let (leader, away, other) = three_of(&cluster);
    cluster.kill(away).await;
    cluster.run(1_500).await;
    let wanted = BTreeSet::from([leader, away]);
    let refused = cluster.group(leader).approach(&wanted).await;
    assert_eq!(refused, Err(ChangeError::Short { here: 1, of: 2 }));
    let nobody = cluster.group(leader).approach(&BTreeSet::new()).await;
    assert!(matches!(nobody, Err(ChangeError::Refused(_))), "{nobody:?}");
    let follower = cluster.group(other).approach(&wanted).await;
    assert!(matches!(follower, Err(ChangeError::Propose(_))), "{follower:?}");
    let members = cluster.group(other).members();
    assert_eq!((members.voters.len(), members.is_settled), (3, true), "nothing has begun");
    cluster.start_member(away).await;
    Driver { wanted, under_way: None }.finish(&mut cluster).await;
    mend_and_read(&mut cluster).await;
}

/// A member that has lost its folder while the group changes counts for nothing until it has caught up,
/// and one of two is brought back by taking a third one.
pub async fn a_joiner_loses_its_folder(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 2).await;
    let mut driver = Driver::new(&[1, 2, 3, 4]);
    for _ in 0..12 {
        driver.turn(&mut cluster).await;
        cluster.run(20).await;
    }
    cluster.kill(4).await;
    cluster.members.insert(4, Member::new(4, seed ^ 0xf01d));
    cluster.start_member(4).await;
    driver.finish(&mut cluster).await;
    mend_and_read(&mut cluster).await;
}

/// Whoever leads is killed so many milliseconds after each step was asked for.
pub async fn leaders_die_while_they_change(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 2).await;
    let lists = [&[2, 3, 4][..], &[1, 2, 3], &[1, 2, 3, 4], &[4, 2, 1]];
    for (round, after_ms) in [1, 4, 7, 11, 16, 24, 40, 90].into_iter().enumerate() {
        let mut driver = Driver::new(lists[round % lists.len()]);
        for _ in 0..4 {
            driver.turn(&mut cluster).await;
            cluster.run(after_ms).await;
            if let Some(leader) = cluster.leader() {
                cluster.send(leader, 3);
                cluster.kill(leader).await;
                cluster.wait_leader(30_000).await;
                cluster.start_member(leader).await;
            }
        }
        driver.finish(&mut cluster).await;
    }
    mend_and_read(&mut cluster).await;
}

/// Two members take in a third. The moment the leader says that it votes the leader dies: the other two go on.
pub async fn who_is_said_to_vote_counts_at_once(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 2).await;
    let (leader, gone, other) = three_of(&cluster);
    Driver::new(&[leader, other]).finish(&mut cluster).await;
    assert!(!cluster.members.contains_key(&gone));
    let flush_us = 1_000 * (1 + cluster.rng.below(8));
    cluster.set_flush_us(other, flush_us);
    let mut driver = Driver::new(&[leader, other, 4]);
    let until = cluster.trace.now_ms() + CHANGE_MS_MAX;
    loop {
        driver.turn(&mut cluster).await;
        let lags = cluster.group(leader).lags();
        if lags.iter().any(|lag| lag.node == 4 && lag.votes) {
            break;
        }
        assert!(cluster.trace.now_ms() < until, "never: {}", cluster.brief());
        cluster.run(1).await;
    }
    cluster.kill(leader).await;
    cluster.wait_leader(30_000).await;
    fill(&mut cluster, 2).await;
    cluster.start_member(leader).await;
    driver.finish(&mut cluster).await;
    mend_and_read(&mut cluster).await;
}

/// Lists that follow each other before the one before is there, under mishaps of every kind. Of a
/// `replicated` shard they have three members at least: of fewer a minority without power is one too many.
pub async fn lists_change_under_mishaps(seed: u64, rounds: u64, durability: Durability) {
    let mut cluster = three(seed, durability, Sabotage::default()).await;
    let (mishaps, least) = match durability {
        Durability::Persisted => (Mishaps::persisted(), 1),
        Durability::Replicated | Durability::Memory => (Mishaps::replicated(), 3),
    };
    let mut driver = Driver::new(&[1, 2, 3]);
    for round in 0..rounds {
        if round % 3 == 0 {
            let count = least + cluster.rng.below(5 - least);
            let first = cluster.rng.below(5);
            let wanted: Vec<NodeId> = (0..count).map(|at| 1 + (first + at) % 5).collect();
            driver.wanted = wanted.into_iter().collect();
            cluster.trace.line(format!("to be: {:?}", driver.wanted));
        }
        for _ in 0..10 {
            driver.turn(&mut cluster).await;
            let pause = 1 + cluster.rng.below(60);
            cluster.run(pause).await;
            chaos::mishap(&mut cluster, mishaps).await;
        }
        let nodes = cluster.nodes();
        let at = usize::try_from(cluster.rng.below(nodes.len() as u64)).unwrap();
        if !driver.wanted.contains(&nodes[at]) {
            leave(&mut cluster, nodes[at]).await;
        }
    }
    cluster.mend().await;
    driver.finish(&mut cluster).await;
    mend_and_read(&mut cluster).await;
}

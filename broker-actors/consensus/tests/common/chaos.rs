//! A seeded run of mishaps, then a phase in which everything must come right again.

use grus_consensus::NodeId;

use super::checks;
use super::cluster::Cluster;

/// What may happen in a run.
#[derive(Debug, Clone, Copy)]
pub struct Mishaps {
    pub steps: u64,
    /// Powers that may be off at the same time.
    pub power_cuts_at_once: usize,
    pub trims: bool,
    pub network: bool,
    /// Ways that carry nothing while the way back does, disks that take up to [`SLOW_US`], clocks that step.
    pub lopsided: bool,
}

/// The longest that a sync takes on a disk that has become slow, in microseconds: some elections.
const SLOW_US: u64 = 900_000;
/// How far a clock goes wrong at most, either way, in milliseconds.
const SKEW_MS: u64 = 60_000;

impl Mishaps {
    /// Everything a `persisted` shard must survive.
    pub fn persisted() -> Self {
        Self { steps: 60, power_cuts_at_once: 3, trims: true, network: true, lopsided: true }
    }

    /// What a `replicated` shard must survive: a minority without power.
    pub fn replicated() -> Self {
        Self { power_cuts_at_once: 1, ..Self::persisted() }
    }
}

/// Runs mishaps, mends everything, makes each member the leader in turn and reads all there is.
pub async fn run(cluster: &mut Cluster, mishaps: Mishaps) {
    cluster.wait_leader(30_000).await;
    for _ in 0..mishaps.steps {
        step(cluster, mishaps).await;
        let pause = 20 + cluster.rng.below(400);
        cluster.run(pause).await;
    }
    cluster.settle(120_000).await;
    everyone_leads_and_reads(cluster).await;
}

/// Power goes at one step after the other while segments end, checkpoints are taken, the log is
/// trimmed, and a member that was away installs what it missed.
pub async fn cuts_around_seals(cluster: &mut Cluster, rounds: u64) {
    for round in 0..rounds {
        let nodes = cluster.nodes();
        let node = nodes[usize::try_from(round % nodes.len() as u64).unwrap()];
        let away = round % 4 == 3;
        if away {
            cluster.kill(node).await;
        }
        for _ in 0..4 {
            fill_one_segment(cluster).await;
            trim(cluster);
        }
        if away {
            cluster.start_member(node).await;
        }
        let steps = cluster.members[&node].disk.steps() + 1 + round * 3 + cluster.rng.below(3);
        cluster.members[&node].disk.cut_at_step(steps);
        cluster.trace.line(format!("round {round}: member {node} loses its power at {steps}"));
        for _ in 0..2 {
            fill_one_segment(cluster).await;
            trim(cluster);
        }
        if cluster.members[&node].running.is_none() {
            cluster.start_member(node).await;
            // Recovery is cut short as well.
            let steps = cluster.members[&node].disk.steps() + 1 + round;
            cluster.members[&node].disk.cut_at_step(steps);
        }
        cluster.run(1_500).await;
        if cluster.members[&node].running.is_none() {
            cluster.start_member(node).await;
        }
        cluster.run(1_500).await;
    }
    cluster.settle(120_000).await;
    everyone_leads_and_reads(cluster).await;
}

async fn fill_one_segment(cluster: &mut Cluster) {
    for _ in 0..3 {
        let leader = cluster.wait_leader(60_000).await;
        cluster.send(leader, 24);
        cluster.run(60).await;
    }
}

/// Every member leads in turn, and has every message that was acknowledged and not trimmed away.
pub async fn everyone_leads_and_reads(cluster: &mut Cluster) {
    for node in cluster.nodes() {
        cluster.make_leader(node).await;
        let purged = |node: &NodeId| {
            let member = &cluster.members[node];
            member.group().unwrap().status().purged
        };
        let nodes = cluster.nodes();
        let start = nodes.iter().map(purged).min().flatten();
        let receipts = cluster.receipts.borrow();
        let retained: Vec<_> =
            receipts.iter().filter(|receipt| Some(receipt.index) > start).copied().collect();
        let running = cluster.members[&node].running.as_ref().unwrap();
        if let Err(what) = checks::read_everything(node, running, &retained) {
            panic!("{what}\n{}", cluster.trace.tail(60));
        }
        let count = retained.len();
        cluster.trace.line(format!("member {node} leads and has all {count} messages"));
    }
}

fn pick(cluster: &mut Cluster) -> NodeId {
    let nodes = cluster.nodes();
    let at = cluster.rng.below(nodes.len() as u64);
    nodes[usize::try_from(at).unwrap()]
}

/// One mishap, or nothing.
pub async fn mishap(cluster: &mut Cluster, mishaps: Mishaps) {
    step(cluster, mishaps).await;
}

async fn step(cluster: &mut Cluster, mishaps: Mishaps) {
    let chance = cluster.rng.below(100);
    let node = pick(cluster);
    match chance {
        0..40 => {
            let target = cluster.leader().unwrap_or(node);
            let count = 1 + cluster.rng.below(40);
            cluster.send(target, count);
        }
        40..46 if cluster.members[&node].running.is_some() => cluster.kill(node).await,
        46..52 if may_cut(cluster, mishaps) => {
            if cluster.members[&node].running.is_some() {
                cluster.cut_power(node).await;
            }
        }
        52..58 if may_cut(cluster, mishaps) => {
            let steps = cluster.members[&node].disk.steps() + 1 + cluster.rng.below(150);
            cluster.members[&node].disk.cut_at_step(steps);
            cluster.doomed.insert(node);
            cluster.trace.line(format!("member {node} will lose its power at step {steps}"));
        }
        58..63 if mishaps.network => {
            cluster.trace.line(format!("member {node} is cut off"));
            cluster.net.isolate(node, cluster.others(node));
        }
        63..67 if mishaps.network => {
            let loss = cluster.rng.below(200);
            cluster.net.trouble(loss, 1 + loss / 2);
        }
        67..73 => cluster.net.heal(),
        73..80 if mishaps.trims => trim(cluster),
        80..83 if mishaps.lopsided => {
            let others = cluster.others(node);
            if others.is_empty() {
                return;
            }
            let other = others[usize::try_from(cluster.rng.below(others.len() as u64)).unwrap()];
            cluster.trace.line(format!("member {other} hears member {node} no more"));
            cluster.net.cut(node, other);
        }
        83..86 if mishaps.lopsided => {
            let us = 1 + cluster.rng.below(SLOW_US);
            cluster.trace.line(format!("the disk of member {node} takes up to {us} us"));
            cluster.set_flush_us(node, us);
        }
        86..88 if mishaps.lopsided => {
            let skew = cluster.rng.below(2 * SKEW_MS).cast_signed() - SKEW_MS.cast_signed();
            cluster.trace.line(format!("the clock of member {node} is {skew} ms ahead"));
            cluster.members[&node].skew_ms.set(skew);
        }
        _ => start_one(cluster).await,
    }
}

/// Members that have lost what was only in memory, or may yet: no more than allowed at once. One that has caught
/// up with what it forgot may have to forget it again until its disk has noted that, two syncs later at most.
fn may_cut(cluster: &Cluster, mishaps: Mishaps) -> bool {
    let all_may = mishaps.power_cuts_at_once >= cluster.nodes().len();
    let noted_ms = if all_may { 0 } else { 3 * SLOW_US / 1000 };
    let lossy = |node: &NodeId| {
        let since = cluster.sound_since.get(node);
        let is_noted = since.is_some_and(|since| since + noted_ms <= cluster.trace.now_ms());
        !cluster.members[node].is_alive() || !is_noted || cluster.doomed.contains(node)
    };
    let nodes = cluster.nodes();
    nodes.iter().filter(|node| lossy(node)).count() < mishaps.power_cuts_at_once
}

async fn start_one(cluster: &mut Cluster) {
    let down = |node: &NodeId| cluster.members[node].running.is_none();
    let nodes = cluster.nodes();
    if let Some(node) = nodes.into_iter().find(down) {
        cluster.start_member(node).await;
    }
}

/// Drops the older half of the log, wherever the leader is.
fn trim(cluster: &mut Cluster) {
    let Some(leader) = cluster.leader() else { return };
    let group = cluster.group(leader);
    let status = group.status();
    let (purged, applied) = (status.purged.unwrap_or(0), status.applied.unwrap_or(0));
    let upto = purged + (applied - purged) / 2;
    let trace = cluster.trace.clone();
    trace.line(format!("leader {leader} trims up to {upto}"));
    tokio::task::spawn_local(async move {
        let trimmed = group.trim(upto).await;
        trace.line(format!("trim: {trimmed:?}"));
    });
}

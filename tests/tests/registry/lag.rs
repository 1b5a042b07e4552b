//! What a leader tells of its members in numbers, on `/metrics` and `/health`: who leads, in which term, how far
//! each other member is behind, and how many of them are.

use grus_tests::cluster::{Cluster, grus_at};
use grus_tests::http;
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

/// What is stored while a member is away: one send at a time, so that each is an entry of its own.
const MEANWHILE: u64 = 40;

/// The number of the only shard of the topic.
fn shard_of(cluster: &Cluster) -> u64 {
    let described = grus_at(&cluster.at(), &["topic", "describe", "t", "--json"], b"");
    described.ok().json()[0]["queue_list"][0]["shard"].as_u64().expect("its shard")
}

/// A page of a broker, or nothing while it does not answer.
fn page(cluster: &Cluster, broker: usize, path: &str) -> String {
    http::get(cluster.homes[broker].http, path).map_or_else(|_| String::new(), |(_, body)| body)
}

/// One number of the shard on a broker's `/metrics`; none where there is no such series.
fn number(cluster: &Cluster, broker: usize, name: &str, shard: u64, more: &str) -> Option<u64> {
    let series = format!("{name}{{shard=\"{shard}\",durability=\"persisted\"{more}}} ");
    let metrics = page(cluster, broker, "/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&*series))?;
    Some(value.parse().expect("a whole number"))
}

/// How far a member is behind, as a broker tells.
fn lag(cluster: &Cluster, broker: usize, shard: u64, member: u64) -> Option<u64> {
    let member = format!(",member=\"{member}\"");
    number(cluster, broker, "grus_shard_member_lag_entries", shard, &member)
}

/// The shard as one page of a broker tells of it; nothing while the broker does not answer.
fn told(cluster: &Cluster, broker: usize, path: &str, shard: u64) -> Value {
    let said: Value = serde_json::from_str(&page(cluster, broker, path)).unwrap_or_default();
    let all = if path == "/health" { said["shards"].clone() } else { said };
    let all = all.as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["shard"] == shard).unwrap_or_default()
}

/// The last entry of a broker's log.
fn last(cluster: &Cluster, broker: usize, shard: u64) -> u64 {
    let told = told(cluster, broker, "/cluster/shards", shard);
    told["lastIndex"].as_u64().expect("its last entry")
}

/// Asks until it is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let watch = Watch::start();
    while !is_so() {
        assert!(watch.elapsed() < PATIENCE, "it is not so that {what}");
    }
}

/// Whether so many members are behind, as a broker's metrics and its health both tell.
fn are_behind(cluster: &Cluster, broker: usize, shard: u64, behind: u64) -> bool {
    number(cluster, broker, "grus_shard_members_behind", shard, "") == Some(behind)
        && told(cluster, broker, "/health", shard)["membersBehind"] == behind
}

/// Has another broker lead by an operator's word, so that it is not given back meanwhile; which one that is.
fn pinned(cluster: &Cluster, shard: u64) -> usize {
    let to = (cluster.leader("t") + 1) % 3;
    let (number, id) = (shard.to_string(), cluster.id_of(to).to_string());
    until("another one leads", || {
        // Asked again where it was refused, as the cluster may still be busy with its start.
        let _ = grus_at(&cluster.at(), &["cluster", "move-leader", &number, "--to", &id], b"");
        told(cluster, to, "/cluster/shards", shard)["leads"] == true
    });
    cluster.await_agreement();
    to
}

#[test]
fn a_member_that_is_away_lags_by_what_is_stored_meanwhile() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 1, "persisted");
    let shard = shard_of(&cluster);
    let leader = pinned(&cluster, shard);
    let (away, stays) = ((leader + 1) % 3, (leader + 2) % 3);
    let ids = [0, 1, 2].map(|broker| cluster.id_of(broker));
    // Whoever leads tells, of the others alone. Who that is may change, on a machine that is slow.
    let lacks = |cluster: &Cluster, broker: usize, of: usize| lag(cluster, broker, shard, ids[of]);
    let is_told = |cluster: &Cluster, of: usize, lacking: u64| {
        (0..3).any(|broker| lacks(cluster, broker, of) == Some(lacking))
    };
    let behind = |cluster: &Cluster, count: u64| {
        (0..3).any(|broker| are_behind(cluster, broker, shard, count))
    };
    let before = last(&cluster, leader, shard);
    until("all have all", || {
        (0..3).filter(|broker| is_told(&cluster, *broker, 0)).count() == 2 && behind(&cluster, 0)
    });

    cluster.kill(away);
    for count in 0..MEANWHILE {
        let words = ["--timeout", "60s", "produce", "t"];
        grus_at(&cluster.at(), &words, format!("{count}\n").as_bytes()).ok();
    }
    until("one is behind", || behind(&cluster, 1));
    until("who stays has all", || {
        is_told(&cluster, stays, 0) || is_told(&cluster, leader, 0) // one of them leads
    });
    until("the leader tells by how much", || {
        let (now, _) = reign(&cluster, &[leader, stays], shard);
        let Some(lacking) = lacks(&cluster, now, away) else { return false };
        let stored = last(&cluster, now, shard) - before;
        assert!((MEANWHILE..=stored).contains(&lacking), "{lacking} of {stored}");
        let worst = number(&cluster, now, "grus_shard_lag_entries", shard, "");
        assert!(
            worst.is_none_or(|worst| worst >= lacking),
            "{worst:?} is the worst, not {lacking}"
        );
        worst.is_some()
    });
    until("it tells of the others, and who follows of nobody", || {
        let (now, _) = reign(&cluster, &[leader, stays], shard);
        let follower = leader + stays - now;
        lacks(&cluster, now, now).is_none()
            && [0, 1, 2].iter().all(|of| lacks(&cluster, follower, *of).is_none())
    });

    cluster.start_again(away);
    until("all have all again", || {
        (0..3).filter(|broker| is_told(&cluster, *broker, 0)).count() == 2 && behind(&cluster, 0)
    });
}

#[test]
fn all_brokers_tell_the_same_leader_and_term_and_the_next_ones_after_a_kill() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 1, "persisted");
    let shard = shard_of(&cluster);
    pinned(&cluster, shard);
    let (first, term) = reign(&cluster, &[0, 1, 2], shard);
    cluster.kill(first);
    let left = [(first + 1) % 3, (first + 2) % 3];
    let (_, next) = reign(&cluster, &left, shard);
    assert!(next > term, "term {next} after {term}");
    until("the one that was killed is missed", || {
        left.iter().any(|broker| are_behind(&cluster, *broker, shard, 1))
    });
}

/// Waits until these brokers tell that one of them leads, all in one term: which one, and the term.
fn reign(cluster: &Cluster, brokers: &[usize], shard: u64) -> (usize, u64) {
    let leads = |broker: usize| number(cluster, broker, "grus_shard_leads", shard, "");
    let term = |broker: usize| number(cluster, broker, "grus_shard_term", shard, "");
    let watch = Watch::start();
    loop {
        assert!(watch.elapsed() < PATIENCE, "they do not tell of one leader");
        let Some(leader) = brokers.iter().copied().find(|broker| leads(*broker) == Some(1)) else {
            continue;
        };
        let Some(at) = term(leader) else { continue };
        let id = cluster.id_of(leader);
        let agrees = |broker: &usize| {
            let health = told(cluster, *broker, "/health", shard);
            leads(*broker) == Some(u64::from(*broker == leader))
                && term(*broker) == Some(at)
                && health["leader"] == id
                && health["term"] == at
        };
        if brokers.iter().all(agrees) {
            return (leader, at);
        }
    }
}

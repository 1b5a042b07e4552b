//! Members of shards, changed by hand: by command, and by HTTP as leadership is; and what is refused.

use std::collections::BTreeSet;

use grus_tests::cluster::{Cluster, Sender, block_on, check, grus_at};
use grus_tests::http;
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::{Value, json};

use crate::replaced::{await_shards, change, noted};

/// The ids of some brokers.
fn ids(cluster: &Cluster, numbers: &[usize]) -> BTreeSet<u64> {
    numbers.iter().map(|number| cluster.id_of(*number)).collect()
}

/// Waits until each of the three shards has these members, and all of them keep up.
fn await_members(cluster: &Cluster, numbers: &[usize]) {
    let wanted = ids(cluster, numbers);
    await_shards(cluster, 3, |members, is_short| *members == wanted && !is_short);
}

/// Waits until a broker has begun so many shards of several brokers.
fn await_noted(cluster: &Cluster, number: usize, count: usize) -> BTreeSet<String> {
    let watch = Watch::start();
    loop {
        let all = noted(cluster, number);
        if all.len() == count {
            return all;
        }
        assert!(watch.elapsed() < PATIENCE, "not {count} of broker {number}: {all:?}");
    }
}

#[test]
fn a_broker_loses_its_replicas_by_command_and_gets_them_again_while_all_is_served() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    await_members(&cluster, &[0, 1, 2]);
    let (out, stays) = (cluster.id_of(2), cluster.id_of(1));
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(200).await;
        let before = await_noted(&cluster, 2, 3);
        change(&cluster, &format!("remove-replica t --broker {out}"));
        sender.go_on(100).await;
        await_members(&cluster, &[0, 1]);
        await_noted(&cluster, 2, 0);
        let watch = Watch::start();
        for shard in &before {
            let folder = cluster.homes[2].data.join("shards").join(shard);
            while folder.exists() {
                assert!(watch.elapsed() < PATIENCE, "{} stays", folder.display());
            }
        }
        // A shard of several brokers stays one.
        let words = ["cluster", "remove-replica", "t", "--broker", &stays.to_string()];
        let refused = grus_at(&cluster.at(), &words, b"");
        assert_eq!(refused.status.code(), Some(1), "{}", refused.err);
        assert!(refused.err.contains("would have 1 members, not 2 to 7"), "{}", refused.err);
        sender.go_on(100).await;
        // Beside those that are there, in the place of nobody.
        change(&cluster, &format!("add-replica t --broker {out}"));
        sender.go_on(100).await;
        await_members(&cluster, &[0, 1, 2]);
        await_noted(&cluster, 2, 3);
        // It counts: without one of the two others it is of the majority.
        cluster.kill(0);
        sender.go_on(100).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

/// POSTs to a path of a broker's, as one who means it: the status and what was said.
fn asked(cluster: &Cluster, number: usize, path: &str) -> (u16, Value) {
    let (status, text) = cluster.brokers[number].as_ref().expect("it runs").change(path);
    let said =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
    (status, said)
}

/// Each of these is refused with its status, and with a word of why.
fn all_refused(cluster: &Cluster, number: usize, cases: &[(String, u16, &str)]) {
    for (path, status, why) in cases {
        let (answered, said) = asked(cluster, number, path);
        assert_eq!(answered, *status, "{path}: {said}");
        let error = said["error"].as_str().expect("the reason");
        assert!(error.contains(*why), "{path}: {error}");
    }
    let (path, _, _) = &cases[0];
    let (status, said) = http::post(cluster.homes[number].http, path).expect("an answer");
    assert_eq!(status, 403, "not meant, {path}: {said}");
}

#[test]
fn leadership_is_handed_over_by_http_and_nonsense_is_refused() {
    let cluster = Cluster::start();
    cluster.topic("t", 1, "persisted");
    let leader = cluster.leader("t");
    let follower = (leader + 1) % 3;
    let (own, to) = (cluster.id_of(leader), cluster.id_of(follower));
    let has_queue = |shard: &&Value| shard["leads"] == true && shard["queues"] == 1;
    let watch = Watch::start();
    // The routes name who leads before the queue is open there.
    let shard = loop {
        if let Some(found) = cluster.shards()[leader].iter().find(has_queue) {
            break found["shard"].clone();
        }
        assert!(watch.elapsed() < PATIENCE, "it leads");
    };
    let path = |rest: &str| format!("/cluster/hand-over?{rest}");
    all_refused(
        &cluster,
        leader,
        &[
            (path("shard=999"), 400, "has no member of shard 999"),
            (path(&format!("shard={shard}&to={own}")), 400, "is the one that hands over"),
            (path(&format!("shard={shard}&to=999")), 400, "broker 999 has no member of shard"),
            (path("shard=many"), 400, ""),
            (path("from=1"), 400, "from"),
        ],
    );
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(50).await;
        // The other one may have been started too short a time ago to lead.
        let watch = Watch::start();
        loop {
            let leads = |is: &Value| is["shard"] == shard && is["leads"] == true;
            let all = cluster.shards();
            let leader = all.iter().position(|own| own.iter().any(leads)).unwrap_or(leader);
            let (status, told) = asked(&cluster, leader, &path(&format!("shard={shard}&to={to}")));
            if leader == follower {
                assert_eq!((status, &told["handedOver"]), (400, &Value::Null), "{told}");
                break;
            }
            assert_eq!(status, 200, "{told}");
            let said = json!({"handedOver": [shard], "kept": [], "drained": false});
            assert!(told == said || told["kept"] != json!([]), "{told}");
            assert!(watch.elapsed() < PATIENCE, "{told}");
        }
        sender.go_on(50).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

#[test]
fn members_are_changed_by_http_and_nonsense_is_refused() {
    let cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    await_members(&cluster, &[0, 1, 2]);
    let out = cluster.id_of(2);
    let path = |rest: &str| format!("/cluster/replicas?{rest}");
    all_refused(
        &cluster,
        0,
        &[
            (path("topic=t&add=999"), 400, "broker 999 is not there"),
            (path(&format!("shard=999&remove={out}")), 400, "there is no shard 999"),
            (path(&format!("topic=nobody&remove={out}")), 404, ""),
            (path(&format!("topic=&remove={out}")), 400, ""),
            (path(&format!("topic=t&remove={out}&replicas=2")), 400, "either so many members"),
            (path("topic=t&replicas=1"), 400, "grows to 2 to 7 members"),
            (path("topic=t"), 400, "`add`, `remove` or `replicas`"),
            (path(&format!("remove={out}")), 400, "`shard` or `topic`"),
            (path("topic=t&add=one"), 400, ""),
            (path("topic=t&from=1"), 400, "from"),
        ],
    );
    let (status, told) = asked(&cluster, 0, &path(&format!("topic=t&remove={out}")));
    assert_eq!(status, 200, "{told}");
    let shards = told["changing"].as_array().expect("shards").clone();
    assert_eq!(shards.len(), 3, "{told}");
    await_members(&cluster, &[0, 1]);
    await_noted(&cluster, 2, 0);
    let again = asked(&cluster, 1, &path(&format!("topic=t&remove={out}")));
    assert_eq!(again, (200, json!({"changing": []})), "it is out");
    for shard in &shards {
        let (status, told) = asked(&cluster, 1, &path(&format!("shard={shard}&add={out}")));
        assert_eq!((status, &told), (200, &json!({"changing": [shard]})));
    }
    await_members(&cluster, &[0, 1, 2]);
    let enough = asked(&cluster, 2, &path("topic=t&replicas=3"));
    assert_eq!(enough, (200, json!({"changing": []})), "each has three");
}

//! Peers without manners at a registry's port.

use std::thread;
use std::time::Duration;

use grus_protocol::ids::{BrokerId, ShardId, Term};
use grus_protocol::message::{
    BrokerHeartbeat, LeadShards, LedShard, ListTopics, Metadata, Ping, RegisterBroker, WatchRoutes,
};
use grus_protocol::{ErrorCode, TopicName};
use grus_tests::hostile::{Peer, framed, noise};
use grus_tests::random::Random;
use grus_tests::registry::RegistryHome;
use grus_tests::strain::Strain;
use grus_tests::usage;
use grus_tests::watch::Watch;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{grus_at, leaders};

/// A deadline as these registries are told it.
const DEADLINE: Duration = Duration::from_secs(2);

fn impatient() -> RegistryHome {
    ["HELLO_TIMEOUT", "FRAME_TIMEOUT", "WRITE_TIMEOUT"]
        .iter()
        .fold(RegistryHome::new(), |home, name| {
            home.with(&format!("GRUS__CONNECTION__{name}"), "2s")
        })
}

/// It creates a topic, which takes its log.
fn serves_on(home: &RegistryHome, topic: &str) {
    assert!(Peer::greeted(home.listen).is_served(), "somebody new");
    let broker = home.broker();
    let _running = broker.start();
    grus_at(&[home.listen], &["topic", "create", topic], b"").ok();
    assert!(leaders(home.listen, topic).iter().all(Option::is_some));
}

#[test]
fn half_a_frame_and_one_that_drips_are_given_up_and_a_quiet_peer_is_not() {
    let home = impatient();
    let mut registry = home.start();
    let name = |n| TopicName::try_from(&*format!("topic-{n}")).expect("a name");
    let topics = (0..200).map(name).collect();
    let ask = framed(1, &Metadata { topics, auto_create: false }, &[]);
    let mut quiet = Peer::greeted(home.listen);
    let strain = Strain::watch();
    let stuck: Vec<_> = (0..10)
        .map(|number| {
            let (listen, ask) = (home.listen, ask.clone());
            thread::spawn(move || {
                let watch = Watch::start();
                match number % 3 {
                    0 => _ = Peer::stranger(listen).closed_after(),
                    1 => {
                        let mut peer = Peer::greeted(listen);
                        peer.send(&ask[..ask.len() / 2]);
                        peer.closed_after();
                    }
                    _ => _ = Peer::greeted(listen).drip(&ask),
                }
                watch.elapsed()
            })
        })
        .collect();
    for peer in stuck {
        let lasted = peer.join().expect("it is closed");
        let allowed = strain.allowed();
        assert!(
            lasted >= DEADLINE / 2 && lasted < DEADLINE * 8 + allowed,
            "{lasted:?}, {allowed:?}"
        );
    }
    assert!(quiet.is_served(), "nothing was begun");
    serves_on(&home, "t");
    assert!(registry.process.ended().is_none(), "{}", registry.process.log());
}

#[test]
fn noise_giant_lengths_and_what_is_not_for_a_registry_are_refused_and_it_serves_on() {
    let home = impatient();
    let mut registry = home.start();
    let mut random = Random::seeded("registry noise");
    for round in 0..200 {
        let mut peer = Peer::stranger(home.listen);
        let mut bytes = noise(&mut random, 500);
        if round % 2 == 0 {
            bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        }
        let _ = peer.try_send(&bytes); // it may be closed before all of it is sent
        peer.shut_down_writing();
        peer.rest();
    }
    let mut peer = Peer::stranger(home.listen);
    let refused = peer.call(&Ping {}).expect_err("no hello was said");
    assert_eq!(refused.code, ErrorCode::HelloRequired);
    let mut peer = Peer::greeted(home.listen);
    let stranger = BrokerHeartbeat {
        broker: BrokerId(9),
        session: 1,
        produced_bytes_per_second: 0,
        leaving: true,
        drained: false,
    };
    let refused = peer.call(&stranger).expect_err("nobody registered as that");
    assert_eq!(refused.code, ErrorCode::UnknownBroker);
    assert!(peer.is_served());
    serves_on(&home, "t");
    registry.process.next_line(Duration::ZERO);
    assert!(!registry.process.log().contains("panic"), "{}", registry.process.log());
}

#[test]
fn one_who_asks_for_all_routes_again_and_again_and_reads_none_costs_little() {
    let home = impatient();
    let registry = home.start();
    let broker = home.broker();
    let _running = broker.start();
    for number in 0..20 {
        let name = format!("{}-{number}", "long".repeat(40));
        grus_at(&[home.listen], &["topic", "create", &name, "--queues", "1000"], b"").ok();
    }
    let pid = registry.process.pid();
    let before_kib = usage::anonymous_memory_kib(pid);
    let asks = [
        framed(1, &WatchRoutes { topics: Vec::new() }, &[]),
        framed(1, &Metadata { topics: Vec::new(), auto_create: false }, &[]),
        framed(1, &ListTopics { after: None, topics_max: 0, include_system: true }, &[]),
    ]
    .concat()
    .repeat(100);
    let greedy: Vec<_> = (0..4)
        .map(|_| {
            let mut peer = Peer::greeted(home.listen);
            peer.send_until_stuck(&asks, Duration::from_millis(500));
            peer
        })
        .collect();
    let grown_kib = usage::anonymous_memory_kib(pid).saturating_sub(before_kib);
    drop(greedy);
    println!("grown by {grown_kib} KiB");
    assert!(grown_kib < 48 << 10, "{grown_kib} KiB for four who read nothing");
    assert!(Peer::greeted(home.listen).is_served(), "somebody new");
}

#[test]
fn one_connection_too_many_is_refused_by_name() {
    let home = RegistryHome::new().with("GRUS__LISTEN__CONNECTIONS_MAX", "5");
    let _registry = home.start();
    let _served: Vec<_> = (0..5).map(|_| Peer::greeted(home.listen)).collect();
    for _ in 0..20 {
        let error = Peer::stranger(home.listen).error().expect("a word before it is closed");
        assert_eq!(error.code, ErrorCode::TooManyConnections);
        assert!(error.retriable && error.retry_after_ms > 0, "{error:?}");
    }
}

#[test]
fn clients_that_watch_by_the_thousand_keep_no_broker_from_its_routes() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let home = RegistryHome::new();
    let _registry = home.start();
    let watchers: Vec<_> = (0..1_200)
        .map(|_| {
            let mut peer = Peer::greeted(home.listen);
            peer.call(&WatchRoutes { topics: Vec::new() }).expect("it is told");
            peer
        })
        .collect();
    let broker = home.broker();
    let _running = broker.start();
    grus_at(&[home.listen], &["topic", "create", "t"], b"").ok();
    grus_at(&[broker.listen], &["produce", "t"], b"there\n").ok();
    drop(watchers);
}

#[test]
fn a_live_broker_is_nobody_elses_to_be() {
    let home = RegistryHome::new();
    let _registry = home.start();
    let broker = home.broker();
    let _running = broker.start();
    let id: u64 = std::fs::read_to_string(broker.data.join("broker.id"))
        .expect("its id")
        .trim()
        .parse()
        .expect("a number");
    let claim = |disk: u64| RegisterBroker {
        broker: BrokerId(id),
        disk,
        session: 77,
        host: "elsewhere".to_owned(),
        port: 1,
        shards: Vec::new(),
        shards_wanted: 1,
        memberships: Vec::new(),
        shards_below: 0,
    };
    let mut thief = Peer::greeted(home.listen);
    let refused = thief.call(&claim(12_345)).expect_err("another disk");
    assert_eq!(refused.code, ErrorCode::BrokerIdTaken);
    // Its disk's number is in the routes: not a secret. As long as it is heard of, it is not taken over.
    let disk: u64 = std::fs::read_to_string(broker.data.join("disk.id"))
        .expect("its disk")
        .trim()
        .parse()
        .expect("a number");
    let refused = thief.call(&claim(disk)).expect_err("it is alive");
    assert_eq!(refused.code, ErrorCode::Unavailable);
    let leave = BrokerHeartbeat {
        broker: BrokerId(id),
        session: 77,
        produced_bytes_per_second: 0,
        leaving: true,
        drained: false,
    };
    let refused = thief.call(&leave).expect_err("not its session");
    assert_eq!(refused.code, ErrorCode::UnknownBroker);
    let lead = LeadShards {
        broker: BrokerId(id),
        shards: vec![LedShard {
            shard: ShardId(0),
            term: Term(u64::MAX),
            members: Vec::new(),
            members_at: 0,
        }],
    };
    let refused = thief.call(&lead).expect_err("it was not registered");
    assert_eq!(refused.code, ErrorCode::UnknownBroker);
    drop(thief);
    grus_at(&[home.listen], &["topic", "create", "t"], b"").ok();
    assert!(leaders(home.listen, "t").iter().all(|leader| *leader == Some(id)));
}

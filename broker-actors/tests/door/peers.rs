//! Brokers among themselves: who is let in, and a group of three whose members speak over real
//! sockets, through real peers, connections and doors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grus_broker::dispatch::peers::MemberDoors;
use grus_broker::member::{FromPeer, Member, MemberDoor, Tells};
use grus_broker::network::{Network, PeerDoor, PeerDoors};
use grus_broker::peer::{Lane, Peer, PeerCall, PeerFailure, PeerIs, PeerSettings};
use grus_broker::shard::{
    Membership, ShardMember, ShardPlaces, ShardRequest, ShardSettings, TopicConfig, start_member,
};
use grus_broker::topic_queue::Produce;
use grus_consensus::Timings;
use grus_log::SimDisk;
use grus_mailbox::reply::port;
use grus_mailbox::{Clock, FatalPort, HostHandle, Inbox, Place, Process};
use grus_protocol::ids::QueueKey;
use grus_protocol::message::{OpenPeer, ShardMessage};
use grus_protocol::{
    BatchLimits, BrokerId, Durability, ErrorCode, QueueId, RecordBatch, ShardId, TimestampMs,
    TopicId, TopicName,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::{Client, Door, DoorConfig, address_of, batch, standing_still};

const SHARD: ShardId = ShardId(3);
const GROUP: u64 = 77;
/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

fn open(broker: u64, to: u64) -> OpenPeer {
    let (disk, to_disk) = (broker * 10, to * 10);
    let (broker, to) = (BrokerId(broker), BrokerId(to));
    OpenPeer { broker, disk, to, to_disk, frame_bytes_max: 1 << 24 }
}

#[actix::test]
async fn only_a_broker_that_has_said_who_it_is_speaks_with_members() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let message = ShardMessage { shard: SHARD, group: GROUP };
    let code = |answer: Result<_, grus_protocol::ErrorReply>| answer.map_err(|error| error.code);
    let refused = client.call_with(&message, b"\x01\x08").await;
    assert_eq!(code(refused.map(drop)), Err(ErrorCode::Unauthorized));
    let wrong = client.call(&open(5, 8)).await;
    assert_eq!(code(wrong.map(drop)), Err(ErrorCode::WrongBroker));
    let refused = client.call_with(&message, b"\x01\x08").await;
    assert_eq!(code(refused.map(drop)), Err(ErrorCode::Unauthorized), "it was not let in");
    let opened = client.call(&open(5, 9)).await.unwrap();
    assert_eq!((opened.disk, opened.frame_bytes_max), (90, 16 << 20));
    let refused = client.call_with(&message, b"\x01\x08").await;
    assert_eq!(code(refused.map(drop)), Err(ErrorCode::Unavailable), "no such member");
}

/// A process: a door, and the member behind it.
struct Broker {
    door: Door,
    member: ShardMember<SimDisk>,
    /// By the broker they lead to.
    peers: Vec<(u64, HostHandle<Peer>)>,
    _ear: HostHandle<Member<SimDisk>>,
    /// Whether it is drained.
    drained: watch::Sender<bool>,
}

impl Broker {
    fn leads(&self) -> bool {
        let status = self.member.group.status();
        status.ready && !status.lease_left.is_zero()
    }

    fn applied(&self) -> Option<u64> {
        self.member.group.status().applied
    }
}

fn peer(place: &Place, own: u64, to: &PeerIs, lane: Lane) -> HostHandle<Peer> {
    let own_disk = own * 10;
    let settings = PeerSettings {
        own: BrokerId(own),
        own_disk,
        frame_bytes_max: 16 << 20,
        peer: to.clone(),
        lane,
    };
    Peer::start(place, settings)
}

/// Three doors, each with a member of one group behind it.
async fn three() -> BTreeMap<u64, Broker> {
    let mut doors = BTreeMap::new();
    for broker in 1..=3 {
        doors.insert(broker, Door::open(DoorConfig { broker, ..DoorConfig::default() }).await);
    }
    let at = |broker: u64, door: &Door| PeerIs {
        address: address_of(broker, door.address),
        disk: broker * 10,
    };
    let everyone: BTreeMap<u64, PeerIs> =
        doors.iter().map(|(broker, door)| (*broker, at(*broker, door))).collect();
    let mut brokers = BTreeMap::new();
    for (broker, door) in doors {
        let place = Place::here("here", &door.process);
        let mut peers = Vec::new();
        let mut ways = BTreeMap::new();
        for (other, to) in everyone.iter().filter(|(other, _)| **other != broker) {
            let lanes = [Lane::Messages, Lane::Installs].map(|lane| peer(&place, broker, to, lane));
            let [messages, installs] = lanes;
            let way = PeerDoor {
                messages: messages.inbox(Lane::Messages.bytes_max()),
                installs: installs.inbox(Lane::Installs.bytes_max()),
            };
            ways.insert(BrokerId(*other), way);
            peers.extend([(*other, messages), (*other, installs)]);
        }
        let (_, ways) = watch::channel::<PeerDoors>(Arc::new(ways));
        let network = Network::new(SHARD, GROUP, ways);
        network.open();
        let member = join(broker, &place, network).await;
        let tells =
            Tells { settled: grus_mailbox::outlet(1).0, outgrown: grus_mailbox::outlet(1).0 };
        let (drained, now) = watch::channel(false);
        let ear = Member::start(&place, SHARD, member.group.clone(), tells, now);
        let (inbox, hand_over) = (ear.inbox(1 << 20), ear.inbox(1));
        let door_of = MemberDoor { group: GROUP, inbox, hand_over };
        let doors = BTreeMap::from([(SHARD, door_of)]);
        door.members.send_replace(Arc::new(doors));
        brokers.insert(broker, Broker { door, member, peers, _ear: ear, drained });
    }
    brokers
}

async fn join(broker: u64, place: &Place, network: Network) -> ShardMember<SimDisk> {
    let places = ShardPlaces {
        core: place.clone(),
        flush: place.clone(),
        reader: place.clone(),
        finder: place.clone(),
    };
    let folder = PathBuf::from("/data/3");
    let mut settings = ShardSettings::new(SHARD, BrokerId(broker), folder, Durability::Persisted);
    settings.log.first_segment_bytes = 1 << 20;
    settings.log.segment_bytes = 1 << 20;
    let founders = (1..=3).map(|id| (id, String::new())).collect();
    let timings = Timings::default();
    let membership = Membership {
        founders,
        has_others: false,
        has_begun: false,
        others: Vec::new(),
        peers: network,
        timings,
    };
    start_member(SimDisk::new(broker), &places, settings, membership).await.unwrap()
}

/// Waits until it is so, looking again whenever others had their turn.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

async fn leader(brokers: &BTreeMap<u64, Broker>) -> u64 {
    let leads = || brokers.iter().find(|(_, broker)| broker.leads()).map(|(id, _)| *id);
    until("somebody leads", || leads().is_some()).await;
    leads().unwrap_or(1)
}

fn topic() -> TopicConfig {
    TopicConfig::plain(TopicId(5), TopicName::try_from("t").unwrap(), vec![QueueId(0)])
}

/// Sends a message where somebody leads, until it is acknowledged.
async fn send(brokers: &BTreeMap<u64, Broker>, body: &[u8]) -> u64 {
    loop {
        let handle = brokers[&leader(brokers).await].member.shard.handle().clone();
        let (reply, opened) = port();
        let open = ShardRequest::OpenTopic { config: topic(), reply };
        let _ = handle.inbox.try_put(open);
        let Ok(Ok(opened)) = opened.await else { continue };
        let (reply, receipt) = port();
        let bytes = batch(&[body]);
        let batch = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
        let _ =
            opened.queues[0].produce.try_put(Produce { batch, dedup_key: None, due: None, reply });
        if let Ok(Ok(receipt)) = receipt.await {
            return receipt.base_offset.0;
        }
    }
}

#[actix::test]
async fn three_members_agree_over_real_sockets_and_go_on_when_connections_are_cut() {
    let brokers = three().await;
    // Sent anew after an answer that was not known, a message may lie there twice: none has a producer.
    let mut next = 0;
    for number in 0..50_u64 {
        // Many entries of many sizes, up to some that fill a frame of their own.
        let size = if number % 10 == 9 { 300_000 } else { 100 };
        let offset = send(&brokers, &vec![u8::try_from(number).unwrap(); size]).await;
        assert!(offset >= next, "{offset} was given away before");
        next = offset + 1;
    }
    // Every connection that leads to one follower is cut: each peer is told anew where it is.
    let follower = if leader(&brokers).await == 1 { 2 } else { 1 };
    let address = address_of(follower, brokers[&follower].door.address);
    let told = PeerIs { address, disk: 0 };
    for (to, peer) in brokers.values().flat_map(|broker| &broker.peers) {
        if *to == follower {
            let is_at: Inbox<PeerIs> = peer.inbox(1);
            assert!(is_at.try_put(told.clone()).is_ok());
        }
    }
    for _ in 50..80 {
        let offset = send(&brokers, b"after the cut").await;
        assert!(offset >= next, "{offset} was given away before");
        next = offset + 1;
    }
    let goal = brokers[&leader(&brokers).await].applied();
    until("all have applied the same", || brokers.values().all(|broker| broker.applied() >= goal))
        .await;
    let queue = QueueKey { topic: TopicId(5), queue: QueueId(0) };
    let ends: Vec<_> = brokers
        .values()
        .map(|broker| {
            let machine = broker.member.ground.machine.borrow();
            machine.state.queue(queue).map(|numbers| numbers.next_offset.0)
        })
        .collect();
    assert!(ends[0] >= Some(next) && ends.iter().all(|end| *end == ends[0]), "{next} {ends:?}");
}

#[actix::test]
async fn a_member_gives_way_while_its_broker_is_drained_and_leads_again_once_that_is_undone() {
    let brokers = three().await;
    let drained = leader(&brokers).await;
    let drain = |broker: &Broker, is_drained| {
        broker.drained.send_replace(is_drained);
    };
    drain(&brokers[&drained], true);
    let others = || brokers.iter().filter(|(id, _)| **id != drained).map(|(_, broker)| broker);
    until("another one leads", || others().any(Broker::leads)).await;
    // Whoever leads while all are drained looks for somebody who is not.
    others().for_each(|broker| drain(broker, true));
    drain(&brokers[&drained], false);
    until("it leads, as nobody else may", || brokers[&drained].leads()).await;
    send(&brokers, b"as before").await;
}

fn alone() -> (Process, Place) {
    let process = Process::new(Clock::system(), FatalPort::channel().0);
    let place = Place::here("here", &process);
    (process, place)
}

fn call(message: Vec<u8>) -> (PeerCall, grus_mailbox::Answer<Result<Bytes, PeerFailure>>) {
    let (reply, answer) = port();
    let message = vec![Bytes::from(message)];
    (PeerCall { shard: SHARD, group: GROUP, message, reply }, answer)
}

#[actix::test]
async fn a_peer_that_is_not_there_is_told_at_once_and_found_once_it_is() {
    let (_process, place) = alone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let at = PeerIs { address: address_of(9, address), disk: 90 };
    let peer = peer(&place, 1, &at, Lane::Messages);
    let calls = peer.inbox::<PeerCall>(1 << 20);
    let (ask, answer) = call(vec![1, 8]);
    assert!(calls.try_put(ask).is_ok());
    assert!(matches!(answer.await, Ok(Err(PeerFailure::Away { .. }))));
    // It comes up elsewhere; another broker is at that place first.
    let other = Door::open(DoorConfig { broker: 8, ..DoorConfig::default() }).await;
    let moved: Inbox<PeerIs> = peer.inbox(1);
    let is_at = |door: &Door| PeerIs { address: address_of(9, door.address), disk: 90 };
    assert!(moved.try_put(is_at(&other)).is_ok());
    let said = refusal(&calls, |reason| reason.contains("is there")).await;
    assert!(said.contains("broker 8 is there"), "{said}");
    let door = Door::open(DoorConfig::default()).await;
    assert!(moved.put(is_at(&door)).await.is_ok());
    let said = refusal(&calls, |reason| reason.contains("no member")).await;
    assert!(said.contains("shard 3 has no member here now"), "{said}");
}

/// Asks until the reason for which there is no answer is such a one.
async fn refusal(calls: &Inbox<PeerCall>, wanted: impl Fn(&str) -> bool) -> String {
    let asking = async {
        loop {
            let (ask, answer) = call(vec![1, 8]);
            assert!(calls.try_put(ask).is_ok());
            let reason = answer.await.unwrap().unwrap_err().to_string();
            if wanted(&reason) {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("such a refusal")
}

/// A member of a shard that answers whatever it hears, or hears and never answers.
fn ear(shard: ShardId, is_mute: bool) -> (ShardId, MemberDoor) {
    let (inbox, mut heard) = grus_mailbox::outlet(1 << 30);
    tokio::task::spawn_local(async move {
        let mut never_answered = Vec::new();
        while let Some((FromPeer { message, reply }, _credit)) = heard.take().await {
            if is_mute { never_answered.push(reply) } else { reply.send(message) }
        }
    });
    (shard, MemberDoor { group: GROUP, inbox, hand_over: grus_mailbox::outlet(1).0 })
}

#[actix::test]
async fn a_member_that_is_mute_costs_the_other_shards_of_its_broker_nothing() {
    const OTHER: ShardId = ShardId(4);
    tokio::time::pause();
    let simulated = Clock::simulated(TimestampMs(0));
    let door = Door::open(DoorConfig { clock: simulated, ..DoorConfig::default() }).await;
    let doors = BTreeMap::from([ear(SHARD, true), ear(OTHER, false)]);
    door.members.send_replace(MemberDoors::from(doors));
    let process = Process::new(simulated, FatalPort::channel().0);
    let place = Place::here("here", &process);
    let at = PeerIs { address: address_of(9, door.address), disk: 90 };
    let peer = peer(&place, 1, &at, Lane::Messages);
    let calls = peer.inbox::<PeerCall>(Lane::Messages.bytes_max());
    let ask = |shard| {
        let (reply, answer) = port();
        let message = vec![Bytes::from_static(b"hello")];
        assert!(calls.try_put(PeerCall { shard, group: GROUP, message, reply }).is_ok());
        answer
    };
    // Its callers give up, as consensus does; one does not. The other shard speaks all the time.
    let mut patient = ask(SHARD);
    for step in 0..90 {
        let given_up = ask(SHARD);
        let answered = standing_still(ask(OTHER)).await;
        assert_eq!(answered, Ok(Ok(Bytes::from_static(b"hello"))), "step {step}");
        drop(given_up);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let told = patient.try_take();
    assert!(matches!(told, Ok(Some(Err(PeerFailure::Away { .. })))), "its time was over: {told:?}");
    until("who has given up takes no room", || calls.free() == Lane::Messages.bytes_max()).await;
}

#[actix::test]
async fn what_waits_for_a_peer_that_reads_nothing_is_bounded_and_given_up() {
    let (_process, place) = alone();
    let door = Door::open(DoorConfig::default()).await;
    // It is asked on two connections: one of the test that stays unread would not do, so the member
    // behind the door takes messages and never answers.
    let (inbox, _never_emptied) = grus_mailbox::outlet(1 << 30);
    let hand_over = grus_mailbox::outlet(1).0;
    let doors = BTreeMap::from([(SHARD, MemberDoor { group: GROUP, inbox, hand_over })]);
    door.members.send_replace(MemberDoors::from(doors));
    let at = PeerIs { address: address_of(9, door.address), disk: 90 };
    let peer = peer(&place, 1, &at, Lane::Messages);
    let calls = peer.inbox::<PeerCall>(Lane::Messages.bytes_max());
    let mut answers = Vec::new();
    loop {
        let (ask, answer) = call(vec![1; 1 << 20]);
        if calls.try_put(ask).is_err() {
            break; // full: nothing more is taken
        }
        answers.push(answer);
    }
    assert_eq!(answers.len(), 32, "32 MiB wait, and no more");
    // After a while it is left, all are told, and there is room again.
    for answer in answers {
        let told = tokio::time::timeout(PATIENCE, answer).await.expect("an end");
        assert!(matches!(told, Ok(Err(PeerFailure::Away { .. }))));
    }
    until("there is room again", || calls.free() == Lane::Messages.bytes_max()).await;
    let mut client = Client::greeted(door.address).await;
    assert!(client.call(&open(1, 9)).await.is_ok(), "the door serves on");
}

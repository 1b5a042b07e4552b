//! Members of consumer groups over real sockets: who has which queue, through joins, leaves, deaths
//! and restarts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/client.rs"]
mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use client::{Client, batch};
use grus_broker::Broker;
use grus_broker::config::BrokerConfig;
use grus_mailbox::{Clock, FatalPort, Process};
use grus_protocol::ids::{Durability, Generation, GroupId, MemberId, QueueId, QueueKey, TopicId};
use grus_protocol::message::{
    AlterTopic, CreateTopic, DeleteGroup, DeleteTopic, DescribeGroup, DescribeTopic,
    GroupHeartbeat, GroupOptions, GroupSubscription, JoinGroup, JoinGroupReply, LeaveGroup,
    ListGroups, ListTopics, MessageFilter, Produce, TopicKind, TopicSettings,
};
use grus_protocol::names::GroupName;
use grus_protocol::{ErrorCode, ErrorReply, TopicName};

/// What a test waits for at most: far longer than it takes, and shorter than a session.
const PATIENCE: Duration = Duration::from_mins(2);
/// Sessions last so long, in milliseconds, that none ends because the machine is busy with other tests.
const SESSION_MS: u32 = 600_000;

async fn start(folder: &Path) -> Broker {
    let config = BrokerConfig {
        data: folder.join("data"),
        listen_address: "127.0.0.1:0".into(),
        http_address: "127.0.0.1:0".into(),
        core_arbiters: 2,
        shutdown_timeout: PATIENCE,
        ..BrokerConfig::default()
    };
    let process = Process::new(Clock::system(), FatalPort::new(|fatal| panic!("{fatal}")));
    Broker::start(config, process).await.unwrap()
}

/// How long something takes.
struct Stopwatch(Clock);

impl Stopwatch {
    fn begun() -> Self {
        Self(Clock::system()) // counts from here
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.monotonic_ms())
    }
}

fn group() -> GroupName {
    GroupName::try_from("billing").unwrap()
}

async fn create(client: &mut Client, name: &str, queues: u32, durability: Durability) -> TopicId {
    let settings = TopicSettings { queues, durability, ..TopicSettings::default() };
    let name = TopicName::try_from(name).unwrap();
    let ask = CreateTopic { name, settings, if_not_exists: false };
    client.call(&ask).await.unwrap().id
}

/// A member that follows what it is told.
struct Member {
    client: Client,
    group_id: GroupId,
    id: MemberId,
    known: Generation,
    has: BTreeMap<QueueKey, Generation>,
    holding: BTreeSet<QueueKey>,
}

fn joining(session: u64, topics: &[&str]) -> JoinGroup {
    let subscription = |text: &&str| GroupSubscription {
        topics: text.parse().unwrap(),
        filter: MessageFilter::All,
    };
    JoinGroup {
        group: group(),
        session,
        client_id: format!("member-{session}"),
        subscriptions: topics.iter().map(subscription).collect(),
        options: GroupOptions { session_ms: Some(SESSION_MS), ..GroupOptions::default() },
        instance: None,
        lane: None,
    }
}

/// Joins; a coordinator that begins just now is asked again.
async fn joined(client: &mut Client, ask: &JoinGroup) -> Result<JoinGroupReply, ErrorReply> {
    let begun = Stopwatch::begun();
    loop {
        match client.call(ask).await {
            Err(error) if error.retriable && begun.elapsed() < PATIENCE => {}
            answer => return answer,
        }
    }
}

impl Member {
    async fn join(broker: &Broker, session: u64, topics: &[&str]) -> Self {
        let mut client = Client::greeted(broker.addresses().listen).await;
        let reply = joined(&mut client, &joining(session, topics)).await.unwrap();
        assert_eq!((reply.session_ms, reply.heartbeat_ms), (SESSION_MS, SESSION_MS * 3 / 10));
        Self {
            client,
            group_id: reply.group_id,
            id: reply.member,
            known: Generation::NONE,
            has: BTreeMap::new(),
            holding: BTreeSet::new(),
        }
    }

    fn heartbeat(&self, wait_ms: u32) -> GroupHeartbeat {
        GroupHeartbeat {
            group: group(),
            group_id: self.group_id,
            member: self.id,
            known: self.known,
            holding: self.holding.iter().map(|queue| (*queue).into()).collect(),
            wait_ms,
        }
    }

    async fn beat(&mut self, wait_ms: u32) -> Result<(), ErrorReply> {
        let told = self.client.call(&self.heartbeat(wait_ms)).await?;
        self.known = told.generation;
        if let Some(assigned) = told.assigned {
            let key = |topic, queue| QueueKey { topic, queue };
            let now: BTreeMap<_, _> = assigned
                .into_iter()
                .map(|one| (key(one.topic_id, one.queue), one.generation))
                .collect();
            self.holding.extend(std::mem::take(&mut self.has).into_keys());
            self.holding.retain(|queue| !now.contains_key(queue));
            self.has = now;
        }
        Ok(())
    }

    fn queues(&self) -> BTreeSet<QueueKey> {
        self.has.keys().copied().collect()
    }

    async fn leave(mut self) {
        let leave = LeaveGroup { group: group(), group_id: self.group_id, member: self.id };
        self.client.call(&leave).await.unwrap();
    }
}

/// All members follow what they are told, and let go at once, until `is_so`.
async fn until(members: &mut [&mut Member], is_so: impl Fn(&[&mut Member]) -> bool) {
    let begun = Stopwatch::begun();
    while !is_so(members) {
        let seen: Vec<_> = members.iter().map(|member| member.queues()).collect();
        assert!(begun.elapsed() < PATIENCE, "this is how it stays: {seen:?}");
        for member in members.iter_mut() {
            member.beat(20).await.unwrap();
            member.holding.clear();
        }
        check_disjoint(members);
    }
}

fn check_disjoint(members: &[&mut Member]) {
    let mut all = BTreeSet::new();
    for queue in members.iter().flat_map(|member| member.has.keys().chain(&member.holding)) {
        assert!(all.insert(*queue), "{queue} has two owners");
    }
}

fn shares(wanted: &[usize]) -> impl Fn(&[&mut Member]) -> bool {
    let wanted = wanted.to_vec();
    move |members| members.iter().map(|member| member.has.len()).eq(wanted.iter().copied())
}

/// A topic of four queues, and two members that have two of them each.
async fn two_members(broker: &Broker) -> (Member, Member) {
    let mut tool = Client::greeted(broker.addresses().listen).await;
    create(&mut tool, "orders", 4, Durability::Persisted).await;
    let mut first = Member::join(broker, 1, &["orders"]).await;
    let mut second = Member::join(broker, 2, &["orders"]).await;
    until(&mut [&mut first, &mut second], shares(&[2, 2])).await;
    (first, second)
}

#[actix::test]
async fn queues_are_shared_by_those_that_join_and_come_back_from_those_that_leave() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut tool = Client::greeted(broker.addresses().listen).await;
    let topic = create(&mut tool, "orders", 6, Durability::Persisted).await;
    let mut first = Member::join(&broker, 1, &["orders"]).await;
    until(&mut [&mut first], shares(&[6])).await;
    assert!(first.has.keys().all(|queue| queue.topic == topic));

    let mut second = Member::join(&broker, 2, &["orders"]).await;
    // The first is told at once, however long it would wait; it holds its queues until it says so.
    first.beat(10_000).await.unwrap();
    assert_eq!((first.has.len(), first.holding.len()), (3, 3));
    second.beat(100).await.unwrap();
    first.beat(100).await.unwrap();
    second.beat(100).await.unwrap();
    assert_eq!(second.has.len(), 0, "the first holds them");
    first.holding.clear();
    until(&mut [&mut first, &mut second], shares(&[3, 3])).await;
    let generations: BTreeSet<_> = first.has.values().chain(second.has.values()).collect();
    assert!(generations.len() > 1, "the second one's are newer");

    let described = tool.call(&DescribeGroup { group: group() }).await.unwrap();
    assert_eq!((described.members.len(), described.queues.len()), (2, 6));
    for queue in &described.queues {
        let key = QueueKey { topic: queue.topic_id, queue: queue.queue };
        let owner = if first.has.contains_key(&key) { first.id } else { second.id };
        assert_eq!((queue.member, queue.next), (Some(owner), None));
    }
    assert_eq!(described.members[0].client_id, "member-1");
    assert!(described.members[0].address.starts_with("127.0.0.1:"));
    let listed = tool.call(&ListGroups { after: None, groups_max: 0 }).await.unwrap();
    let listed = &listed.groups[0];
    assert_eq!((&listed.group, listed.members, listed.queues), (&group(), 2, 6));
    assert_eq!(listed.group_id, first.group_id);

    second.leave().await;
    until(&mut [&mut first], shares(&[6])).await;

    // Who says more while a heartbeat of its own waits has that one answered.
    let beat = first.heartbeat(60_000);
    for correlation in [101, 102] {
        first.client.ask(correlation, &beat).await;
    }
    let head = first.client.frame().await.unwrap().head;
    assert_eq!((head.correlation, head.is_error()), (101, false));
    broker.stop().await;
}

#[actix::test]
async fn a_member_whose_connection_is_cut_is_replaced_long_before_its_session_ends() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let (mut first, second) = two_members(&broker).await;
    let id = second.id;
    drop(second);
    until(&mut [&mut first], shares(&[4])).await;
    // Its process comes back and goes on as if nothing were: it is told.
    let mut late = Client::greeted(broker.addresses().listen).await;
    let beat = GroupHeartbeat { member: id, ..first.heartbeat(0) };
    assert_eq!(late.call(&beat).await.unwrap_err().code, ErrorCode::UnknownMember);

    // One that comes back in time over another connection keeps what it has.
    let mut third = Member::join(&broker, 3, &["orders"]).await;
    until(&mut [&mut first, &mut third], shares(&[2, 2])).await;
    let had = third.queues();
    // It is heard of over the new one before the old one is closed: how long it may take otherwise is
    // for the coordinator's logic to be tested for, whose time is told.
    let another = Client::greeted(broker.addresses().listen).await;
    let old = std::mem::replace(&mut third.client, another);
    third.beat(0).await.unwrap();
    drop(old);
    let back = Stopwatch::begun();
    while back.elapsed() < Duration::from_millis(2_500) {
        third.beat(100).await.unwrap();
        first.beat(100).await.unwrap();
    }
    assert_eq!(third.queues(), had);
    broker.stop().await;
}

#[actix::test]
async fn more_queues_and_topics_that_fit_a_pattern_are_taken_and_deleted_ones_are_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut tool = Client::greeted(broker.addresses().listen).await;
    create(&mut tool, "orders.eu", 2, Durability::Persisted).await;
    let mut first = Member::join(&broker, 1, &["orders.*"]).await;
    let mut second = Member::join(&broker, 2, &["orders.*", "bills"]).await;
    until(&mut [&mut first, &mut second], shares(&[1, 1])).await;
    // Of another durability: on another shard, where the group needs a dead-letter queue first.
    create(&mut tool, "orders.us", 4, Durability::Replicated).await;
    until(&mut [&mut first, &mut second], shares(&[3, 3])).await;
    let name = TopicName::try_from("orders.eu").unwrap();
    let grow = AlterTopic {
        name: name.clone(),
        topic_id: TopicId::UNKNOWN,
        queues: Some(4),
        retention_ms: None,
        retention_bytes: None,
        dedup_window_ms: None,
        expired: None,
        retention_messages: None,
        when_full: None,
    };
    tool.call(&grow).await.unwrap();
    until(&mut [&mut first, &mut second], shares(&[4, 4])).await;
    // Only the second one subscribes to this.
    let bills = create(&mut tool, "bills", 2, Durability::Persisted).await;
    until(&mut [&mut first, &mut second], shares(&[5, 5])).await;
    assert!(first.has.keys().all(|queue| queue.topic != bills));
    tool.call(&DeleteTopic { name, topic_id: TopicId::UNKNOWN }).await.unwrap();
    until(&mut [&mut first, &mut second], shares(&[3, 3])).await;

    // A member says again what it wants: something else.
    let changed = joining(2, &["bills"]);
    assert_eq!(joined(&mut second.client, &changed).await.unwrap().member, second.id);
    until(&mut [&mut first, &mut second], shares(&[4, 2])).await;
    let dead_letters = DescribeTopic { name: group().dead_letters() };
    let described = tool.call(&dead_letters).await.unwrap();
    let shards: BTreeSet<_> = described.queues.iter().map(|queue| queue.shard).collect();
    assert_eq!(described.settings.kind, TopicKind::DeadLetter);
    assert!(shards.len() == described.queues.len() && shards.len() >= 2, "one on each shard");
    assert_eq!(described.id.0, first.group_id.0);
    broker.stop().await;
}

#[actix::test]
async fn a_group_outlives_its_broker() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let (mut first, mut second) = two_members(&broker).await;
    let before = (first.has.clone(), second.has.clone());
    let generation = first.known.max(second.known);
    broker.stop().await;

    let broker = start(folder.path()).await;
    for member in [&mut first, &mut second] {
        member.client = Client::greeted(broker.addresses().listen).await;
        let begun = Stopwatch::begun();
        while let Err(error) = member.beat(1_000).await {
            assert!(error.retriable && begun.elapsed() < PATIENCE, "{error}");
        }
    }
    assert_eq!((first.has.clone(), second.has.clone()), before, "they keep what they have");
    assert!(first.holding.is_empty() && second.holding.is_empty());
    let mut third = Member::join(&broker, 3, &["orders"]).await;
    until(&mut [&mut first, &mut second, &mut third], shares(&[2, 1, 1])).await;
    let new = third.has.values().min().unwrap();
    assert!(*new > generation && third.id > second.id, "generations and members go on");
    broker.stop().await;
}

#[actix::test]
async fn dead_letters_belong_to_their_group() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut tool = Client::greeted(broker.addresses().listen).await;
    create(&mut tool, "orders", 1, Durability::Persisted).await;
    let unknown = tool.call(&DescribeGroup { group: group() }).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::UnknownGroup);
    let mut first = Member::join(&broker, 1, &["orders"]).await;
    until(&mut [&mut first], shares(&[1])).await;
    let name = group().dead_letters();
    let kept = DeleteTopic { name: name.clone(), topic_id: TopicId::UNKNOWN };
    assert_eq!(tool.call(&kept).await.unwrap_err().code, ErrorCode::InvalidRequest);
    let alter = AlterTopic {
        name: name.clone(),
        topic_id: TopicId::UNKNOWN,
        queues: Some(9),
        retention_ms: None,
        retention_bytes: None,
        dedup_window_ms: None,
        expired: None,
        retention_messages: None,
        when_full: None,
    };
    assert_eq!(tool.call(&alter).await.unwrap_err().code, ErrorCode::InvalidRequest);
    let (topic_id, queue) = (TopicId::UNKNOWN, QueueId(0));
    let produce = Produce { topic: name.clone(), topic_id, queue, timeout_ms: 0 };
    let refused = tool.call_with(&produce, &batch(&[b"x"])).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RecordNotAllowed);
    let settings = TopicSettings { kind: TopicKind::DeadLetter, ..TopicSettings::default() };
    let user = TopicName::try_from("mine").unwrap();
    let create = CreateTopic { name: user, settings, if_not_exists: false };
    assert_eq!(tool.call(&create).await.unwrap_err().code, ErrorCode::InvalidSettings);

    let delete = DeleteGroup { group: group(), group_id: GroupId::UNKNOWN };
    assert_eq!(tool.call(&delete).await.unwrap_err().code, ErrorCode::GroupNotEmpty);
    let old = first.group_id;
    first.leave().await;
    assert_eq!(tool.call(&delete).await.unwrap().group_id, old);
    assert_eq!(tool.call(&delete).await.unwrap_err().code, ErrorCode::UnknownGroup);
    let all = ListTopics { after: None, topics_max: 0, include_system: true };
    let left = tool.call(&all).await.unwrap();
    assert!(left.topics.iter().all(|topic| topic.name != name));
    // A group of that name is another one.
    let mut again = Member::join(&broker, 2, &["orders"]).await;
    assert_ne!(again.group_id, old);
    until(&mut [&mut again], shares(&[1])).await;
    let stale = GroupHeartbeat { group_id: old, ..again.heartbeat(0) };
    assert_eq!(tool.call(&stale).await.unwrap_err().code, ErrorCode::UnknownGroup);
    broker.stop().await;
}

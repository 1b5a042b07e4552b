//! Consumer groups over real sockets, on a broker that is killed: two generations, fencing, and what
//! is settled, delivered again and counted on the other side.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/client.rs"]
mod client;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use client::{Client, batch};
use grus_protocol::frame::FrameKind;
use grus_protocol::ids::{Offset, QueueId, SubscriptionId, TopicId};
use grus_protocol::message::{
    AckMessages, AssignedQueue, ClaimQueue, ClaimQueueReply, DeadMark, GroupDeliver,
    GroupHeartbeat, GroupOptions, GroupProgress, GroupSubscription, JoinGroup, JoinGroupReply,
    ListDeadLetters, MessageFilter, Nack, OffsetRange, Produce, RedriveDeadLetters, ResetGroup,
    SubscribeAt, SubscribeGroup,
};
use grus_protocol::names::GroupName;
use grus_protocol::{BatchLimits, ErrorCode, ErrorReply, Opcode, RecordBatch, TopicName};

/// A broker as a process.
struct Process {
    child: Child,
    address: SocketAddr,
    _lines: BufReader<ChildStderr>,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_grus-broker"))
            .args(["--listen", "127.0.0.1:0", "--http", "off", "--data"])
            .arg(folder.join("data"))
            .env("GRUS__BROKER__CORE_ARBITERS", "1")
            .env("GRUS__LOG__FIRST_SEGMENT_BYTES", "1MiB")
            .env("GRUS__LOG__SEGMENT_BYTES", "1MiB")
            .env("GRUS__TOPIC__QUEUES", "1")
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" ready ") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it was ready");
        }
        let start = line.find("listen=").unwrap() + "listen=".len();
        let address = line[start..].split_whitespace().next().unwrap().parse().unwrap();
        Self { child, address, _lines: lines }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn group() -> GroupName {
    GroupName::try_from("billing").unwrap()
}

fn topic() -> TopicName {
    TopicName::try_from("orders").unwrap()
}

/// A member of the group with its one queue.
struct Member {
    asks: Client,
    pushes: Client,
    joined: JoinGroupReply,
    queue: AssignedQueue,
    claim: ClaimQueueReply,
}

impl Member {
    async fn join(address: SocketAddr, session: u64) -> Self {
        let (mut asks, pushes) = (Client::greeted(address).await, Client::greeted(address).await);
        let join = JoinGroup {
            group: group(),
            session,
            client_id: format!("member-{session}"),
            subscriptions: vec![GroupSubscription {
                topics: "orders".parse().unwrap(),
                filter: MessageFilter::All,
            }],
            options: GroupOptions {
                session_ms: Some(1_000),
                ladder_ms: Some(vec![1, 1]),
                max_deliveries: Some(4),
                ..GroupOptions::default()
            },
            instance: None,
            lane: None,
        };
        // On a machine that is busy with other tests its session, of a second, may end meanwhile.
        let (joined, queue) = loop {
            let joined = match asks.call(&join).await {
                Ok(joined) => joined,
                Err(error) => {
                    assert!(error.code.is_retriable(), "{error:?}");
                    continue;
                }
            };
            match Self::assigned(&mut asks, &joined).await {
                Ok(queue) => break (joined, queue),
                Err(error) => assert_eq!(error.code, ErrorCode::UnknownMember, "{error:?}"),
            }
        };
        let claim = loop {
            match Self::claimed(&mut asks, &joined, &queue).await {
                Ok(claim) => break claim,
                Err(error) => assert!(error.code.is_retriable(), "{error:?}"),
            }
        };
        Self { asks, pushes, joined, queue, claim }
    }

    /// Heartbeats until the queue is its own.
    async fn assigned(
        asks: &mut Client,
        joined: &JoinGroupReply,
    ) -> Result<AssignedQueue, ErrorReply> {
        let mut known = grus_protocol::ids::Generation::NONE;
        loop {
            let heartbeat = GroupHeartbeat {
                group: group(),
                group_id: joined.group_id,
                member: joined.member,
                known,
                holding: Vec::new(),
                wait_ms: 200,
            };
            let told = asks.call(&heartbeat).await?;
            known = told.generation;
            if let Some(queue) = told.assigned.into_iter().flatten().next() {
                return Ok(queue);
            }
        }
    }

    async fn claimed(
        asks: &mut Client,
        joined: &JoinGroupReply,
        queue: &AssignedQueue,
    ) -> Result<ClaimQueueReply, ErrorReply> {
        asks.call(&ClaimQueue {
            group: group(),
            group_id: joined.group_id,
            topic: queue.topic.clone(),
            topic_id: queue.topic_id,
            queue: queue.queue,
            member: joined.member,
            generation: queue.generation,
            settings: joined.settings.clone(),
        })
        .await
    }

    async fn subscribe(&mut self) -> Result<Offset, ErrorReply> {
        let subscribe = SubscribeGroup {
            subscription: SubscriptionId(3),
            topic: self.queue.topic.clone(),
            topic_id: self.queue.topic_id,
            queue: self.queue.queue,
            group_id: self.joined.group_id,
            member: self.joined.member,
            generation: self.queue.generation,
            round: self.claim.round,
            filter: MessageFilter::All,
            credit_messages: 1_000,
            credit_bytes: 1 << 20,
        };
        self.pushes.call(&subscribe).await.map(|reply| reply.offset)
    }

    fn answer(&self, acks: &[(u64, u64)], nacks: &[u64], dead: &[u64]) -> AckMessages {
        let range = |(from, to): &(u64, u64)| OffsetRange { from: Offset(*from), to: Offset(*to) };
        let nack = |offset: &u64| Nack {
            offset: Offset(*offset),
            retry_after_ms: None,
            reason: "no luck".into(),
        };
        let dead_mark = |offset: &u64| DeadMark { offset: Offset(*offset), reason: "bad".into() };
        AckMessages {
            topic: self.queue.topic.clone(),
            topic_id: self.queue.topic_id,
            queue: self.queue.queue,
            group_id: self.joined.group_id,
            member: self.joined.member,
            generation: self.queue.generation,
            round: self.claim.round,
            acks: acks.iter().map(range).collect(),
            nacks: nacks.iter().map(nack).collect(),
            dead: dead.iter().map(dead_mark).collect(),
            unseen_from: None,
            in_work: Vec::new(),
        }
    }

    /// The next push: offsets that are for the member, with how often each was delivered before.
    async fn push(&mut self) -> Result<BTreeMap<u64, u32>, ErrorReply> {
        let frame = self.pushes.frame().await.expect("a push");
        assert_eq!((frame.head.kind, frame.head.opcode), (FrameKind::Push, Opcode::GroupDeliver));
        if frame.head.is_error() {
            return Err(frame.header().unwrap());
        }
        let deliver: GroupDeliver = frame.header().unwrap();
        let mut body = frame.body.clone();
        let mut all = BTreeMap::new();
        for head in &deliver.batches {
            let bytes = body.split_to(head.length as usize);
            let batch = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
            for at in (head.base_offset.0..).take(batch.count() as usize) {
                let holds = |from: Offset, to: Offset| (from.0..to.0).contains(&at);
                if deliver.skipped.iter().any(|range| holds(range.from, range.to)) {
                    continue;
                }
                let before = deliver.redelivered.iter().find(|one| holds(one.from, one.to));
                all.insert(at, before.map_or(0, |one| one.deliveries));
            }
        }
        assert!(!all.is_empty(), "a push holds something");
        Ok(all)
    }

    async fn next(&mut self, count: usize) -> BTreeMap<u64, u32> {
        let mut all = BTreeMap::new();
        while all.len() < count {
            all.extend(self.push().await.unwrap());
        }
        all
    }
}

async fn send(client: &mut Client, count: u8) {
    for number in 0..count {
        let produce = Produce {
            topic: topic(),
            topic_id: TopicId::UNKNOWN,
            queue: QueueId(0),
            timeout_ms: 0,
        };
        client.call_with(&produce, &batch(&[&[number]])).await.unwrap();
    }
}

#[actix::test]
async fn two_generations_across_a_broker_that_is_killed_with_an_answer_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Process::start(folder.path());
    send(&mut Client::greeted(broker.address).await, 6).await;
    let mut first = Member::join(broker.address, 1).await;
    assert_eq!(first.subscribe().await.unwrap(), Offset(0));
    assert_eq!(first.next(6).await, (0..6).map(|at| (at, 0)).collect());
    let settled = first.asks.call(&first.answer(&[(0, 2)], &[2], &[])).await.unwrap();
    assert_eq!((settled.floor, settled.retries), (Offset(3), 1));
    assert_eq!(first.next(1).await, BTreeMap::from([(2, 1)]), "again, from its own place");
    // Killed between the answer and what is said to it: it may be in the log, or not.
    let answer = first.answer(&[(3, 5)], &[], &[]);
    first.asks.ask(9, &answer).await;
    broker.kill();

    let broker = Process::start(folder.path());
    let mut second = Member::join(broker.address, 2).await;
    assert!(second.queue.generation > first.queue.generation, "generations never go back");
    let floor = second.subscribe().await.unwrap();
    let was_taken = match floor {
        Offset(3) => false,
        Offset(5) => true,
        other => panic!("{other} is neither before nor behind the answer"),
    };
    let open: &[u64] = if was_taken { &[2, 5] } else { &[2, 3, 4, 5] };
    let again = second.next(open.len()).await;
    assert_eq!(again.keys().copied().collect::<Vec<_>>(), open, "nothing lost, nothing settled");
    assert!(again[&2] >= 1, "counts are kept: {again:?}");

    // The first one comes back from the dead: it settles nothing.
    let mut late = Client::greeted(broker.address).await;
    let refused = late.call(&answer).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Fenced);

    let done = second.answer(&[(2, 5)], &[], &[5]);
    assert_eq!(second.asks.call(&done).await.unwrap().floor, Offset(6));
    let progress = GroupProgress {
        group: group(),
        group_id: second.joined.group_id,
        after: None,
        queues_max: 0,
    };
    let progress = second.asks.call(&progress).await.unwrap();
    assert_eq!(progress.queues.len(), 1);
    let queue = &progress.queues[0];
    assert_eq!((queue.lag, queue.dead, queue.retries), (0, 1, 0));

    // Its dead letter goes back, once, and is delivered like any other.
    let list = ListDeadLetters {
        group: group(),
        group_id: second.joined.group_id,
        after: None,
        messages_max: 0,
        with_bodies: true,
    };
    let (listed, body) = second.asks.call_for_body(&list).await.unwrap();
    let [letter] = &listed.letters[..] else { panic!("{listed:?}") };
    assert_eq!((letter.origin_offset, &*letter.reason), (Offset(5), "bad"));
    let body = RecordBatch::check(body, &BatchLimits::FORMAT).unwrap();
    assert_eq!(body.records().next().unwrap().unwrap().body(), [5]);
    let redrive = RedriveDeadLetters {
        group: group(),
        group_id: second.joined.group_id,
        queue: letter.queue,
        offsets: Vec::new(),
        messages_max: 0,
    };
    for redriven in [1, 0] {
        assert_eq!(second.asks.call(&redrive).await.unwrap().redriven, redriven);
    }
    assert_eq!(second.next(1).await, BTreeMap::from([(6, 0)]));
    assert!(second.asks.call(&list).await.unwrap().letters.is_empty());

    // A reset while it runs: all again, and answers of before are refused.
    let reset = ResetGroup {
        group: group(),
        group_id: second.joined.group_id,
        topic: topic(),
        topic_id: TopicId::UNKNOWN,
        queue: QueueId(0),
        at: SubscribeAt::First,
    };
    assert_eq!(second.asks.call(&reset).await.unwrap().floor, Offset(0));
    assert_eq!(second.push().await.unwrap_err().code, ErrorCode::ProgressReset);
    let refused = second.asks.call(&done).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ProgressReset);
    second.claim = Member::claimed(&mut second.asks, &second.joined, &second.queue).await.unwrap();
    second.subscribe().await.unwrap();
    assert_eq!(second.next(7).await, (0..7).map(|at| (at, 0)).collect());
    broker.kill();
}

//! S33: the same, each member on a connection of its own. Without the client library, whose clients have a
//! thread each.

use std::collections::BTreeMap;

use grus_protocol::ids::{Generation, GroupId, MemberId, SubscriptionId};
use grus_protocol::message::{
    AckMessages, AssignedQueue, ClaimQueue, GroupDeliver, GroupHeartbeat, GroupOptions,
    GroupSettings, GroupSubscription, JoinGroup, JoinGroupReply, MessageFilter, OffsetRange,
    Request, SubscribeGroup,
};
use grus_protocol::{ErrorReply, Frame, GroupName, Offset, Opcode};
use grus_tests::broker::Home;
use grus_tests::hostile::Peer;
use grus_tests::usage::{anonymous_memory_kib, memory_kib};
use grus_tests::watch::Watch;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::crowd::{MEMORY_KIB_MAX, create_all, send_all};
use crate::options::Options;
use crate::spread::judge;
use crate::{block_on, connect, seconds};

/// So many are asked before the first answer is read.
const AT_ONCE: usize = 100;
/// Descriptors that this process needs for all else.
const OTHERS: u64 = 200;
/// Longest that a member may be silent: the crowd is asked one by one.
const SESSION_MS: u32 = 600_000;

struct Member {
    peer: Peer,
    joined: Option<JoinGroupReply>,
    known: Generation,
    queues: Vec<AssignedQueue>,
    round: u32,
    /// The messages it was sent.
    got: u64,
}

pub(crate) fn run(options: &Options) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit); // less then, and said
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(OTHERS);
    let wanted = options.number("members", 10_000);
    let members = wanted.min(allowed);
    let durability = options.text("durability", "persisted");
    let home = Home::new()
        .with("GRUS__LISTEN__CONNECTIONS_MAX", &(members + 100).to_string())
        .with("GRUS__CONNECTION__IDLE_TIMEOUT", "1h");
    let broker = home.start();
    create_all(&home, &durability, members);
    let pid = broker.process.pid();
    println!("{members} queues, members and connections ({wanted} wanted), {durability}");
    let watch = Watch::start();
    let peers = Peer::crowd(home.listen, members);
    let mut crowd: Vec<Member> = peers.into_iter().map(Member::new).collect();
    println!(
        "connected after {:.1} s, {} KiB anonymous",
        seconds(watch.elapsed()),
        anonymous_memory_kib(pid)
    );
    join(&mut crowd);
    println!("joined after {:.1} s, {} KiB", seconds(watch.elapsed()), anonymous_memory_kib(pid));
    while crowd.iter().any(|member| member.queues.len() != 1) {
        beat(&mut crowd);
    }
    println!("each has a queue after {:.1} s", seconds(watch.elapsed()));
    claim(&mut crowd);
    block_on(async {
        let client = connect(&home).await;
        send_all(&client, members).await;
        client.close().await;
    });
    for member in &mut crowd {
        member.take();
    }
    let (anonymous, resident) = (anonymous_memory_kib(pid), memory_kib(pid));
    println!(
        "a message of each has come after {:.1} s; broker {anonymous} KiB anonymous, {resident} resident",
        seconds(watch.elapsed())
    );
    let served =
        crowd.iter().map(|member| (member.place(), member.got)).collect::<BTreeMap<_, _>>();
    let all = served.len() as u64 == members && served.values().all(|got| *got == 1);
    judge("each queue is served on a connection of its own", all);
    judge("less than 400 MB", anonymous < MEMORY_KIB_MAX);
}

fn group() -> GroupName {
    "g".try_into().expect("a name")
}

/// Asks all, some at a time, and hears them.
fn each(
    crowd: &mut [Member],
    ask: impl Fn(usize, &mut Member),
    hear: impl Fn(&mut Member, &Frame),
) {
    let mut first = 0;
    for some in crowd.chunks_mut(AT_ONCE) {
        for (number, member) in (first..).zip(some.iter_mut()) {
            ask(number, member);
        }
        for member in some.iter_mut() {
            let answer = member.answer();
            hear(member, &answer);
        }
        first += some.len();
    }
}

fn join(crowd: &mut [Member]) {
    let ask = |number: usize, member: &mut Member| {
        let topics = "t*".parse().expect("a pattern");
        let subscriptions = vec![GroupSubscription { topics, filter: MessageFilter::All }];
        let options = GroupOptions { session_ms: Some(SESSION_MS), ..GroupOptions::default() };
        let session = number as u64 + 1;
        let (client_id, group) = (format!("member-{session}"), group());
        let (instance, lane) = (None, None);
        let request =
            JoinGroup { group, session, client_id, subscriptions, options, instance, lane };
        member.peer.ask(1, &request);
    };
    each(crowd, ask, |member, answer| member.joined = Some(read::<JoinGroup>(answer)));
}

/// Hears what is whose, and lets go of all that is not a member's own any more.
fn beat(crowd: &mut [Member]) {
    let ask = |_, member: &mut Member| {
        let (group_id, id, _) = member.identity();
        let (known, holding) = (member.known, Vec::new());
        let group = group();
        member
            .peer
            .ask(2, &GroupHeartbeat { group, group_id, member: id, known, holding, wait_ms: 0 });
    };
    each(crowd, ask, |member, answer| {
        let reply = read::<GroupHeartbeat>(answer);
        if let Some(assigned) = reply.assigned {
            (member.known, member.queues) = (reply.generation, assigned);
        }
    });
}

fn claim(crowd: &mut [Member]) {
    let ask = |_, one: &mut Member| {
        let (group_id, member, settings) = one.identity();
        let AssignedQueue { topic, topic_id, queue, generation } = one.queues[0].clone();
        let group = group();
        one.peer.ask(
            3,
            &ClaimQueue { group, group_id, topic, topic_id, queue, member, generation, settings },
        );
    };
    each(crowd, ask, |member, answer| member.round = read::<ClaimQueue>(answer).round);
    let ask = |_, one: &mut Member| {
        let (group_id, member, _) = one.identity();
        let AssignedQueue { topic, topic_id, queue, generation } = one.queues[0].clone();
        one.peer.ask(
            4,
            &SubscribeGroup {
                subscription: SubscriptionId(9),
                topic,
                topic_id,
                queue,
                group_id,
                member,
                generation,
                round: one.round,
                filter: MessageFilter::All,
                credit_messages: 100,
                credit_bytes: 1 << 20,
            },
        );
    };
    each(crowd, ask, |_, answer| {
        let _ = read::<SubscribeGroup>(answer);
    });
}

fn read<R: Request>(frame: &Frame) -> R::Reply {
    assert!(!frame.head.is_error(), "{:?}", frame.header::<ErrorReply>());
    frame.header().expect("an answer")
}

impl Member {
    fn new(peer: Peer) -> Self {
        let known = Generation::NONE;
        Self { peer, joined: None, known, queues: Vec::new(), round: 0, got: 0 }
    }

    fn identity(&self) -> (GroupId, MemberId, GroupSettings) {
        let joined = self.joined.as_ref().expect("it has joined");
        (joined.group_id, joined.member, joined.settings.clone())
    }

    fn place(&self) -> String {
        format!("{}/{}", self.queues[0].topic, self.queues[0].queue)
    }

    fn answer(&mut self) -> Frame {
        self.peer.frame().expect("an answer")
    }

    /// The message of its queue, acknowledged.
    fn take(&mut self) {
        let push = self.answer();
        assert_eq!(push.head.opcode, Opcode::GroupDeliver);
        let deliver: GroupDeliver = push.header().expect("a delivery");
        self.got += deliver.batches.len() as u64;
        let (group_id, member, _) = self.identity();
        let AssignedQueue { topic, topic_id, queue, generation } = self.queues[0].clone();
        let acks = vec![OffsetRange::one(Offset(0))];
        let (nacks, dead, in_work) = (Vec::new(), Vec::new(), Vec::new());
        let (round, unseen_from) = (self.round, None);
        self.peer.ask(
            5,
            &AckMessages {
                topic,
                topic_id,
                queue,
                group_id,
                member,
                generation,
                round,
                acks,
                nacks,
                dead,
                unseen_from,
                in_work,
            },
        );
        let answer = self.answer();
        assert!(!answer.head.is_error(), "{:?}", answer.header::<ErrorReply>());
    }
}

//! Samples of groups.

use bytes::Bytes;
use grus_protocol::frame::FrameFlags;
use grus_protocol::message::{
    AckMessages, AckMessagesReply, AssignQueues, AssignQueuesReply, AssignTopic, AssignedQueue,
    ClaimQueue, ClaimQueueReply, DeadLetter, DeadLetterPlace, DeadMark, DeleteGroup,
    DeleteGroupReply, DescribeGroup, DescribeGroupReply, DivideMember, DivideQueues, DivideTopic,
    GroupDeliver, GroupHeartbeat, GroupHeartbeatReply, GroupMember, GroupModel, GroupOptions,
    GroupProgress, GroupProgressReply, GroupQueue, GroupSettings, GroupStrategy, GroupSubscription,
    GroupSummary, JoinGroup, JoinGroupReply, LeaveGroup, LeaveGroupReply, ListAt, ListDeadLetters,
    ListDeadLettersReply, ListGroups, ListGroupsReply, MessageFilter, Nack, OffsetRange,
    PurgeDeadLetters, PurgeDeadLettersReply, QueuePlace, QueueProgress, Redelivered,
    RedriveDeadLetters, RedriveDeadLettersReply, Request, ResetGroup, ResetGroupReply, SubscribeAt,
    SubscribeGroup, SubscribeGroupReply,
};
use grus_protocol::{
    ErrorCode, ErrorReply, FrameHead, Generation, GroupId, GroupName, InstanceName, MemberId,
    Offset, Opcode, QueueId, SubscriptionId, TimestampMs, TopicId, TopicName,
};

use super::{BORN, common_batch, fetched, pair, plain_batch, topic, whole};

const TOPIC_ID: TopicId = TopicId(0x0123_4567_89ab_cdef);
const GROUP_ID: GroupId = GroupId(0x0fed_cba9_8765_4321);
const QUEUE: QueueId = QueueId(1);
const MEMBER: MemberId = MemberId(7);
const SUBSCRIPTION: SubscriptionId = SubscriptionId(0x1_0000_0003);

fn group() -> GroupName {
    GroupName::try_from("billing").unwrap()
}

fn later(ms: u64) -> TimestampMs {
    TimestampMs(BORN.0 + ms)
}

fn range(from: u64, to: u64) -> OffsetRange {
    OffsetRange { from: Offset(from), to: Offset(to) }
}

fn settings() -> GroupSettings {
    GroupSettings {
        model: GroupModel::Cluster,
        strategy: GroupStrategy::RoundRobin,
        session_ms: 8_000,
        start: ListAt::Last,
        ladder_ms: vec![100, 70_000],
        max_deliveries: 3,
        is_uniform: true,
    }
}

fn subscriptions() -> Vec<GroupSubscription> {
    let tags = MessageFilter::Tags(vec!["created".into(), "paid".into()]);
    vec![
        GroupSubscription { topics: "orders".parse().unwrap(), filter: tags },
        GroupSubscription { topics: "bills.*".parse().unwrap(), filter: MessageFilter::All },
    ]
}

pub(super) fn frames(out: &mut Vec<(String, Bytes)>) {
    membership(out);
    division(out);
    progress(out);
    deliveries(out);
    descriptions(out);
    care(out);
    dead_letters(out);
}

fn question() -> DivideQueues {
    DivideQueues {
        question: 6,
        members: vec![
            DivideMember { member: MEMBER, client_id: "billing-1".into(), instance: None },
            DivideMember {
                member: MemberId(8),
                client_id: "billing-2".into(),
                instance: Some(InstanceName::try_from("two").unwrap()),
            },
        ],
        topics: vec![DivideTopic {
            topic: topic(),
            topic_id: TOPIC_ID,
            queues: vec![QueueId(0), QueueId(2)],
            owners: vec![MEMBER, MemberId(0)],
            members: vec![MEMBER, MemberId(8)],
        }],
    }
}

fn division(out: &mut Vec<(String, Bytes)>) {
    let (group_id, member) = (GROUP_ID, MEMBER);
    let topics = vec![AssignTopic { topic_id: TOPIC_ID, members: vec![MemberId(8), member] }];
    let (group_name, question, topics) = (group(), 6, Some(topics));
    let assign = AssignQueues { group: group_name, group_id, member, question, topics };
    pair(out, &assign, &AssignQueuesReply {}, [b"", b""]);
}

fn membership(out: &mut Vec<(String, Bytes)>) {
    let (group_id, member) = (GROUP_ID, MEMBER);
    let join = JoinGroup {
        group: group(),
        session: 0x1122_3344_5566_7788,
        client_id: "billing-1".into(),
        subscriptions: subscriptions(),
        options: GroupOptions {
            model: Some(GroupModel::Cluster),
            strategy: Some(GroupStrategy::RoundRobin),
            session_ms: Some(8_000),
            start: Some(ListAt::Time(BORN)),
            ladder_ms: Some(vec![100, 70_000]),
            max_deliveries: Some(3),
            is_uniform: Some(true),
        },
        instance: Some(InstanceName::try_from("pod-3").unwrap()),
        lane: None,
    };
    let joined = JoinGroupReply {
        group_id,
        member,
        generation: Generation(41),
        session_ms: 8_000,
        heartbeat_ms: 2_400,
        settings: settings(),
        time: TimestampMs(1_700_000_000_123),
    };
    pair(out, &join, &joined, [b"", b""]);
    let plain = JoinGroup {
        subscriptions: vec![GroupSubscription {
            topics: "*".parse().unwrap(),
            filter: MessageFilter::Sql("price > 10".into()),
        }],
        options: GroupOptions::default(),
        instance: None,
        lane: Some("gray".into()),
        ..join
    };
    let head = FrameHead::request(Opcode::JoinGroup, 0x0102_0304_0506_0746);
    out.push(("JoinGroup.plain".into(), whole(head, &plain, b"")));
    let heartbeat = GroupHeartbeat {
        group: group(),
        group_id,
        member,
        known: Generation(41),
        holding: vec![QueuePlace { topic_id: TOPIC_ID, queue: QUEUE }],
        wait_ms: 2_000,
    };
    let assigned = AssignedQueue {
        topic: topic(),
        topic_id: TOPIC_ID,
        queue: QueueId(2),
        generation: Generation(40),
    };
    let changed = GroupHeartbeatReply {
        generation: Generation(42),
        assigned: Some(vec![assigned]),
        settings: Some(settings()),
        divide: Some(question()),
    };
    pair(out, &heartbeat, &changed, [b"", b""]);
    let (assigned, settings, divide) = (None, None, None);
    let same = GroupHeartbeatReply { generation: Generation(41), assigned, settings, divide };
    let head = FrameHead::request(Opcode::GroupHeartbeat, 0x0102_0304_0506_0747).reply();
    out.push(("GroupHeartbeat.unchanged".into(), whole(head, &same, b"")));
    pair(out, &LeaveGroup { group: group(), group_id, member }, &LeaveGroupReply {}, [b"", b""]);
}

fn progress(out: &mut Vec<(String, Bytes)>) {
    let (group_id, topic_id, queue, member) = (GROUP_ID, TOPIC_ID, QUEUE, MEMBER);
    let generation = Generation(40);
    let claim = ClaimQueue {
        group: group(),
        group_id,
        topic: topic(),
        topic_id,
        queue,
        member,
        generation,
        settings: settings(),
    };
    let claimed = ClaimQueueReply {
        floor: Offset(1000),
        log_start: Offset(10),
        end_offset: Offset(1004),
        round: 2,
        retries: 5,
    };
    pair(out, &claim, &claimed, [b"", b""]);
    let ack = AckMessages {
        topic: topic(),
        topic_id,
        queue,
        group_id,
        member,
        generation,
        round: 2,
        acks: vec![range(1000, 1002), range(1003, 1004)],
        nacks: vec![
            Nack { offset: Offset(1002), retry_after_ms: Some(250), reason: "no stock".into() },
            Nack { offset: Offset(900), retry_after_ms: None, reason: String::new() },
        ],
        dead: vec![DeadMark { offset: Offset(901), reason: "unreadable".into() }],
        unseen_from: Some(Offset(1004)),
        in_work: vec![range(902, 903)],
    };
    let acked = AckMessagesReply { floor: Offset(1004), retries: 6, left: vec![range(1002, 1003)] };
    pair(out, &ack, &acked, [b"", b""]);
}

fn deliveries(out: &mut Vec<(String, Bytes)>) {
    let (log_start, end_offset) = (Offset(10), Offset(1004));
    let subscribe = SubscribeGroup {
        subscription: SUBSCRIPTION,
        topic: topic(),
        topic_id: TOPIC_ID,
        queue: QUEUE,
        group_id: GROUP_ID,
        member: MEMBER,
        generation: Generation(40),
        round: 2,
        filter: subscriptions()[0].filter.clone(),
        credit_messages: 1000,
        credit_bytes: 1 << 20,
    };
    let reply = SubscribeGroupReply { offset: Offset(1000), log_start, end_offset };
    pair(out, &subscribe, &reply, [b"", b""]);
    let deliver = GroupDeliver {
        queue: QUEUE,
        log_start,
        end_offset,
        batches: vec![fetched(1000, 5, &common_batch()), fetched(1003, 6, &plain_batch())],
        skipped: vec![range(1001, 1002)],
        redelivered: vec![Redelivered { from: Offset(1002), to: Offset(1004), deliveries: 1 }],
    };
    let push = FrameHead::push(Opcode::GroupDeliver, SUBSCRIPTION.0);
    let body = [common_batch(), plain_batch()].concat();
    out.push(("GroupDeliver.push".into(), whole(push, &deliver, &body)));
    let over = FrameHead { flags: FrameFlags::ERROR, ..push };
    let fenced = ErrorReply::new(ErrorCode::Fenced, "claimed by member 8");
    out.push(("GroupDeliver.ended".into(), whole(over, &fenced, b"")));
}

fn descriptions(out: &mut Vec<(String, Bytes)>) {
    let (group_id, generation) = (GROUP_ID, Generation(42));
    let summary = GroupSummary {
        group: group(),
        group_id,
        settings: settings(),
        generation,
        members: 2,
        queues: 8,
    };
    let list = ListGroups { after: GroupName::try_from("a").ok(), groups_max: 100 };
    pair(out, &list, &ListGroupsReply { groups: vec![summary], more: true }, [b"", b""]);
    let first = GroupMember {
        member: MEMBER,
        client_id: "billing-1".into(),
        address: "127.0.0.1:50000".into(),
        instance: InstanceName::try_from("pod-3").ok(),
        subscriptions: subscriptions(),
        joined: later(1),
        last_seen: later(2),
        known: Generation(41),
    };
    let second = GroupMember {
        member: MemberId(8),
        instance: None,
        subscriptions: Vec::new(),
        ..first.clone()
    };
    let queue = |number, member, generation, next| GroupQueue {
        topic: topic(),
        topic_id: TOPIC_ID,
        queue: QueueId(number),
        member,
        generation: Generation(generation),
        next,
    };
    let described = DescribeGroupReply {
        group: group(),
        group_id,
        settings: settings(),
        generation,
        members: vec![first, second],
        queues: vec![queue(0, Some(MEMBER), 40, Some(MemberId(8))), queue(1, None, 0, None)],
    };
    pair(out, &DescribeGroup { group: group() }, &described, [b"", b""]);
}

fn care(out: &mut Vec<(String, Bytes)>) {
    let (group_id, topic_id, queue) = (GROUP_ID, TOPIC_ID, QUEUE);
    let at = SubscribeAt::Time(BORN);
    let reset = ResetGroup { group: group(), group_id, topic: topic(), topic_id, queue, at };
    pair(out, &reset, &ResetGroupReply { floor: Offset(500), round: 3 }, [b"", b""]);
    let delete = DeleteGroup { group: group(), group_id };
    pair(out, &delete, &DeleteGroupReply { group_id }, [b"", b""]);
    let place = QueuePlace { topic_id, queue };
    let ask = GroupProgress { group: group(), group_id, after: Some(place), queues_max: 2 };
    let far = QueueProgress {
        topic: topic(),
        topic_id,
        queue: QueueId(2),
        floor: Offset(900),
        log_start: Offset(10),
        end_offset: Offset(1004),
        delivered_to: Offset(950),
        lag: 105,
        retries: 1,
        next_retry: Some(later(70_000)),
        oldest: Some(later(3)),
        member: MEMBER,
        generation: Generation(40),
        round: 2,
        settled: 890,
        dead: 4,
        lost: 6,
    };
    let done = QueueProgress {
        queue: QueueId(3),
        floor: Offset(1004),
        lag: 0,
        retries: 0,
        next_retry: None,
        oldest: None,
        ..far.clone()
    };
    let next = Some(QueuePlace { topic_id, queue: QueueId(3) });
    pair(out, &ask, &GroupProgressReply { queues: vec![far, done], next }, [b"", b""]);
}

fn dead_letters(out: &mut Vec<(String, Bytes)>) {
    let (group_id, queue) = (GROUP_ID, QUEUE);
    let offsets = vec![range(3, 5), range(9, 10)];
    let redrive = RedriveDeadLetters {
        group: group(),
        group_id,
        queue,
        offsets: offsets.clone(),
        messages_max: 100,
    };
    let redriven = RedriveDeadLettersReply { redriven: 2, next: Some(Offset(9)) };
    pair(out, &redrive, &redriven, [b"", b""]);
    let purge = PurgeDeadLetters { group: group(), group_id, queue, offsets };
    pair(out, &purge, &PurgeDeadLettersReply { purged: 3 }, [b"", b""]);
    let place = |offset| DeadLetterPlace { queue, offset: Offset(offset) };
    let list = ListDeadLetters {
        group: group(),
        group_id,
        after: Some(place(2)),
        messages_max: 2,
        with_bodies: true,
    };
    let body = plain_batch();
    let first = DeadLetter {
        queue,
        offset: Offset(3),
        stored: later(7),
        origin_topic: topic(),
        origin_queue: QueueId(2),
        origin_offset: Offset(901),
        reason: "unreadable".into(),
        deliveries: 1,
        length: u32::try_from(body.len()).unwrap(),
    };
    let system = TopicName::system("DLQ", "eu").unwrap();
    let second = DeadLetter {
        offset: Offset(4),
        origin_topic: system,
        reason: String::new(),
        length: 0,
        ..first.clone()
    };
    let listed = ListDeadLettersReply { letters: vec![first, second], next: Some(place(4)) };
    pair(out, &list, &listed, [b"", &body]);
    let all = ListDeadLetters { after: None, messages_max: 0, with_bodies: false, ..list };
    let head = FrameHead::request(ListDeadLetters::OPCODE, 0x0102_0304_0506_0754);
    out.push(("ListDeadLetters.all".into(), whole(head, &all, b"")));
}

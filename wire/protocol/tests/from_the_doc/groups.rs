//! Consumer groups.

use crate::decoder::{Array, Bool, Nil, Number, Value, batch, frame, golden, n, t};
use crate::{BORN, CORRELATION};

const GROUP_ID: u64 = 0x0fed_cba9_8765_4321;
const TOPIC_ID: u64 = 0x0123_4567_89ab_cdef;

fn header(name: &str) -> Vec<Value> {
    frame(name).header
}

fn list(numbers: &[u64]) -> Value {
    Array(n(numbers))
}

fn settings(start: Value) -> Value {
    let fields = vec![Number(0), Number(2), Number(8_000), start, list(&[100, 70_000])];
    Array([fields, vec![Number(3), Bool(true)]].concat())
}

fn subscriptions() -> Value {
    let tags = Array(vec![Number(1), Array(vec![t("created"), t("paid")])]);
    let orders = Array(vec![t("orders"), tags]);
    Array(vec![orders, Array(vec![t("bills.*"), list(&[0])])])
}

/// The group, its id, and these.
fn of_group(rest: &[Value]) -> Vec<Value> {
    [&[t("billing"), Number(GROUP_ID)], rest].concat()
}

#[test]
fn joining_staying_and_leaving() {
    let join = frame("JoinGroup.request");
    assert_eq!((join.kind, join.opcode, join.correlation), (1, 70, CORRELATION + 70));
    let start = list(&[2, BORN]);
    let rest = [subscriptions(), settings(start), t("pod-3"), Nil];
    let who = [t("billing"), Number(0x1122_3344_5566_7788), t("billing-1")];
    assert_eq!(join.header, [&who[..], &rest].concat());
    let sql = Array(vec![Number(2), t("price > 10")]);
    let all = Array(vec![Array(vec![t("*"), sql])]);
    let plain = [all, Array(vec![Nil; 7]), Nil, t("gray")];
    assert_eq!(header("JoinGroup.plain"), [&who[..], &plain].concat());
    let joined = [
        n(&[GROUP_ID, 7, 41, 8_000, 2_400]),
        vec![settings(list(&[1])), Number(1_700_000_000_123)],
    ]
    .concat();
    assert_eq!(header("JoinGroup.reply"), joined);

    let holding = Array(vec![list(&[TOPIC_ID, 1])]);
    let beat = [Number(7), Number(41), holding, Number(2_000)];
    assert_eq!(header("GroupHeartbeat.request"), of_group(&beat));
    let queue = Array([vec![t("orders")], n(&[TOPIC_ID, 2, 40])].concat());
    let one = Array(vec![Number(7), t("billing-1"), Nil]);
    let two = Array(vec![Number(8), t("billing-2"), t("two")]);
    let topic = [vec![t("orders")], n(&[TOPIC_ID])].concat();
    let topic = [topic, vec![list(&[0, 2]), list(&[7, 0]), list(&[7, 8])]].concat();
    let divide = Array(vec![Number(6), Array(vec![one, two]), Array(vec![Array(topic)])]);
    let changed = [Number(42), Array(vec![queue]), settings(list(&[1])), divide];
    assert_eq!(header("GroupHeartbeat.reply"), changed);
    assert_eq!(header("GroupHeartbeat.unchanged"), [Number(41), Nil, Nil, Nil]);
    let topics = Array(vec![Array(vec![Number(TOPIC_ID), list(&[8, 7])])]);
    assert_eq!(header("AssignQueues.request"), of_group(&[Number(7), Number(6), topics]));
    assert_eq!(header("AssignQueues.reply"), []);
    assert_eq!(header("LeaveGroup.request"), of_group(&[Number(7)]));
    assert_eq!(header("LeaveGroup.reply"), []);
}

#[test]
fn claiming_and_settling() {
    let queue = [vec![t("orders")], n(&[TOPIC_ID, 1])].concat();
    let claim = [&queue[..], &n(&[7, 40]), &[settings(list(&[1]))]].concat();
    assert_eq!(header("ClaimQueue.request"), of_group(&claim));
    assert_eq!(header("ClaimQueue.reply"), n(&[1000, 10, 1004, 2, 5]));
    let acks = Array(vec![list(&[1000, 1002]), list(&[1003, 1004])]);
    let first = Array(vec![Number(1002), Number(250), t("no stock")]);
    let nacks = Array(vec![first, Array(vec![Number(900), Nil, t("")])]);
    let dead = Array(vec![Array(vec![Number(901), t("unreadable")])]);
    let in_work = Array(vec![list(&[902, 903])]);
    let last = [acks, nacks, dead, Number(1004), in_work];
    let ack = [&queue[..], &n(&[GROUP_ID, 7, 40, 2]), &last].concat();
    assert_eq!(header("AckMessages.request"), ack);
    let left = Array(vec![list(&[1002, 1003])]);
    assert_eq!(header("AckMessages.reply"), [Number(1004), Number(6), left]);
}

#[test]
fn being_sent_messages() {
    let tags = Array(vec![Number(1), Array(vec![t("created"), t("paid")])]);
    let queue = [vec![Number(0x1_0000_0003), t("orders")], n(&[TOPIC_ID, 1])].concat();
    let claim = n(&[GROUP_ID, 7, 40, 2]);
    let subscribe = [&queue[..], &claim, &[tags], &n(&[1000, 1 << 20])].concat();
    assert_eq!(header("SubscribeGroup.request"), subscribe);
    assert_eq!(header("SubscribeGroup.reply"), n(&[1000, 10, 1004]));

    let push = frame("GroupDeliver.push");
    assert_eq!((push.kind, push.flags, push.opcode), (3, 0, 76));
    assert_eq!(push.correlation, 0x1_0000_0003);
    let (common, plain) = (golden("batch.common"), golden("batch.plain"));
    let (first, second) = (common.len() as u64, plain.len() as u64);
    let batches = vec![list(&[1000, 5, BORN + 7, first, 0]), list(&[1003, 6, BORN + 7, second, 0])];
    let skipped = Array(vec![list(&[1001, 1002])]);
    let redelivered = Array(vec![list(&[1002, 1004, 1])]);
    let expected = [n(&[1, 10, 1004]), vec![Array(batches), skipped, redelivered]].concat();
    assert_eq!(push.header, expected);
    assert_eq!(push.body, [common, plain].concat());
    let ended = frame("GroupDeliver.ended");
    assert_eq!((ended.kind, ended.flags, ended.correlation), (3, 1, 0x1_0000_0003));
    let error = [Number(102), t("claimed by member 8"), Bool(false), Number(0), Nil];
    assert_eq!(ended.header, error);
}

#[test]
fn groups_and_their_members() {
    assert_eq!(header("ListGroups.request"), [t("a"), Number(100)]);
    let numbers = n(&[42, 2, 8]);
    let summary = of_group(&[&[settings(list(&[1]))], &numbers[..]].concat());
    assert_eq!(header("ListGroups.reply"), [Array(vec![Array(summary)]), Bool(true)]);
    assert_eq!(header("DescribeGroup.request"), [t("billing")]);
    let member = |id, instance, subscriptions| {
        let who = vec![Number(id), t("billing-1"), t("127.0.0.1:50000"), instance, subscriptions];
        Array([who, n(&[BORN + 1, BORN + 2, 41])].concat())
    };
    let members = vec![member(7, t("pod-3"), subscriptions()), member(8, Nil, Array(Vec::new()))];
    let queue = |number, rest: [Value; 3]| {
        Array([&[t("orders"), Number(TOPIC_ID), Number(number)], &rest[..]].concat())
    };
    let queues =
        vec![queue(0, [Number(7), Number(40), Number(8)]), queue(1, [Nil, Number(0), Nil])];
    let described = [settings(list(&[1])), Number(42), Array(members), Array(queues)];
    assert_eq!(header("DescribeGroup.reply"), of_group(&described));
}

#[test]
fn progress_of_groups() {
    let queue = [t("orders"), Number(TOPIC_ID), Number(1)];
    let reset = [&queue[..], &[list(&[2, BORN])]].concat();
    assert_eq!(header("ResetGroup.request"), of_group(&reset));
    assert_eq!(header("ResetGroup.reply"), n(&[500, 3]));
    assert_eq!(header("DeleteGroup.request"), of_group(&[]));
    assert_eq!(header("DeleteGroup.reply"), n(&[GROUP_ID]));
    let ask = of_group(&[list(&[TOPIC_ID, 1]), Number(2)]);
    assert_eq!(header("GroupProgress.request"), ask);
    let of_queue = |number, floor, times: &[Value], counts: &[u64]| {
        let place = n(&[TOPIC_ID, number, floor, 10, 1004, 950]);
        let claim = n(&[7, 40, 2, 890, 4, 6]);
        Array([&[t("orders")], &place[..], &n(counts), times, &claim].concat())
    };
    let far = of_queue(2, 900, &[Number(BORN + 70_000), Number(BORN + 3)], &[105, 1]);
    let done = of_queue(3, 1004, &[Nil, Nil], &[0, 0]);
    assert_eq!(header("GroupProgress.reply"), [Array(vec![far, done]), list(&[TOPIC_ID, 3])]);
}

#[test]
fn dead_letters() {
    let offsets = || Array(vec![list(&[3, 5]), list(&[9, 10])]);
    let redrive = of_group(&[Number(1), offsets(), Number(100)]);
    assert_eq!(header("RedriveDeadLetters.request"), redrive);
    assert_eq!(header("RedriveDeadLetters.reply"), n(&[2, 9]));
    assert_eq!(header("PurgeDeadLetters.request"), of_group(&[Number(1), offsets()]));
    assert_eq!(header("PurgeDeadLetters.reply"), n(&[3]));
    let ask = of_group(&[list(&[1, 2]), Number(2), Bool(true)]);
    assert_eq!(header("ListDeadLetters.request"), ask);
    assert_eq!(header("ListDeadLetters.all"), of_group(&[Nil, Number(0), Bool(false)]));
    let reply = frame("ListDeadLetters.reply");
    let letter = |offset, topic, reason, length| {
        let (place, origin) = (n(&[1, offset, BORN + 7]), n(&[2, 901]));
        let rest = vec![t(reason), Number(1), Number(length)];
        Array([place, vec![t(topic)], origin, rest].concat())
    };
    let length = reply.body.len() as u64;
    let letters = vec![letter(3, "orders", "unreadable", length), letter(4, "%DLQ%eu", "", 0)];
    assert_eq!(reply.header, [Array(letters), list(&[1, 4])]);
    assert_eq!(batch(&reply.body).records, batch(&golden("batch.plain")).records);
}

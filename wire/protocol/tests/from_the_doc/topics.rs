//! Topics, where they are, and what brokers tell the registry.

use crate::decoder::{Array, Bool, Nil, Number, frame, n, t};
use crate::{BORN, CORRELATION};

#[test]
fn metadata_with_a_topic_that_is_served_and_one_that_is_not() {
    let request = frame("Metadata.request");
    assert_eq!(request.header, [Array(vec![t("orders"), t("nobody")]), Bool(true)]);
    let mut broker = vec![Number(1), t("127.0.0.1"), Number(6086)];
    let brokers = Array(vec![Array(broker.clone())]);
    let queues = Array(vec![Array(n(&[0, 3, 1])), Array(vec![Number(1), Number(4), Nil])]);
    let (id, zero) = (Number(0x0123_4567_89ab_cdef), Number(0));
    let served = vec![t("orders"), Nil, id, zero.clone(), zero.clone(), queues];
    let error = vec![Number(40), t("no such topic"), Bool(false), zero.clone(), Nil];
    let unserved =
        vec![t("nobody"), Array(error), zero.clone(), zero.clone(), zero, Array(Vec::new())];
    let topics = Array(vec![Array(served), Array(unserved)]);
    assert_eq!(frame("Metadata.reply").header, [brokers, topics, Number(12)]);

    broker.truncate(3);
    let leader = frame("error.leader").header.pop().unwrap();
    assert_eq!(leader, Array(vec![Number(3), Array(broker)]));
}

#[test]
fn topics() {
    let settings = || Array(n(&[8, 1, 86_400_000, 1 << 30, 0, 90_000, 1, 3, 5_000, 1]));
    let header = |name| frame(name).header;
    assert_eq!(header("CreateTopic.request"), [t("orders"), settings(), Bool(true)]);
    assert_eq!(header("CreateTopic.reply"), [Number(77), settings(), Bool(false)]);
    let defaults = Array(n(&[4, 0, 604_800_000, 0, 0, 600_000, 0, 0, 0, 0]));
    assert_eq!(header("CreateTopic.unnamed"), [t("orders"), defaults, Bool(false)]);
    let change = [Number(8), Nil, Number(0), Number(1_000), Number(0), Number(7), Number(1)];
    let alter = [&[t("orders"), Number(77)], &change[..]].concat();
    assert_eq!(header("AlterTopic.request"), alter);
    assert_eq!(header("AlterTopic.reply"), [Number(77), settings()]);
    assert_eq!(header("DeleteTopic.request"), [t("orders"), Number(77)]);
    assert_eq!(header("DeleteTopic.reply"), [Number(77)]);
    assert_eq!(header("DescribeTopic.request"), [t("orders")]);
    let queue = Array(n(&[0, 3, 1, 10, 1004, 1003, 65_536, BORN + 7]));
    let description = [t("orders"), Number(77), settings(), Number(BORN), Array(vec![queue])];
    assert_eq!(header("DescribeTopic.reply"), description);
    assert_eq!(header("ListTopics.request"), [t("orders"), Number(100), Bool(true)]);
    let summary = Array(vec![t("%DLQ%billing"), Number(77), settings()]);
    assert_eq!(header("ListTopics.reply"), [Array(vec![summary]), Bool(true)]);
}

#[test]
fn registry_and_routes() {
    let registry = 0x000a_bcde_f012_3456;
    let header = |name| frame(name).header;
    assert_eq!(header("WatchRoutes.request"), [Array(vec![t("orders")])]);
    assert_eq!(header("WatchRoutes.reply"), n(&[registry, 41]));
    let push = frame("RoutesChanged.push");
    assert_eq!((push.kind, push.opcode, push.correlation), (3, 26, CORRELATION + 25));
    let (host, port, disk) = (t("mq.example"), Number(6086), Number(0x0001_2345_6789_abcd));
    let broker = vec![Number(5), host.clone(), port.clone(), Bool(true), disk.clone()];
    let mut shard = n(&[3, 0, 5]);
    let members = || Array(n(&[5, 6]));
    let group = 0x000b_0b0b_0b0b_0b0b;
    let wanted = || Array(n(&[5, 8]));
    shard.extend([Bool(true), members(), Number(group), Number(7), wanted(), Number(300)]);
    let spans = |pairs: &[[u64; 2]]| Array(pairs.iter().map(|pair| Array(n(pair))).collect());
    let queues = vec![spans(&[[3, 0]]), spans(&[]), spans(&[[3, 0], [9, 1000]])];
    let settings = || Array(n(&[8, 1, 86_400_000, 1 << 30, 0, 90_000, 1, 3, 5_000, 1]));
    let topic =
        vec![t("orders"), Number(77), settings(), Number(BORN), Array(queues), Number(BORN + 1)];
    let lists = [Array(broker), Array(shard), Array(topic), t("nobody")];
    let mut expected = vec![Number(registry), Number(42), Bool(true), Bool(true)];
    expected.extend(lists.map(|only| Array(vec![only])));
    assert_eq!(push.header, expected);

    let session = 0x0007_7777_0000_0001;
    let claims = || vec![Array(n(&[3, 0])), Array(n(&[4, 1]))];
    let mut expected = vec![Number(5), disk, Number(session), host, port];
    let membership = vec![Number(9), Number(1), members(), Number(group), wanted(), Number(300)];
    let membership = Array(membership);
    let claimed = Array(claims()[..1].to_vec());
    expected.extend([claimed, Number(2), Array(vec![membership]), Number(12)]);
    assert_eq!(header("RegisterBroker.request"), expected);
    let mut expected = n(&[registry, 10_000, 1_000]);
    expected.push(Array(claims()));
    assert_eq!(header("RegisterBroker.reply"), expected);
    let mut expected = n(&[5, session, 1 << 20]);
    expected.extend([Bool(true), Bool(true)]);
    assert_eq!(header("BrokerHeartbeat.request"), expected);
    assert_eq!(header("BrokerHeartbeat.reply"), n(&[10_000]));
    let offered = vec![t("orders"), Number(77), settings(), spans(&[[2, 3]]), Number(BORN)];
    let mut expected = n(&[5, session]);
    expected.push(Array(vec![Array(offered)]));
    assert_eq!(header("OfferTopics.request"), expected);
    let text = t("topic exists, with id 78");
    let error = Array(vec![Number(43), text, Bool(false), Number(0), Nil]);
    let refused = Array(vec![t("orders"), Number(77), error]);
    assert_eq!(header("OfferTopics.reply"), [Array(vec![refused])]);
    let placed = vec![t("%DLQ%billing"), Number(77), Number(3), Array(n(&[3, 4]))];
    assert_eq!(header("PlaceDeadLetters.request"), placed);
    assert_eq!(header("PlaceDeadLetters.reply"), vec![Number(78), Number(2), Bool(true)]);
    let led = vec![Number(9), Number(8), Array(n(&[5, 8])), Number(311)];
    let led = Array(vec![Array(led)]);
    assert_eq!(header("LeadShards.request"), vec![Number(5), led]);
    assert_eq!(header("LeadShards.reply"), vec![]);
}

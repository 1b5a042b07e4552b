//! What producers and readers ask, and what they hear.

use crate::decoder::{Array, Bin, Bool, Nil, Number, Value, batch, frame, golden, n, t, take};
use crate::{BORN, CORRELATION};

#[test]
fn the_head_and_header_of_hello() {
    let hello = frame("Hello.request");
    assert_eq!((hello.kind, hello.flags, hello.opcode), (1, 0, 1));
    assert_eq!(hello.correlation, CORRELATION + 1);
    let mut expected = n(&[1, 1, 1, 1]);
    expected.extend([t("billing-1"), t("grus-client 0.1.0"), Nil]);
    assert_eq!(hello.header, expected);

    let reply = frame("Hello.reply");
    assert_eq!((reply.kind, reply.flags, reply.opcode), (2, 0, 1));
    let mut expected = n(&[
        1, 1, 1, 1, 16_777_216, 262_144, 8_388_608, 65_536, 4_194_304, 32_768, 256, 255, 16, 1024,
        254, 120_000, BORN,
    ]);
    expected.push(t("grus-broker 0.1.0"));
    assert_eq!(reply.header, expected);
}

#[test]
fn produce_and_its_receipt() {
    let produce = frame("Produce.request");
    assert_eq!((produce.opcode, produce.correlation), (10, CORRELATION + 10));
    let topic_id = Number(0x0123_4567_89ab_cdef);
    let header = vec![t("orders"), topic_id, Number(1), Number(3000)];
    assert_eq!(produce.header, header);
    assert_eq!(produce.body, golden("batch.common"));
    let receipt = frame("Produce.reply");
    let mut expected = n(&[1000, 5, BORN + 7, 0]);
    expected.extend([Bool(true), Nil, Nil]);
    assert_eq!((receipt.header, receipt.body), (expected, Vec::new()));
    let mut scheduled = n(&[0, 5, BORN + 7, 0]);
    scheduled.extend([Bool(false), Array(n(&[70_000, 3])), Number(BORN + 6)]);
    assert_eq!(frame("Produce.scheduled").header, scheduled);
    assert_eq!(frame("Produce.one_way").flags, 2);
}

#[test]
fn fetch_and_the_batches_in_its_body() {
    let fetch = frame("Fetch.request");
    let mut expected = vec![t("orders")];
    expected.extend(n(&[0x0123_4567_89ab_cdef, 1, 1001, 5, 1 << 20, 15_000]));
    assert_eq!(fetch.header, expected);

    let reply = frame("Fetch.reply");
    let [Number(10), Number(1004), Array(batches)] = &reply.header[..] else {
        panic!("{:?}", reply.header)
    };
    let mut rest = &reply.body[..];
    let mut next_offset = 1000;
    for one in batches {
        let Array(one) = one else { panic!("{one:?}") };
        let [Number(base_offset), _, _, Number(length), Number(0)] = one[..] else {
            panic!("{one:?}")
        };
        assert_eq!(base_offset, next_offset);
        let bytes = take(&mut rest, usize::try_from(length).unwrap());
        next_offset += batch(bytes).fields["count"];
    }
    assert_eq!((next_offset, rest.len()), (1004, 0));
}

#[test]
fn subscriptions() {
    let id = 0x1_0000_0002;
    let request = frame("Subscribe.request");
    assert_eq!((request.kind, request.opcode), (1, 13));
    let place = |at: &[u64]| {
        let mut header = n(&[id]);
        header.push(t("orders"));
        header.extend(n(&[0x0123_4567_89ab_cdef, 1]));
        header.push(Array(n(at)));
        header.extend(n(&[1000, 1 << 20]));
        header
    };
    assert_eq!(request.header, place(&[3, 1001, 5]));
    assert_eq!(frame("Subscribe.first").header, place(&[0]));
    assert_eq!(frame("Subscribe.last").header, place(&[1]));
    assert_eq!(frame("Subscribe.time").header, place(&[2, BORN]));
    for reply in ["Subscribe.reply", "Seek.reply"] {
        assert_eq!(frame(reply).header, n(&[1001, 10, 1004]));
    }
    assert_eq!(frame("Credit.request").header, n(&[id, 300, 65_537]));
    assert_eq!((frame("Credit.no_reply").opcode, frame("Credit.no_reply").flags), (14, 2));
    assert_eq!(frame("Credit.reply").header, []);
    let seek = vec![Number(id), Array(n(&[2, BORN])), Number(999), Number(1 << 19)];
    assert_eq!(frame("Seek.request").header, seek);
    assert_eq!(frame("Unsubscribe.request").header, n(&[id]));
    assert_eq!(frame("Unsubscribe.reply").header, []);
}

#[test]
fn deliveries_and_the_end_of_a_subscription() {
    let push = frame("Deliver.push");
    assert_eq!((push.kind, push.flags, push.opcode, push.correlation), (3, 0, 17, 0x1_0000_0002));
    let [Number(1), Number(10), Number(1004), Array(batches)] = &push.header[..] else {
        panic!("{:?}", push.header)
    };
    let mut rest = &push.body[..];
    for (one, base) in batches.iter().zip([1000, 1003]) {
        let Array(one) = one else { panic!("{one:?}") };
        let [Number(base_offset), _, _, Number(length), Number(0)] = one[..] else {
            panic!("{one:?}")
        };
        assert_eq!(base_offset, base);
        batch(take(&mut rest, usize::try_from(length).unwrap()));
    }
    assert!(rest.is_empty());
    let ended = frame("Deliver.ended");
    assert_eq!((ended.kind, ended.flags, ended.correlation), (3, 1, 0x1_0000_0002));
    let bounds = Array(n(&[1, 1100, 1200]));
    let text = t("removed by retention");
    assert_eq!(ended.header, [Number(80), text, Bool(false), Number(0), bounds]);
}

#[test]
fn offsets_are_asked_for_in_three_ways() {
    let at = |name| frame(name).header.pop().unwrap();
    assert_eq!(at("ListOffsets.request"), Array(n(&[2, BORN])));
    assert_eq!(at("ListOffsets.first"), Array(n(&[0])));
    assert_eq!(at("ListOffsets.last"), Array(n(&[1])));
    assert_eq!(frame("ListOffsets.reply").header, n(&[1001, 10, 1004]));
}

#[test]
fn messages_are_looked_for_in_four_ways() {
    let id = 0x0123_4567_89ab_cdef;
    let by = |name| frame(name).header[0].clone();
    let find = frame("FindMessages.request");
    assert_eq!((find.opcode, find.correlation), (18, CORRELATION + 18));
    let key = Array(vec![Number(1), t("orders"), Number(id), Bin(b"order-17".to_vec())]);
    assert_eq!(find.header, [key, Number(2)]);
    let bytes: Vec<u8> = (0..16).map(|at| golden("batch.plain")[67 + at]).collect();
    assert_eq!(by("FindMessages.id"), Array(vec![Number(0), Bin(bytes)]));
    let with = |first, rest: Vec<Value>| {
        Array([vec![Number(first), t("orders"), Number(id)], rest].concat())
    };
    assert_eq!(by("FindMessages.offset"), with(2, n(&[1, 1000])));
    assert_eq!(by("FindMessages.time"), with(3, vec![Number(BORN), Nil]));
    assert_eq!(by("FindMessages.time_in_queue"), with(3, n(&[BORN, 1])));

    let reply = frame("FindMessages.reply");
    let [Array(found), Bool(true), Number(4096), Number(77)] = &reply.header[..] else {
        panic!("{:?}", reply.header)
    };
    let mut rest = &reply.body[..];
    let mut bodies = Vec::new();
    for one in found {
        let Array(one) = one else { panic!("{one:?}") };
        let [
            topic,
            Number(topic_id),
            Number(_),
            Number(offset),
            Number(5),
            Number(stored),
            Number(length),
        ] = &one[..]
        else {
            panic!("{one:?}")
        };
        assert_eq!((topic, *topic_id, *stored), (&t("orders"), id, BORN + offset));
        let batch = batch(take(&mut rest, usize::try_from(*length).unwrap()));
        assert_eq!((batch.fields["count"], batch.fields["attributes"]), (1, 0));
        bodies.push((batch.fields["first_sequence"], batch.records[0].body.clone()));
    }
    assert_eq!(bodies, [(40, b"{\"order\":17}".to_vec()), (0, b"hello".to_vec())]);
    assert!(rest.is_empty());
}

#[test]
fn the_rest() {
    assert_eq!(frame("Ping.request").header, []);
    assert_eq!(frame("Ping.reply").header, n(&[BORN]));
    let announced = frame("InitProducer.request").header;
    assert_eq!(announced[0], t("billing"));
    assert_eq!(announced[1..], n(&[2, 0x1122_3344_5566_7788, 2]));
    assert_eq!(frame("InitProducer.reply").header, n(&[0x1122_3344_5566_7788, 2, 256]));
}

#[test]
fn those_who_are_connected_are_listed_page_by_page() {
    let producer = 0x1122_3344_5566_7788;
    let close = frame("CloseProducer.request");
    assert_eq!((close.kind, close.opcode, close.header), (1, 7, n(&[producer, 2])));
    assert_eq!(frame("CloseProducer.reply").header, []);
    let list = frame("ListClients.request");
    assert_eq!((list.kind, list.opcode), (1, 50));
    assert_eq!(list.header, [Number(40), Number(10), Bool(true)]);
    let reply = frame("ListClients.reply").header;
    let [Array(clients), Number(41)] = &reply[..] else { panic!("{reply:?}") };
    let [Array(client)] = &clients[..] else { panic!("{clients:?}") };
    let texts = ["billing-1", "grus-client 0.1.0", "127.0.0.1:50000"].map(t);
    let mut head = n(&[41]);
    head.extend(texts);
    head.extend(n(&[BORN, BORN + 6_000, 77]));
    assert_eq!(client[..7], head);
    let named = [n(&[producer, 2]), vec![t("billing"), t("orders")]].concat();
    let named = [named, n(&[BORN + 1, BORN + 2, 3, 300])].concat();
    let new = [n(&[9, 0]), vec![Nil, Nil], n(&[BORN + 3, BORN + 3, 0, 0])].concat();
    assert_eq!(client[7], Array(vec![Array(named), Array(new)]));
    let reader = |queue, is_push, rest: Vec<Value>| {
        let place = vec![t("orders"), Number(queue), Bool(is_push)];
        Array([place, n(&[BORN + 4, BORN + 5]), rest].concat())
    };
    let pushed = reader(1, true, vec![Nil, Number(0)]);
    assert_eq!(client[8], Array(vec![pushed, reader(2, false, n(&[1001, 17]))]));
    assert_eq!(client[9..11], n(&[5, 6]));
    let member = [vec![t("billing")], n(&[12, BORN + 7, BORN + 8])].concat();
    assert_eq!(client[11..], [Array(vec![Array(member)])]);
}

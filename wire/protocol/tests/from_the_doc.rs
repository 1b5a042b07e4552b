//! A second decoder, written from docs/PROTOCOL.md alone: it uses nothing of the crate and reads
//! the golden bytes. What it cannot read, a stranger's client could not either.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Section 4: as much of MessagePack as headers use.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Number(u64),
    Text(String),
    Bin(Vec<u8>),
    Array(Vec<Value>),
}

use Value::{Array, Bin, Bool, Nil, Number, Text};

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken
}

fn value(rest: &mut &[u8]) -> Value {
    let marker = take(rest, 1)[0];
    match marker {
        0x00..=0x7f => Number(marker.into()),
        0x90..=0x9f => array(rest, (marker & 0x0f).into()),
        0xa0..=0xbf => text(rest, (marker & 0x1f).into()),
        0xc0 => Nil,
        0xc2 => Bool(false),
        0xc3 => Bool(true),
        0xc4 => {
            let length = big(take(rest, 1));
            Bin(take(rest, usize::try_from(length).unwrap()).to_vec())
        }
        0xcc => Number(big(take(rest, 1))),
        0xcd => Number(big(take(rest, 2))),
        0xce => Number(big(take(rest, 4))),
        0xcf => Number(big(take(rest, 8))),
        0xd9 => {
            let length = big(take(rest, 1));
            text(rest, length)
        }
        0xdc => {
            let length = big(take(rest, 2));
            array(rest, length)
        }
        other => panic!("marker {other:#x}"),
    }
}

fn array(rest: &mut &[u8], count: u64) -> Value {
    Array((0..count).map(|_| value(rest)).collect())
}

fn text(rest: &mut &[u8], length: u64) -> Value {
    let bytes = take(rest, usize::try_from(length).unwrap());
    Text(String::from_utf8(bytes.to_vec()).unwrap())
}

fn t(text: &str) -> Value {
    Text(text.to_owned())
}

fn n(numbers: &[u64]) -> Vec<Value> {
    numbers.iter().copied().map(Number).collect()
}

/// Section 3.
#[derive(Debug, PartialEq)]
struct Frame {
    kind: u64,
    flags: u64,
    opcode: u64,
    correlation: u64,
    header: Vec<Value>,
    body: Vec<u8>,
}

fn frame(name: &str) -> Frame {
    let bytes = golden(name);
    assert_eq!(little(&bytes[0..4]), bytes.len() as u64 - 4, "{name}: length");
    assert_eq!(bytes[4], 1, "{name}: version");
    assert_eq!(&bytes[10..12], [0, 0], "{name}: reserved");
    let header_end = 24 + usize::try_from(little(&bytes[20..24])).unwrap();
    let mut rest = &bytes[24..header_end];
    let Array(header) = value(&mut rest) else { panic!("{name}: the header is no array") };
    assert!(rest.is_empty(), "{name}: bytes after the array");
    Frame {
        kind: little(&bytes[5..6]),
        flags: little(&bytes[6..8]),
        opcode: little(&bytes[8..10]),
        correlation: little(&bytes[12..20]),
        header,
        body: bytes[header_end..].to_vec(),
    }
}

/// Section 9: CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let odd = crc & 1;
            crc >>= 1;
            if odd == 1 {
                crc ^= 0x1edc_6f41_u32.reverse_bits();
            }
        }
    }
    !crc
}

fn varint(rest: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = take(rest, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return number;
        }
    }
}

fn sized(rest: &mut &[u8]) -> Vec<u8> {
    let length = varint(rest);
    take(rest, usize::try_from(length).unwrap()).to_vec()
}

fn sized_text(rest: &mut &[u8]) -> String {
    String::from_utf8(sized(rest)).unwrap()
}

#[derive(Debug, Default, PartialEq)]
struct Record {
    id: String,
    born: u64,
    priority: Option<u8>,
    deliver_at: Option<u64>,
    keys: Vec<Vec<u8>>,
    tag: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    order_key: Option<Vec<u8>>,
    ttl_ms: Option<u64>,
    dedup_key: Option<Vec<u8>>,
    lane: Option<String>,
    retry_count: Option<u64>,
    origin: Option<(String, u64, u64)>,
    tombstone: bool,
    extension: Option<Vec<u8>>,
    delay_ms: Option<u64>,
    body: Vec<u8>,
}

fn record(mut rest: &[u8], born_base: u64) -> Record {
    let rest = &mut rest;
    let attributes = little(take(rest, 2));
    let has = |bit: u32| attributes >> bit & 1 == 1;
    let id: Vec<_> = take(rest, 16).iter().map(|byte| format!("{byte:02x}")).collect();
    let folded = varint(rest);
    let delta = (folded >> 1).cast_signed() ^ -((folded & 1).cast_signed());
    let mut found = Record {
        id: id.concat(),
        born: born_base.checked_add_signed(delta).unwrap(),
        ..Record::default()
    };
    found.priority = has(0).then(|| take(rest, 1)[0]);
    found.deliver_at = has(1).then(|| little(take(rest, 8)));
    if has(2) {
        found.keys = (0..varint(rest)).map(|_| sized(rest)).collect();
    }
    found.tag = has(3).then(|| sized_text(rest));
    if has(4) {
        found.headers = (0..varint(rest)).map(|_| (sized_text(rest), sized(rest))).collect();
    }
    found.order_key = has(5).then(|| sized(rest));
    found.ttl_ms = has(6).then(|| varint(rest));
    found.dedup_key = has(7).then(|| sized(rest));
    found.lane = has(8).then(|| sized_text(rest));
    found.retry_count = has(9).then(|| varint(rest));
    found.origin = has(10).then(|| (sized_text(rest), varint(rest), varint(rest)));
    found.tombstone = has(11);
    found.extension = has(12).then(|| sized(rest));
    found.delay_ms = has(13).then(|| varint(rest));
    assert_eq!(attributes >> 14, 0);
    found.body = rest.to_vec();
    found
}

/// Decodes one LZ4 frame, by the description of the format: no checksums but that of the header.
fn lz4(mut frame: &[u8]) -> Vec<u8> {
    assert_eq!(little(take(&mut frame, 4)), 0x184d_2204);
    let flags = take(&mut frame, 2)[0];
    if flags & 0b1000 != 0 {
        take(&mut frame, 8); // content size
    }
    take(&mut frame, 1); // checksum of the header
    let mut plain = Vec::new();
    loop {
        let size = usize::try_from(little(take(&mut frame, 4))).unwrap();
        match size {
            0 => break,
            size if size >> 31 == 1 => plain.extend(take(&mut frame, size & 0x7fff_ffff)),
            size => lz4_block(take(&mut frame, size), &mut plain),
        }
    }
    assert!(frame.is_empty(), "bytes behind the frame");
    plain
}

fn lz4_block(mut block: &[u8], plain: &mut Vec<u8>) {
    let more = |block: &mut &[u8], nibble: u8| {
        let mut length = usize::from(nibble);
        let mut goes_on = nibble == 15;
        while goes_on {
            let byte = take(block, 1)[0];
            length += usize::from(byte);
            goes_on = byte == 255;
        }
        length
    };
    loop {
        let token = take(&mut block, 1)[0];
        let literals = more(&mut block, token >> 4);
        plain.extend(take(&mut block, literals));
        if block.is_empty() {
            return;
        }
        let back = usize::try_from(little(take(&mut block, 2))).unwrap();
        for _ in 0..more(&mut block, token & 15) + 4 {
            plain.push(plain[plain.len() - back]);
        }
    }
}

#[derive(Debug)]
struct Batch {
    fields: BTreeMap<&'static str, u64>,
    records: Vec<Record>,
}

fn batch(bytes: &[u8]) -> Batch {
    let places = [
        ("magic", 0, 1),
        ("version", 1, 1),
        ("reserved", 2, 2),
        ("length", 4, 4),
        ("crc32c", 8, 4),
        ("count", 12, 4),
        ("born_base", 16, 8),
        ("born_max", 24, 8),
        ("producer_id", 32, 8),
        ("producer_epoch", 40, 4),
        ("attributes", 44, 4),
        ("first_sequence", 48, 8),
        ("tag_bloom", 56, 8),
    ];
    let fields: BTreeMap<_, _> =
        places.into_iter().map(|(name, at, size)| (name, little(&bytes[at..at + size]))).collect();
    assert_eq!([fields["magic"], fields["version"], fields["reserved"]], [0xb7, 1, 0]);
    assert_eq!(fields["length"], bytes.len() as u64);
    assert_eq!(fields["crc32c"], u64::from(crc32c(&bytes[12..])));
    let plain = match fields["attributes"] & 7 {
        0 => bytes[64..].to_vec(),
        1 => {
            let plain = lz4(&bytes[68..]);
            assert_eq!(little(&bytes[64..68]), plain.len() as u64, "plain_length");
            plain
        }
        _ => panic!("no decoder here"),
    };
    let mut rest = &plain[..];
    let records: Vec<_> = (0..fields["count"])
        .map(|_| {
            let length = varint(&mut rest);
            record(take(&mut rest, usize::try_from(length).unwrap()), fields["born_base"])
        })
        .collect();
    assert!(rest.is_empty(), "bytes after the last record");
    assert_eq!(records.iter().map(|one| one.born).max(), Some(fields["born_max"]));
    let lives = records.iter().any(|one| one.ttl_ms.is_some());
    assert_eq!(fields["attributes"] >> 4 & 1, u64::from(lives), "bit 4");
    Batch { fields, records }
}

const BORN: u64 = 1_700_000_000_123;
const CORRELATION: u64 = 0x0102_0304_0506_0700;

#[test]
fn the_checksum_of_the_doc_is_the_one_meant() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn batches() {
    let plain = batch(&golden("batch.plain"));
    let hello = Record {
        id: "018bcfe5687b72028202020202020202".into(),
        born: BORN,
        body: b"hello".to_vec(),
        ..Record::default()
    };
    assert_eq!(plain.records, [hello]);
    assert_eq!([plain.fields["producer_id"], plain.fields["tag_bloom"]], [0, 0]);

    let common = batch(&golden("batch.common"));
    assert_eq!(common.fields["producer_id"], 0x1122_3344_5566_7788);
    assert_eq!([common.fields["producer_epoch"], common.fields["first_sequence"]], [2, 40]);
    let bloom = 0x8000_1002_0000_0000 | 0x0000_0000_0024_0400; // created, paid
    assert_eq!(common.fields["tag_bloom"], bloom);
    let [tagged, earlier, later] = &common.records[..] else { panic!("three records") };
    assert_eq!(tagged.keys, [b"order-17"]);
    assert_eq!(tagged.tag.as_deref(), Some("created"));
    assert_eq!(tagged.headers, [("region".to_owned(), b"eu".to_vec())]);
    assert_eq!(tagged.body, b"{\"order\":17}");
    assert_eq!((earlier.born, earlier.tag.as_deref()), (BORN - 100, Some("paid")));
    assert_eq!((later.born, later.body.len()), (BORN + 1000, 0));
}

#[test]
fn compressed_batches() {
    let similar = batch(&golden("batch.lz4"));
    assert_eq!((similar.fields["count"], similar.records.len()), (20, 20));
    let body = b"{\"order\":19,\"state\":\"created\",\"note\":\"created\"}";
    assert_eq!(similar.records[19].body, body);

    let zstd = golden("batch.zstd");
    assert_eq!(little(&zstd[44..48]), 2);
    let plain_length: usize = similar.records.len() * 80;
    assert!(little(&zstd[64..68]) > plain_length as u64 / 2, "the length of the plain records");
    assert_eq!(little(&zstd[68..72]), 0xfd2f_b528, "the magic number of a Zstandard frame");
}

#[test]
fn a_record_with_every_field() {
    let full = batch(&golden("batch.full"));
    assert_eq!(full.fields["attributes"], 1 << 3 | 1 << 4, "gray, with a time to live");
    let everything = Record {
        id: "018bcfe5687b71018101010101010101".into(),
        born: BORN,
        priority: Some(9),
        deliver_at: Some(1_800_000_000_000),
        keys: vec![b"k1".to_vec(), b"\0\xff".to_vec()],
        tag: Some("created".into()),
        headers: vec![("a".into(), Vec::new()), ("a".into(), b"again".to_vec())],
        order_key: Some(b"customer-7".to_vec()),
        ttl_ms: Some(60_000),
        dedup_key: Some(b"once".to_vec()),
        lane: Some("gray".into()),
        retry_count: Some(3),
        origin: Some(("orders".into(), 300, 1 << 40)),
        tombstone: false,
        extension: None,
        delay_ms: None,
        body: b"body".to_vec(),
    };
    assert_eq!(full.records[0], everything);
    assert!(full.records[1].tombstone && full.records[1].body.is_empty());

    let extended = batch(&golden("batch.extended"));
    assert_eq!(extended.records[0].extension.as_deref(), Some(&b"\x93later"[..]));
    assert_eq!(extended.records[0].body, b"known");
}

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
    expected.extend([Bool(true), Nil]);
    assert_eq!((receipt.header, receipt.body), (expected, Vec::new()));
    let mut scheduled = n(&[0, 5, BORN + 7, 0]);
    scheduled.extend([Bool(false), Array(n(&[70_000, 3]))]);
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
fn records_that_are_due_later_or_live_for_a_while() {
    let due = batch(&golden("batch.due"));
    assert_eq!(due.fields["attributes"], 1 << 4);
    let times: Vec<_> = due.records.iter().map(|one| (one.deliver_at, one.ttl_ms)).collect();
    let first = 1_800_000_000_000;
    assert_eq!(times, [(Some(first), Some(60_000)), (Some(first + 1), Some(60_000))]);
    let delayed = batch(&golden("batch.delayed"));
    assert_eq!((delayed.fields["attributes"], delayed.records[0].delay_ms), (0, Some(10_000)));
    assert_eq!(delayed.records[0].body, b"soon");

    let reply = frame("Fetch.expired");
    let Array(batches) = &reply.header[2] else { panic!("{:?}", reply.header) };
    let length = golden("batch.plain").len() as u64;
    assert_eq!(batches[0], Array(n(&[1000, 5, BORN + 7, 0, 7])));
    assert_eq!(batches[1], Array(n(&[1007, 6, BORN + 7, length, 0])));
    assert_eq!(reply.body, golden("batch.plain"));
}

#[test]
fn what_is_scheduled() {
    let (id, due) = (Number(0x0123_4567_89ab_cdef), 1_800_000_000_000);
    let header = |name| frame(name).header;
    let timer = |place| Array(n(&[70_000, place]));
    let timers = Array(vec![timer(3), timer(4)]);
    assert_eq!(header("RecallMessage.request"), [t("orders"), id.clone(), Number(1), timers]);
    assert_eq!(header("RecallMessage.reply"), [Array(vec![Bool(true), Bool(false)])]);

    let place = Array(vec![Number(due), Number(3), timer(3)]);
    let mut list = vec![t("orders"), id.clone()];
    list.extend(n(&[1, BORN, due + 1]));
    list.extend([Bin(b"order-17".to_vec()), place.clone(), Number(2), Bool(true)]);
    assert_eq!(header("ListScheduled.request"), list);
    let all = [Nil, Number(0), Nil, Number(0), Number(u64::MAX), Nil, Nil, Number(0), Bool(false)];
    assert_eq!(header("ListScheduled.all"), all);
    let scheduled = |number, length| {
        let mut one = vec![t("orders"), id.clone()];
        one.extend(n(&[1, 3]));
        one.extend([timer(3 + number), Number(due + number), Number(length)]);
        Array(one)
    };
    let reply = frame("ListScheduled.reply");
    let alone = batch(&reply.body);
    let length = reply.body.len() as u64;
    assert_eq!(reply.header, [Array(vec![scheduled(0, length), scheduled(1, 0)]), place]);
    assert_eq!((alone.fields["count"], alone.fields["attributes"]), (1, 1 << 4));
    assert_eq!(alone.records, batch(&golden("batch.due")).records[..1]);

    let count = [t("orders"), id.clone(), Number(1), Number(BORN), Number(u64::MAX)];
    assert_eq!(header("CountScheduled.request"), count);
    assert_eq!(header("CountScheduled.reply"), n(&[70_000]));
    let show = frame("ShowScheduled.request");
    assert_eq!(
        (show.opcode, show.header),
        (63, vec![t("orders"), id.clone(), Number(1), timer(3)])
    );
    let shown = frame("ShowScheduled.reply");
    assert_eq!((shown.header, shown.body), (vec![scheduled(0, length)], reply.body));
}

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
    let settings = || Array(n(&[8, 1, 86_400_000, 1 << 30, 0, 90_000]));
    let header = |name| frame(name).header;
    assert_eq!(header("CreateTopic.request"), [t("orders"), settings(), Bool(true)]);
    assert_eq!(header("CreateTopic.reply"), [Number(77), settings(), Bool(false)]);
    let alter = [t("orders"), Number(77), Number(8), Nil, Number(0), Number(1_000)];
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
    shard.push(Bool(true));
    let spans = |pairs: &[[u64; 2]]| Array(pairs.iter().map(|pair| Array(n(pair))).collect());
    let queues = vec![spans(&[[3, 0]]), spans(&[]), spans(&[[3, 0], [9, 1000]])];
    let settings = || Array(n(&[8, 1, 86_400_000, 1 << 30, 0, 90_000]));
    let topic = vec![t("orders"), Number(77), settings(), Number(BORN), Array(queues)];
    let lists = [Array(broker), Array(shard), Array(topic), t("nobody")];
    let mut expected = vec![Number(registry), Number(42), Bool(true), Bool(true)];
    expected.extend(lists.map(|only| Array(vec![only])));
    assert_eq!(push.header, expected);

    let session = 0x0007_7777_0000_0001;
    let claims = || vec![Array(n(&[3, 0])), Array(n(&[4, 1]))];
    let mut expected = vec![Number(5), disk, Number(session), host, port];
    expected.extend([Array(claims()[..1].to_vec()), Number(2)]);
    assert_eq!(header("RegisterBroker.request"), expected);
    let mut expected = n(&[registry, 10_000, 1_000]);
    expected.push(Array(claims()));
    assert_eq!(header("RegisterBroker.reply"), expected);
    let mut expected = n(&[5, session, 1 << 20]);
    expected.push(Bool(true));
    assert_eq!(header("BrokerHeartbeat.request"), expected);
    assert_eq!(header("BrokerHeartbeat.reply"), n(&[10_000]));
    let offered = vec![t("orders"), Number(77), settings(), spans(&[[2, 3]])];
    let mut expected = n(&[5, session]);
    expected.push(Array(vec![Array(offered)]));
    assert_eq!(header("OfferTopics.request"), expected);
    let text = t("topic exists, with id 78");
    let error = Array(vec![Number(43), text, Bool(false), Number(0), Nil]);
    let refused = Array(vec![t("orders"), Number(77), error]);
    assert_eq!(header("OfferTopics.reply"), [Array(vec![refused])]);
}

#[test]
fn the_rest() {
    assert_eq!(frame("Ping.request").header, []);
    assert_eq!(frame("Ping.reply").header, n(&[BORN]));
    assert_eq!(frame("InitProducer.request").header, [t("billing")]);
    assert_eq!(frame("InitProducer.reply").header, n(&[0x1122_3344_5566_7788, 2]));
}

#[test]
fn errors_and_their_details() {
    let busy = frame("error.overloaded");
    assert_eq!((busy.kind, busy.flags, busy.opcode, busy.correlation), (2, 1, 10, 97));
    assert_eq!(busy.header, [Number(22), t("no room now"), Bool(true), Number(250), Nil]);
    let limit = Array(vec![
        Number(4),
        t("message_bytes_max"),
        Number(4_194_304),
        Number(4_194_305),
        Number(2),
    ]);
    let details = [
        ("bounds", 80, Array(n(&[1, 10, 1004]))),
        ("divergence", 81, Array(n(&[2, 4, 900, 10]))),
        ("limit", 63, limit),
        ("record", 64, Array(n(&[5, 2]))),
        ("sequence", 66, Array(n(&[6, 43]))),
        ("versions", 3, Array(n(&[7, 1, 1]))),
        ("range", 82, Array(n(&[8, 20, 23]))),
    ];
    for (name, code, detail) in details {
        let error = frame(&format!("error.{name}"));
        assert_eq!((error.kind, error.flags), (2, 1));
        let expected = [Number(code), t(name), Bool(false), Number(0), detail];
        assert_eq!(error.header, expected, "{name}");
    }
}

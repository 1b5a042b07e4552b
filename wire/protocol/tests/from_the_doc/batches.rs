//! Section 9: batches, their records and what compression makes of them.

use crate::BORN;
use crate::decoder::{Record, batch, crc32c, golden, little};

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

//! What brokers say to one another, and what operators ask of them about their shards.

use crate::CORRELATION;
use crate::decoder::{Array, Bool, Nil, Number, frame, little, n, t};

#[test]
fn brokers_among_themselves() {
    let open = frame("OpenPeer.request");
    assert_eq!((open.kind, open.opcode, open.correlation), (1, 100, CORRELATION + 100));
    let (one, other) = (0x0001_2345_6789_abcd, 0x0001_dcba_9876_5432);
    assert_eq!(open.header, n(&[5, one, 6, other, 16 << 20]));
    assert_eq!(frame("OpenPeer.reply").header, n(&[other, 32 << 20]));
    let asked = frame("ShardMessage.request");
    assert_eq!((asked.opcode, asked.header), (101, n(&[3, 0x000b_0b0b_0b0b_0b0b])));
    assert_eq!(asked.body, [1, 8], "version 1, Standing");
    let answer = frame("ShardMessage.reply");
    assert_eq!(answer.header, []);
    assert_eq!(answer.body[..3], [1, 9, 0], "version 1, Standing, sound");
    assert_eq!((answer.body[3], little(&answer.body[12..20])), (1, 7), "on disk up to 7");
}

#[test]
fn shards_are_described_and_handed_over() {
    let ask = frame("DescribeShards.request");
    assert_eq!((ask.kind, ask.opcode, ask.header), (1, 51, vec![]));
    let reply = frame("DescribeShards.reply").header;
    let [Number(5), Array(shards), Bool(true)] = &reply[..] else { panic!("{reply:?}") };
    let shard = |number, level, flags: [bool; 2], leader, term, rest| {
        let flags = flags.map(Bool).to_vec();
        Array([n(&[number, level]), flags, vec![leader, Number(term), Number(3)], rest].concat())
    };
    let told = [n(&[300, 299, 298]), vec![Bool(true), Bool(false), Array(vec![]), Nil]].concat();
    assert_eq!(shards[0], shard(2, 0, [false, true], Number(5), 1, told));
    let members = vec![
        Array([n(&[6, 290, 120]), vec![Bool(true)]].concat()),
        Array(vec![Number(7), Nil, Nil, Bool(false)]),
    ];
    let flags = vec![Bool(false), Bool(false)];
    let told = [n(&[300, 299, 298]), flags, vec![Array(members), Nil]].concat();
    assert_eq!(shards[1], shard(9, 1, [true, true], Number(5), 7, told));
    let told = vec![Nil, Nil, Nil, Bool(false), Bool(true), Array(vec![]), t("an old copy")];
    assert_eq!(shards[2], shard(11, 1, [true, false], Nil, 7, told));
    let hand_over = frame("HandOverShards.request");
    assert_eq!((hand_over.kind, hand_over.opcode), (1, 52));
    assert_eq!(hand_over.header, [Array(n(&[9, 11])), Number(6), Bool(true), Bool(true)]);
    let done = frame("HandOverShards.reply").header;
    assert_eq!(done, [Array(n(&[9])), Array(n(&[11]))]);
    let change = frame("ChangeReplicas.request");
    assert_eq!((change.kind, change.opcode), (1, 53));
    assert_eq!(change.header, [Array(n(&[9])), t("orders"), Number(8), Number(7), Number(0)]);
    assert_eq!(frame("ChangeReplicas.reply").header, [Array(n(&[9]))]);
}

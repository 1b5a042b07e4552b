//! Items about groups as bytes: examples for all tests of items, and golden bytes.

use grus_protocol::ids::{Durability, Generation, GroupId, MemberId, TimestampMs};
use grus_protocol::names::TopicName;

use super::coordination::{Grant, GroupChange};
use super::groups::{
    Delivered, GroupItem, HandBack, Holding, Letter, Nack, ProgressKey, RetryTerms, Settle, Span,
    redriven_places,
};
use super::*;

/// The group's topic of dead letters.
pub(crate) const LETTERS: TopicId = TopicId(9);

pub(crate) fn letters_config() -> TopicConfig {
    let name = TopicName::system("DLQ", "billing").unwrap();
    let plain = TopicConfig::plain(LETTERS, name, vec![QueueId(0)]);
    TopicConfig { durability: Durability::Replicated, kind: 3, ..plain }
}

pub(crate) fn place() -> ProgressKey {
    let queue = QueueKey { topic: TopicId(7), queue: QueueId(3) };
    ProgressKey { queue, group: GroupId(LETTERS.0) }
}

fn holding(generation: u64) -> Holding {
    let (generation, member) = (Generation(generation), MemberId(4));
    Holding { place: place(), generation, member, round: 0 }
}

fn span(from: u64, to: u64) -> Span {
    Span { from: Offset(from), to: Offset(to) }
}

fn letter(offset: u64, batch: &'static [u8]) -> Letter {
    Letter { offset: Offset(offset), batch: Bytes::from_static(batch) }
}

/// The first makes the group's topic of dead letters.
pub(crate) fn examples() -> Vec<Command> {
    let queue = place().queue;
    let terms = RetryTerms { deliveries_max: 16, ladder_ms: vec![5_000, 10_000] };
    let letters = ProgressKey { queue: QueueKey { topic: LETTERS, queue: QueueId(0) }, ..place() };
    let settle = Settle {
        holding: holding(2),
        acks: vec![span(0, 1), span(3, 4)],
        nacks: vec![Nack { offset: Offset(1), due: TimestampMs(70_000) }],
        letters_to: QueueId(0),
        letters: vec![letter(2, b"one"), letter(5, b"")],
    };
    let delivered = Delivered {
        holding: holding(2),
        end: Offset(9),
        passed: vec![span(6, 8)],
        again: vec![Offset(1)],
    };
    let change = GroupChange {
        group: place().group,
        generation: Generation(2),
        head: Some(Bytes::from_static(b"head")),
        members_set: vec![(MemberId(4), Bytes::from_static(b"four"))],
        members_gone: vec![MemberId(3)],
        grants: vec![(queue, Grant { member: MemberId(4), generation: Generation(2) })],
    };
    let nothing = GroupChange { head: None, members_set: Vec::new(), ..change.clone() };
    let group = |item| Command::Group(item);
    vec![
        Command::TopicConfig(letters_config()),
        group(GroupItem::Claim { holding: holding(2), start: Offset(0), terms }),
        group(GroupItem::Settle(settle)),
        group(GroupItem::Delivered(delivered)),
        group(GroupItem::Change(change)),
        group(GroupItem::Change(nothing)),
        group(GroupItem::Redrive {
            place: letters,
            to: queue,
            letters: vec![letter(0, b"one"), letter(1, b"two")],
        }),
        group(GroupItem::Purge { place: letters, spans: vec![span(1, 2)] }),
        group(GroupItem::Reset { place: place(), to: Offset(1) }),
        group(GroupItem::Drop { group: GroupId(77) }),
        group(GroupItem::HandBack(HandBack {
            holding: holding(2),
            unseen_from: Offset(8),
            in_work: vec![span(1, 2)],
        })),
    ]
}

fn hex(nth: usize) -> String {
    let bytes = examples()[nth].encode().concat();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[test]
fn golden_bytes_of_items_about_groups() {
    let place = "03000000 0700000000000000 0900000000000000 00000000";
    let holding = format!("{place} 0200000000000000 0400000000000000 00000000 00000000");
    let number = |number: u64| {
        let bytes = number.to_le_bytes();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    };
    let check = |nth: usize, golden: String| assert_eq!(hex(nth), golden.replace(' ', ""), "{nth}");
    let rungs = format!("{} {}", number(5_000), number(10_000));
    check(1, format!("01000000 {holding} {} 10000000 02000000 {rungs}", number(0)));
    let acks = format!("{} {} {} {}", number(0), number(1), number(3), number(4));
    let nack = format!("{} {}", number(1), number(70_000));
    let letters = format!("{} 03000000 00000000 6f6e65 {} 00000000 00000000", number(2), number(5));
    let counts = "02000000 01000000 02000000 00000000";
    check(2, format!("01000000 {holding} {counts} {acks} {nack} {letters}"));
    let passed = format!("{} {} {}", number(6), number(8), number(1));
    check(3, format!("01000000 {holding} {} 01000000 01000000 {passed}", number(9)));
    let member = format!("{} 04000000 666f7572", number(4));
    let grant = format!("{} 03000000 {} {}", number(7), number(4), number(2));
    let group = format!("{} {}", number(9), number(2));
    let counts = "01000000 01000000 01000000 00000000 68656164";
    check(4, format!("01010000 04000000 {group} {counts} {member} {} {grant}", number(3)));
    let counts = "00000000 01000000 01000000 00000000";
    check(5, format!("01000000 00000000 {group} {counts} {} {grant}", number(3)));
    let letters_place = "00000000 0900000000000000 0900000000000000 00000000";
    let letters =
        format!("{} 03000000 00000000 6f6e65 {} 03000000 00000000 74776f", number(0), number(1));
    let to = format!("{} 03000000 02000000", number(7));
    check(6, format!("01000000 {letters_place} {to} {letters}"));
    let spans = format!("{} {}", number(1), number(2));
    check(7, format!("01000000 {letters_place} 01000000 00000000 {spans}"));
    check(8, format!("01000000 {place} {}", number(1)));
    check(9, format!("01000000 00000000 {}", number(77)));
    let holding = format!("{place} 0200000000000000 0400000000000000 00000000 00000000");
    check(10, format!("01000000 {holding} {} 01000000 00000000 {spans}", number(8)));
}

#[test]
fn letters_lie_where_the_item_says() {
    let Command::Group(GroupItem::Settle(settle)) = &examples()[2] else { panic!("a settle") };
    let bytes = examples()[2].encode().concat();
    let places: Vec<usize> = settle.letter_places().map(|place| place as usize).collect();
    assert_eq!(&bytes[places[0]..places[0] + 3], b"one");
    assert_eq!(places[1], bytes.len());
    let Command::Group(GroupItem::Redrive { letters, .. }) = &examples()[6] else {
        panic!("a redrive")
    };
    let bytes = examples()[6].encode().concat();
    for (place, letter) in redriven_places(letters).zip(letters) {
        assert_eq!(&bytes[place as usize..][..3], &letter.batch[..]);
    }
}

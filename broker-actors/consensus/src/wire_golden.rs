//! The bytes of messages between members, spelled out: another build must read them. The table in
//! docs/PROTOCOL.md, ShardMessage, says the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_protocol::ids::TimestampMs;

use crate::machine::NewItem;
use crate::payload;
use crate::transfer::Chunk;
use crate::types::{
    LeaderId, Member, Membership, Payload, RaftEntry, RaftVote, SnapshotMeta, StoredMembership,
    log_id,
};
use crate::wire::{Reply, Request, VoteRequest, gather};
use openraft::entry::RaftEntry as _;

fn le64(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

fn le32(number: u32) -> [u8; 4] {
    number.to_le_bytes()
}

/// Term 3, member 2, committed.
fn vote() -> RaftVote {
    RaftVote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: true }
}

fn vote_bytes() -> Vec<u8> {
    [&le64(3)[..], &le64(2), &[1]].concat()
}

fn id_bytes(term: u64, index: u64) -> Vec<u8> {
    [&[1][..], &le64(term), &le64(index)].concat()
}

fn membership() -> Membership {
    let nodes = BTreeMap::from([(1, Member::new("a")), (2, Member::new(""))]);
    Membership::new(vec![[1, 2].into()], nodes).unwrap()
}

fn membership_bytes() -> Vec<u8> {
    let config = [&le32(1)[..], &le32(2), &le64(1), &le64(2)].concat();
    let members = [&le32(2)[..], &le64(1), &le32(1), b"a", &le64(2), &le32(0)].concat();
    [config, members].concat()
}

fn entry_bytes(code: u8, index: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let crc = crc32c::crc32c(payload);
    [&[code][..], &le64(3), &le64(index), &le32(crc), &le32(length), payload].concat()
}

#[test]
fn requests_have_these_bytes() {
    let item = NewItem::new(64, Bytes::from_static(b"body"));
    let payload = [&le64(5)[..], &le32(1), &[64, 0], &le32(4), b"body"].concat();
    let entries = vec![
        RaftEntry::new(log_id(3, 7), Payload::Blank),
        RaftEntry::new(log_id(3, 8), Payload::Membership(membership())),
        RaftEntry::new(
            log_id(3, 9),
            Payload::Normal(payload::encode(TimestampMs(5), &[item], false)),
        ),
    ];
    let stored = [&[1][..], &membership_bytes()].concat();
    let append = Request::Append { vote: vote(), prev: Some(log_id(2, 6)), commit: None, entries };
    let entries = [entry_bytes(0, 7, &[]), entry_bytes(1, 8, &stored), entry_bytes(2, 9, &payload)];
    let expected =
        [vec![1, 1], vote_bytes(), id_bytes(2, 6), vec![0], le32(3).to_vec(), entries.concat()];
    assert_eq!(gather(&append.encode()), expected.concat());

    let ask = VoteRequest { vote: vote(), last: Some(log_id(3, 9)), transfer: true };
    let expected = [vote_bytes(), id_bytes(3, 9), vec![1]].concat();
    for (request, kind) in [(Request::Vote(ask), 2), (Request::PreVote(ask), 3)] {
        assert_eq!(gather(&request.encode()), [&[1, kind][..], &expected].concat());
    }

    let last_membership = StoredMembership::new(Some(log_id(1, 4)), membership());
    let meta = SnapshotMeta { last_log_id: Some(log_id(3, 9)), last_membership };
    let body = [&le32(1)[..], &le32(1), b"k", &le32(2), b"vv"].concat();
    let chunk = Chunk { number: 7, is_last: true, digest: 11, body: body.clone().into() };
    let request = Request::Snapshot { vote: vote(), meta, chunk };
    let crc = crc32c::crc32c(&body);
    let expected = [
        vec![1, 4],
        vote_bytes(),
        id_bytes(3, 9),
        id_bytes(1, 4),
        membership_bytes(),
        le32(7).to_vec(),
        vec![1],
        le64(11).to_vec(),
        le32(crc).to_vec(),
        le32(15).to_vec(),
        body,
    ];
    assert_eq!(gather(&request.encode()), expected.concat());
    let message = request.encode();
    assert!(crate::is_install(&message) && !crate::is_install(&Request::Standing.encode()));

    let request = Request::Transfer { from: vote(), to: 9, last: None };
    let expected = [vec![1, 5], vote_bytes(), le64(9).to_vec(), vec![0]].concat();
    assert_eq!(gather(&request.encode()), expected);
    let expected = [&[1, 6][..], &le64(4)].concat();
    assert_eq!(gather(&Request::Rejoin { node: 4 }.encode()), expected);
    assert_eq!(gather(&Request::ReadIndex.encode())[..], [1, 7]);
    assert_eq!(gather(&Request::Standing.encode())[..], [1, 8]);
    assert_eq!(gather(&Request::Members.encode())[..], [1, 9]);
    assert_eq!(gather(&Request::MayLead.encode())[..], [1, 10]);
    assert_eq!(gather(&Request::IsWhole.encode())[..], [1, 11]);
    let stay = gather(&Request::Stay { term: 6 }.encode());
    assert_eq!(stay, [&[1, 12][..], &le64(6)].concat());
    let read = Request::decode(stay).unwrap();
    assert!(matches!(read, Request::Stay { term: 6 }));
}

#[test]
fn replies_have_these_bytes() {
    let last = Some(log_id(3, 9));
    let cases = [
        (Reply::Appended, vec![1]),
        (Reply::PartlyAppended(last), [vec![2], id_bytes(3, 9)].concat()),
        (Reply::Conflict, vec![3]),
        (Reply::HigherVote(vote()), [vec![4], vote_bytes()].concat()),
        (
            Reply::Vote { vote: vote(), granted: true, last: None },
            [vec![5], vote_bytes(), vec![1, 0]].concat(),
        ),
        (Reply::Installed { vote: vote() }, [vec![6], vote_bytes()].concat()),
        (Reply::Done, vec![7]),
        (Reply::ReadIndex { index: 5 }, [vec![8], le64(5).to_vec()].concat()),
        (Reply::Standing { standing: 2, durable: Some(7) }, [vec![9, 2], id_bytes(0, 7)].concat()),
        (Reply::Refused, vec![10]),
        (Reply::Wanted { number: 6 }, [vec![11], le32(6).to_vec()].concat()),
        (
            Reply::Members { membership: StoredMembership::new(Some(log_id(1, 4)), membership()) },
            [vec![12], id_bytes(1, 4), membership_bytes()].concat(),
        ),
        (Reply::Soon { wait_ms: 5 }, [vec![13], le32(5).to_vec()].concat()),
        (Reply::Damaged, vec![14]),
    ];
    for (reply, expected) in cases {
        assert_eq!(reply.encode(), [vec![1], expected].concat(), "{reply:?}");
    }
}

//! Samples of who is connected.

use bytes::Bytes;
use grus_protocol::message::{
    ClientDescription, ClientMember, ClientProducer, ClientReader, CloseProducer,
    CloseProducerReply, ListClients, ListClientsReply,
};
use grus_protocol::{
    GroupName, MemberId, Offset, ProducerEpoch, ProducerId, ProducerName, QueueId, TimestampMs,
};

use super::{BORN, pair, topic};

pub(super) fn frames(out: &mut Vec<(String, Bytes)>) {
    let producer_id = ProducerId(0x1122_3344_5566_7788);
    let close = CloseProducer { producer_id, producer_epoch: ProducerEpoch(2) };
    pair(out, &close, &CloseProducerReply {}, [b"", b""]);
    let later = |ms| TimestampMs(BORN.0 + ms);
    let named = ClientProducer {
        producer_id,
        producer_epoch: ProducerEpoch(2),
        name: ProducerName::try_from("billing").ok(),
        topic: Some(topic()),
        since: later(1),
        last_seen: later(2),
        batches: 3,
        messages: 300,
    };
    let new = ClientProducer {
        producer_id: ProducerId(9),
        producer_epoch: ProducerEpoch(0),
        name: None,
        topic: None,
        since: later(3),
        last_seen: later(3),
        batches: 0,
        messages: 0,
    };
    let reader = |queue, is_push, offset| ClientReader {
        topic: topic(),
        queue: QueueId(queue),
        is_push,
        since: later(4),
        last_seen: later(5),
        offset,
        fetches: u64::from(!is_push) * 17,
    };
    let client = ClientDescription {
        connection: 41,
        client_id: "billing-1".into(),
        software: "grus-client 0.1.0".into(),
        address: "127.0.0.1:50000".into(),
        since: BORN,
        last_seen: later(6_000),
        requests: 77,
        producers: vec![named, new],
        readers: vec![reader(1, true, None), reader(2, false, Some(Offset(1001)))],
        batches_unlisted: 5,
        fetches_unlisted: 6,
        groups: vec![ClientMember {
            group: GroupName::try_from("billing").expect("a name"),
            member: MemberId(12),
            since: later(7),
            last_seen: later(8),
        }],
    };
    let list = ListClients { after: Some(40), clients_max: 10, all: true };
    let reply = ListClientsReply { clients: vec![client], next: Some(41) };
    pair(out, &list, &reply, [b"", b""]);
}

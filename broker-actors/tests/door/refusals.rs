//! What is wrong is refused by a typed error, and costs nobody else anything.

use grus_protocol::frame::{FrameHead, encode};
use grus_protocol::ids::{QueueId, TopicId};
use grus_protocol::message::{Ping, Produce};
use grus_protocol::{ErrorCode, ErrorDetail, Opcode};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Door, DoorConfig, batch, produce, receipt};

#[actix::test]
async fn a_giant_length_is_refused_before_its_bytes_come() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let mut bytes = bytes::BytesMut::new();
    encode(FrameHead::request(Opcode::Produce, 8), &produce(), 0, &mut bytes).unwrap();
    bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    client.send(&bytes).await;
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::FrameTooLarge);
    assert!(matches!(error.detail, Some(ErrorDetail::Limit { limit, .. }) if limit == 16 << 20));
    assert!(client.frame().await.is_none());
}

#[actix::test]
async fn what_is_not_known_here_is_refused_and_the_connection_goes_on() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let mut frame = bytes::BytesMut::new();
    encode(FrameHead::request(Opcode::Ping, 8), &Ping {}, 0, &mut frame).unwrap();
    let spoilt = |at: usize, byte: u8| {
        let mut bytes = frame.to_vec();
        bytes[at] = byte;
        bytes
    };
    for (bytes, code) in [
        (spoilt(8, 99), ErrorCode::UnknownOpcode),
        (spoilt(4, 9), ErrorCode::UnsupportedVersion),
        (spoilt(6, 0x80), ErrorCode::UnsupportedFeature),
        (spoilt(24, 0xc1), ErrorCode::MalformedHeader),
    ] {
        client.send(&bytes).await;
        assert_eq!(client.raw_error().await.code, code);
        client.ask(9, &Ping {}).await;
        assert_eq!(client.frame().await.unwrap().head.correlation, 9);
    }
}

#[actix::test]
async fn a_bad_item_is_named_and_nothing_of_its_batch_is_stored() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let too_large = vec![0_u8; (4 << 20) + 1];
    client.ask_with(1, &produce(), &batch(&[b"good", &too_large, b"good"])).await;
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::MessageTooLarge);
    assert!(
        matches!(error.detail, Some(ErrorDetail::Limit { record_index: Some(1), .. })),
        "{error:?}"
    );
    let mut damaged = batch(&[b"abc"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    client.ask_with(2, &produce(), &damaged).await;
    assert_eq!(client.error().await.code, ErrorCode::BatchChecksum);
    client.ask_with(3, &produce(), b"no batch").await;
    assert_eq!(client.error().await.code, ErrorCode::MalformedBatch);
    assert!(door.produce.try_take().is_none());

    client.ask_with(4, &produce(), &batch(&[b"good"])).await;
    let (message, _credit) = door.produce.take().await.unwrap();
    message.reply.send(Ok(receipt(7)));
    assert_eq!(client.frame().await.unwrap().head.correlation, 4);
}

#[actix::test]
async fn a_wrong_queue_or_incarnation_is_typed() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let wrong_queue = Produce { queue: QueueId(1), ..produce() };
    client.ask_with(1, &wrong_queue, &batch(&[b"x"])).await;
    assert_eq!(client.error().await.code, ErrorCode::UnknownQueue);
    let stale = Produce { topic_id: TopicId(76), ..produce() };
    client.ask_with(2, &stale, &batch(&[b"x"])).await;
    assert_eq!(client.error().await.code, ErrorCode::StaleTopic);
}

#[actix::test]
async fn a_port_that_is_dropped_is_answered_as_unavailable() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    client.ask_with(1, &produce(), &batch(&[b"x"])).await;
    drop(door.produce.take().await.unwrap());
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.retriable);
    drop(door.produce);
    client.ask_with(2, &produce(), &batch(&[b"x"])).await;
    assert_eq!(client.error().await.code, ErrorCode::Unavailable, "the queue has stopped");
}

#[actix::test]
async fn noise_is_survived() {
    let mut door = Door::open(DoorConfig::default()).await;
    for seed in 0..200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut noise = vec![0_u8; 400];
        for byte in &mut noise {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[3];
        }
        if seed % 2 == 0 {
            noise[0..4].copy_from_slice(&60_u32.to_le_bytes()); // a length that may be
            noise[4] = 1;
            noise[5] = 1;
        }
        let mut client = if seed % 4 < 2 { door.client().await } else { door.stranger().await };
        client.send(&noise).await;
        let _closed_already = client.stream.shutdown().await;
        client.rest().await;
    }
    assert!(door.produce.try_take().is_none());
    assert_eq!(door.process.census.restarts_total(), 0, "no panic");
    let mut client = door.client().await;
    client.ask(1, &Ping {}).await;
    assert!(client.frame().await.is_some());
}

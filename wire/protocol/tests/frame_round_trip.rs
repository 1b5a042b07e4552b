//! Frames and headers read back, whole or in pieces.
#![allow(clippy::unwrap_used, reason = "a test may")]

use bytes::{Bytes, BytesMut};
use grus_protocol::frame::{self, RawHead, ReplyError};
use grus_protocol::message::{Fetch, Ping, Produce, ProduceReply};
use grus_protocol::{
    Durability, ErrorCode, ErrorDetail, ErrorReply, FrameError, FrameHead, FrameLimits, Offset,
    Opcode, QueueId, Term, TimestampMs, TopicId, TopicName,
};

fn produce() -> Produce {
    Produce {
        topic: TopicName::try_from("orders").unwrap(),
        topic_id: TopicId(9),
        queue: QueueId(3),
        timeout_ms: 3000,
    }
}

#[test]
fn a_frame_reads_back_even_byte_by_byte() {
    let head = FrameHead::request(Opcode::Produce, 0x1122_3344_5566_7788);
    let mut wire = BytesMut::new();
    frame::encode(head, &produce(), 4, &mut wire).unwrap();
    wire.extend_from_slice(b"body");
    frame::encode(FrameHead::request(Opcode::Ping, 2), &Ping {}, 0, &mut wire).unwrap();

    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for byte in wire {
        assert!(frame::bytes_missing(&buffer, &FrameLimits::REQUESTS) > 0);
        buffer.extend_from_slice(&[byte]);
        frames.extend(frame::decode(&mut buffer, &FrameLimits::REQUESTS).unwrap());
    }
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].head, head);
    assert_eq!(frames[0].header::<Produce>(), Ok(produce()));
    assert_eq!(frames[0].body, Bytes::from_static(b"body"));
    assert_eq!(frames[1].header::<Ping>(), Ok(Ping {}));
    assert!(frames[1].header::<Fetch>().is_err());
    assert!(buffer.is_empty());
}

#[test]
fn a_reply_is_the_message_or_the_error() {
    let request = FrameHead::request(Opcode::Produce, 77);
    let receipt = ProduceReply {
        timer: None,
        delays_from: None,
        base_offset: Offset(5),
        term: Term(1),
        stored: TimestampMs(6),
        durability: Durability::Persisted,
        duplicate: false,
    };
    let error = ErrorReply::new(ErrorCode::StorageFull, "no space").with_retry_after_ms(500);
    let mut wire = BytesMut::new();
    frame::encode(request.reply(), &receipt, 0, &mut wire).unwrap();
    frame::encode(request.error_reply(), &error, 0, &mut wire).unwrap();

    let first = frame::decode(&mut wire, &FrameLimits::REPLIES).unwrap().unwrap();
    assert_eq!(first.reply::<ProduceReply>(), Ok(receipt));
    let second = frame::decode(&mut wire, &FrameLimits::REPLIES).unwrap().unwrap();
    assert_eq!(second.head.correlation, 77);
    assert_eq!(second.reply::<ProduceReply>(), Err(ReplyError::Refused(error)));
}

#[test]
fn an_unknown_version_kind_opcode_or_flag_is_answered_and_the_next_frame_is_read() {
    let spoil: [(usize, u8, ErrorCode); 4] = [
        (4, 9, ErrorCode::UnsupportedVersion),
        (5, 0, ErrorCode::MalformedFrame),
        (6, 0x80, ErrorCode::UnsupportedFeature),
        (8, 99, ErrorCode::UnknownOpcode),
    ];
    for (at, value, code) in spoil {
        let mut wire = BytesMut::new();
        frame::encode(FrameHead::request(Opcode::Ping, 5), &Ping {}, 0, &mut wire).unwrap();
        wire[at] = value;
        frame::encode(FrameHead::request(Opcode::Ping, 6), &Ping {}, 0, &mut wire).unwrap();

        let refused = frame::decode(&mut wire, &FrameLimits::REQUESTS).unwrap_err();
        assert_eq!((refused.code(), refused.is_fatal()), (code, false));
        let mut answer = BytesMut::new();
        assert!(refused.put_reply(&mut answer));
        let head = RawHead::peek(&answer).unwrap();
        assert_eq!((head.version, head.kind, head.flags, head.correlation), (1, 2, 1, 5));
        let reply: ErrorReply = frame::decode_header(&answer[24..]).unwrap();
        assert_eq!(reply.code, code);

        let next = frame::decode(&mut wire, &FrameLimits::REQUESTS).unwrap().unwrap();
        assert_eq!(next.head.correlation, 6);
    }
}

#[test]
fn a_frame_too_long_is_known_from_its_head_alone() {
    let mut buffer = BytesMut::new();
    frame::encode(FrameHead::request(Opcode::Produce, 5), &produce(), 4, &mut buffer).unwrap();
    let whole = buffer.len() + 4;
    buffer.extend_from_slice(b"body");
    let limit = u32::try_from(whole).unwrap();
    let exact = FrameLimits { frame_bytes_max: limit, ..FrameLimits::REQUESTS };
    assert!(frame::decode(&mut buffer.clone(), &exact).unwrap().is_some());

    let less = FrameLimits { frame_bytes_max: limit - 1, ..FrameLimits::REQUESTS };
    buffer.truncate(24);
    let broken = frame::decode(&mut buffer, &less).unwrap_err();
    assert!(matches!(broken, FrameError::Broken { .. }), "{broken}");
    let reply = broken.to_reply();
    assert_eq!(reply.code, ErrorCode::FrameTooLarge);
    let bytes = whole as u64;
    let detail = ErrorDetail::limit("frame_bytes_max", bytes - 1, bytes, None);
    assert_eq!(reply.detail, Some(detail));
}

//! The encoding does not move: every sample has the bytes that are checked in under
//! `tests/golden`, and reads back from them.
//!
//! `GRUS_GOLDEN_WRITE=1 cargo test -p grus-protocol --test golden` writes the files of samples
//! that have none. It never overwrites: released bytes stay what they are.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use grus_protocol::batch::Compression;
use grus_protocol::message::{self, Request};
use grus_protocol::{ErrorReply, Frame, FrameKind, FrameLimits, Opcode, RecordBatch, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod samples;

use samples::all_limits;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let numbers: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", numbers.join(" ")).unwrap();
    }
    text
}

fn check_file(name: &str, bytes: &[u8]) {
    let path = folder().join(format!("{name}.hex"));
    if std::env::var_os("GRUS_GOLDEN_WRITE").is_some() && !path.exists() {
        std::fs::write(&path, to_hex(bytes)).unwrap();
    }
    let golden = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(to_hex(bytes), golden, "the encoding of {name} has moved");
}

fn all() -> Vec<(String, Bytes)> {
    samples::frames().into_iter().chain(samples::batches()).collect()
}

#[test]
fn every_sample_has_its_golden_bytes() {
    for (name, bytes) in all() {
        check_file(&name, &bytes);
    }
}

#[test]
fn every_golden_file_has_its_sample_and_every_opcode_its_files() {
    let files: BTreeSet<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let names = all().into_iter().map(|(name, _)| name);
    let compressed = samples::COMPRESSED.into_iter().map(|(name, _)| name.to_owned());
    let expected: BTreeSet<_> = names.chain(compressed).map(|name| format!("{name}.hex")).collect();
    assert_eq!(files, expected);
    for opcode in Opcode::ALL {
        let kinds: &[_] = if opcode.is_push() {
            &[FrameKind::Push]
        } else {
            &[FrameKind::Request, FrameKind::Reply]
        };
        for kind in kinds {
            let file = format!("{}.{kind}.hex", opcode.name());
            assert!(files.contains(&file), "{file} is missing");
        }
    }
}

/// What was compressed once stays readable; how it is compressed may change with the library.
#[test]
fn every_golden_compressed_batch_reads_as_its_plain_one() {
    let plain = RecordBatch::check(samples::similar_batch(Compression::None), &all_limits());
    let plain = plain.unwrap();
    for (name, compression) in samples::COMPRESSED {
        let path = folder().join(format!("{name}.hex"));
        if std::env::var_os("GRUS_GOLDEN_WRITE").is_some() && !path.exists() {
            std::fs::write(&path, to_hex(&samples::similar_batch(compression))).unwrap();
        }
        let hex = std::fs::read_to_string(&path).unwrap();
        let numbers = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap());
        let batch = RecordBatch::check(numbers.collect(), &all_limits()).unwrap();
        assert_eq!(batch.compression(), Ok(compression));
        assert_eq!(batch.decompressed(&all_limits()).unwrap().bytes(), plain.bytes(), "{name}");
    }
}

/// Decodes a header and encodes it again, which must give the same bytes.
fn again<T: DeserializeOwned + Serialize>(frame: &Frame) -> Vec<u8> {
    rmp_serde::to_vec(&frame.header::<T>().unwrap()).unwrap()
}

fn again_of<R: Request>(frame: &Frame) -> Vec<u8> {
    match frame.head.kind {
        FrameKind::Request => again::<R>(frame),
        _ => again::<R::Reply>(frame),
    }
}

#[test]
fn every_header_reads_back_to_the_same_bytes() {
    for (name, bytes) in samples::frames() {
        let mut buffer = BytesMut::from(&*bytes);
        let frame = frame::decode(&mut buffer, &FrameLimits::REQUESTS).unwrap().unwrap();
        assert!(buffer.is_empty(), "{name}");
        let encoded = match frame.head.opcode {
            _ if frame.head.is_error() => again::<ErrorReply>(&frame),
            Opcode::Hello => again_of::<message::Hello>(&frame),
            Opcode::Ping => again_of::<message::Ping>(&frame),
            Opcode::Metadata => again_of::<message::Metadata>(&frame),
            Opcode::InitProducer => again_of::<message::InitProducer>(&frame),
            Opcode::CloseProducer => again_of::<message::CloseProducer>(&frame),
            Opcode::Produce => again_of::<message::Produce>(&frame),
            Opcode::Fetch => again_of::<message::Fetch>(&frame),
            Opcode::ListOffsets => again_of::<message::ListOffsets>(&frame),
            Opcode::Subscribe => again_of::<message::Subscribe>(&frame),
            Opcode::Credit => again_of::<message::Credit>(&frame),
            Opcode::Seek => again_of::<message::Seek>(&frame),
            Opcode::Unsubscribe => again_of::<message::Unsubscribe>(&frame),
            Opcode::Deliver => again::<message::Deliver>(&frame),
            Opcode::FindMessages => again_of::<message::FindMessages>(&frame),
            Opcode::CreateTopic => again_of::<message::CreateTopic>(&frame),
            Opcode::AlterTopic => again_of::<message::AlterTopic>(&frame),
            Opcode::DeleteTopic => again_of::<message::DeleteTopic>(&frame),
            Opcode::DescribeTopic => again_of::<message::DescribeTopic>(&frame),
            Opcode::ListTopics => again_of::<message::ListTopics>(&frame),
            Opcode::WatchRoutes => again_of::<message::WatchRoutes>(&frame),
            Opcode::RoutesChanged => again::<message::RoutesChanged>(&frame),
            Opcode::RegisterBroker => again_of::<message::RegisterBroker>(&frame),
            Opcode::BrokerHeartbeat => again_of::<message::BrokerHeartbeat>(&frame),
            Opcode::OfferTopics => again_of::<message::OfferTopics>(&frame),
            Opcode::PlaceDeadLetters => again_of::<message::PlaceDeadLetters>(&frame),
            Opcode::LeadShards => again_of::<message::LeadShards>(&frame),
            Opcode::ListClients => again_of::<message::ListClients>(&frame),
            Opcode::DescribeShards => again_of::<message::DescribeShards>(&frame),
            Opcode::HandOverShards => again_of::<message::HandOverShards>(&frame),
            Opcode::ChangeReplicas => again_of::<message::ChangeReplicas>(&frame),
            Opcode::RecallMessage => again_of::<message::RecallMessage>(&frame),
            Opcode::ListScheduled => again_of::<message::ListScheduled>(&frame),
            Opcode::CountScheduled => again_of::<message::CountScheduled>(&frame),
            Opcode::ShowScheduled => again_of::<message::ShowScheduled>(&frame),
            Opcode::CreateSchedule => again_of::<message::CreateSchedule>(&frame),
            Opcode::ListSchedules => again_of::<message::ListSchedules>(&frame),
            Opcode::AlterSchedule => again_of::<message::AlterSchedule>(&frame),
            Opcode::DeleteSchedule => again_of::<message::DeleteSchedule>(&frame),
            Opcode::JoinGroup => again_of::<message::JoinGroup>(&frame),
            Opcode::GroupHeartbeat => again_of::<message::GroupHeartbeat>(&frame),
            Opcode::LeaveGroup => again_of::<message::LeaveGroup>(&frame),
            Opcode::AssignQueues => again_of::<message::AssignQueues>(&frame),
            Opcode::ClaimQueue => again_of::<message::ClaimQueue>(&frame),
            Opcode::AckMessages => again_of::<message::AckMessages>(&frame),
            Opcode::SubscribeGroup => again_of::<message::SubscribeGroup>(&frame),
            Opcode::GroupDeliver => again::<message::GroupDeliver>(&frame),
            Opcode::ListGroups => again_of::<message::ListGroups>(&frame),
            Opcode::DescribeGroup => again_of::<message::DescribeGroup>(&frame),
            Opcode::ResetGroup => again_of::<message::ResetGroup>(&frame),
            Opcode::DeleteGroup => again_of::<message::DeleteGroup>(&frame),
            Opcode::GroupProgress => again_of::<message::GroupProgress>(&frame),
            Opcode::RedriveDeadLetters => again_of::<message::RedriveDeadLetters>(&frame),
            Opcode::PurgeDeadLetters => again_of::<message::PurgeDeadLetters>(&frame),
            Opcode::ListDeadLetters => again_of::<message::ListDeadLetters>(&frame),
            Opcode::OpenPeer => again_of::<message::OpenPeer>(&frame),
            Opcode::ShardMessage => again_of::<message::ShardMessage>(&frame),
        };
        assert_eq!(encoded, &frame.header[..], "{name}");
    }
}

#[test]
fn every_golden_batch_passes_the_full_check() {
    for (name, bytes) in samples::batches() {
        RecordBatch::check(bytes, &samples::all_limits())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

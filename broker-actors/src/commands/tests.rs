//! Items as bytes: what is written reads back, and what is not an item is refused.

use grus_protocol::ids::{Durability, TimestampMs};
use grus_protocol::message::WhenFull;
use grus_protocol::names::{ScheduleName, TopicName};

use super::delay::ROLL_HEADER_BYTES;
use super::recurring::{ScheduleKey, ScheduleTerms};
use super::*;
use crate::schedule::{CadenceText, Step, Timing};
use crate::timers::run::RunForm;

fn joined(command: &Command) -> Bytes {
    command.encode().concat().into()
}

fn config() -> TopicConfig {
    TopicConfig {
        topic: TopicId(7),
        name: TopicName::try_from("orders").unwrap(),
        queues: vec![QueueId(0), QueueId(3)],
        durability: Durability::Replicated,
        retention_ms: 1_000,
        retention_bytes: 1 << 40,
        kind: 2,
        dedup_window_ms: 600_000,
        expired: grus_protocol::message::ExpiredPolicy::Drop,
        altered: TimestampMs(0x0102_0304_0506),
        retention_messages: 0,
        when_full: WhenFull::DropOldest,
    }
}

fn timer(index: u64) -> TimerId {
    TimerId { index, place: 48 }
}

pub(crate) fn examples() -> Vec<Command> {
    let queue = QueueKey { topic: TopicId(7), queue: QueueId(3) };
    vec![
        Command::Append { queue, batch: Bytes::from_static(b"the batch") },
        Command::TopicConfig(config()),
        Command::TopicDrop { topic: TopicId(u64::MAX) },
        Command::InitProducer { name: None, salt: 0 },
        Command::InitProducer { name: Some(ProducerName::try_from("billing").unwrap()), salt: 0 },
        Command::Retain(vec![RetainQueue { queue, start: Offset(9), bytes_given_up: 4096 }]),
        Command::AppendOnce {
            queue,
            key: DedupKey::of(b"order-7"),
            batch: Bytes::from_static(b"the batch"),
        },
        Command::Fence { producer: ProducerId(1 << 48 | 5), epoch: ProducerEpoch(3) },
        Command::Schedule(Scheduling {
            queue,
            key: None,
            due: vec![TimestampMs(70_000)],
            form: RunForm::Rows,
            batch: Bytes::from_static(b"the batch"),
        }),
        Command::Schedule(Scheduling {
            queue,
            key: Some(DedupKey::of(b"order-7")),
            due: vec![TimestampMs(1 << 40), TimestampMs(3)],
            form: RunForm::Columns,
            batch: Bytes::from_static(b"the batch"),
        }),
        Command::Release {
            queue,
            batches: vec![
                ReleasedBatch { timer: timer(260), timers: 1, batch: Bytes::from_static(b"one") },
                ReleasedBatch { timer: timer(4), timers: 2, batch: Bytes::from_static(b"two") },
            ],
        },
        Command::Recall { queue, timer: timer(4) },
        Command::Roll { queue, timer: timer(4), batch: Bytes::from_static(b"the batch") },
    ]
    .into_iter()
    .chain(recurring(queue))
    .chain(super::group_examples::examples())
    .collect()
}

fn recurring(queue: QueueKey) -> Vec<Command> {
    let key = || ScheduleKey { queue, name: ScheduleName::try_from("nightly").unwrap() };
    let cadence = CadenceText::Cron { expression: "0 3 * * *".into(), zone: "UTC".into() };
    let batch = Bytes::from_static(b"the batch");
    let terms = ScheduleTerms { cadence, made_up_max: 7, batch: batch.clone() };
    let every = ScheduleTerms { cadence: CadenceText::Every(1_000), ..terms.clone() };
    let next = TimestampMs(70_000);
    let step = Step { due: TimestampMs(69_000), next, runs: true, timing: Timing::Missed };
    let skipped = Step { runs: false, timing: Timing::LastMissed, ..step };
    vec![
        Command::Recurring(Recurring::Create { key: key(), terms, next }),
        Command::Recurring(Recurring::Create { key: key(), terms: every, next }),
        Command::Recurring(Recurring::Pause { key: key(), is_paused: true, next }),
        Command::Recurring(Recurring::Delete { key: key() }),
        Command::Recurring(Recurring::Run { key: key(), step, batch }),
        Command::Recurring(Recurring::Run { key: key(), step: skipped, batch: Bytes::new() }),
    ]
}

#[test]
fn every_command_reads_back_as_it_was_written() {
    for command in examples() {
        let bytes = joined(&command);
        assert_eq!(Command::decode(command.kind(), bytes), Ok(command));
    }
}

#[test]
fn the_batch_of_an_append_lies_untouched_behind_its_fixed_header() {
    let bytes = joined(&examples()[0]);
    assert_eq!(&bytes[APPEND_HEADER_BYTES as usize..], b"the batch");
    let bytes = joined(&examples()[6]);
    assert_eq!(&bytes[APPEND_ONCE_HEADER_BYTES as usize..], b"the batch");
}

#[test]
fn bytes_that_end_early_are_refused_at_every_length() {
    for command in examples() {
        let bytes = joined(&command);
        let least = match command {
            Command::Append { .. } => APPEND_HEADER_BYTES as usize,
            Command::AppendOnce { .. } => APPEND_ONCE_HEADER_BYTES as usize,
            Command::Roll { .. } => ROLL_HEADER_BYTES as usize,
            Command::Schedule(ref scheduling) => scheduling.header_bytes() as usize,
            Command::Recurring(Recurring::Create { ref terms, .. }) => {
                bytes.len() - terms.batch.len()
            }
            Command::Recurring(Recurring::Run { ref batch, .. }) => bytes.len() - batch.len(),
            _ => bytes.len(),
        };
        for length in 0..least {
            let cut = bytes.slice(..length);
            assert!(Command::decode(command.kind(), cut).is_err(), "{command:?} at {length}");
        }
    }
}

#[test]
fn unknown_kinds_and_versions_are_named() {
    let bytes = joined(&Command::TopicDrop { topic: TopicId(1) });
    assert_eq!(Command::decode(200, bytes.clone()), Err(CodecError::Kind(200)));
    let mut newer = bytes.to_vec();
    newer[0] = 9;
    let newer = Command::decode(KIND_TOPIC_DROP, newer.into());
    assert_eq!(newer, Err(CodecError::Version(9)));
}

#[test]
fn a_count_that_lies_allocates_nothing_and_is_refused() {
    let mut bytes = joined(&Command::Retain(Vec::new())).to_vec();
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = Command::decode(KIND_RETAIN, bytes.into());
    assert_eq!(refused, Err(CodecError::Value("queue count")));
}

#[test]
fn golden_bytes_of_the_items() {
    let hex = |command: &Command| {
        let digits = joined(command).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
        digits.concat()
    };
    let all = examples();
    assert_eq!(hex(&all[0]), "01000000030000000700000000000000746865206261746368");
    assert_eq!(
        hex(&all[1]),
        "030201000700000000000000e803000000000000000000000001000006006f7264657273\
         020000000000000003000000c0270900000000000605040302010000"
    );
    let known = |hex: &str| {
        let digits = (0..hex.len()).step_by(2);
        let bytes: Vec<u8> =
            digits.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        Command::decode(KIND_TOPIC_CONFIG, bytes.into())
    };
    let (retention_messages, when_full) = (5, WhenFull::Reject);
    let capped = TopicConfig { retention_messages, when_full, ..config() };
    let capped_version = "040201000700000000000000e803000000000000000000000001000006006f7264657273\
         020000000000000003000000c0270900000000000605040302010000050000000000000001";
    assert_eq!(known(capped_version), Ok(Command::TopicConfig(capped.clone())));
    assert_eq!(hex(&Command::TopicConfig(capped)), capped_version);
    let before = TopicConfig { altered: TimestampMs(0), ..config() };
    let second_version = "020201000700000000000000e803000000000000000000000001000006006f7264657273\
         020000000000000003000000c027090000000000";
    assert_eq!(known(second_version), Ok(Command::TopicConfig(before.clone())));
    // Digests are over the bytes that their writer made: it is written as it was read.
    assert_eq!(hex(&Command::TopicConfig(before.clone())), second_version);
    let first_version = "010201000700000000000000e803000000000000000000000001000006006f7264657273\
         020000000000000003000000";
    let known = known(first_version);
    assert_eq!(known, Ok(Command::TopicConfig(before)), "of before dedup windows");
    assert_eq!(hex(&all[2]), "0100000000000000ffffffffffffffff");
    assert_eq!(hex(&all[4]), "0101070062696c6c696e67");
    assert_eq!(
        hex(&all[5]),
        "0100000001000000070000000000000003000000090000000000000000100000 00000000"
            .replace(' ', "")
    );
    assert_eq!(
        hex(&all[6]),
        "01000000030000000700000000000000ea4f66cec037adf7dfe70b7d92549a55746865206261746368"
    );
    assert_eq!(hex(&all[7]), "01000000030000000500000000000100");
}

#[test]
fn the_first_identity_of_a_shard_has_its_salt_behind_the_flag() {
    let name = Some(ProducerName::try_from("billing").unwrap());
    let salted = Command::InitProducer { name, salt: 0x1234 };
    let bytes = joined(&salted);
    assert_eq!(&bytes[..], b"\x02\x01\x34\x12\x07\x00billing");
    assert_eq!(Command::decode(KIND_INIT_PRODUCER, bytes.clone()), Ok(salted));
    for length in 0..bytes.len() {
        assert!(Command::decode(KIND_INIT_PRODUCER, bytes.slice(..length)).is_err());
    }
    // There is one way to write each, or digests over what is written would not be the same.
    let unsalted = Bytes::from_static(b"\x02\x00\x00\x00\x00\x00");
    let refused = Command::decode(KIND_INIT_PRODUCER, unsalted);
    assert_eq!(refused, Err(CodecError::Value("salt")));
}

#[test]
fn golden_bytes_of_items_about_scheduled_messages() {
    let hex = |nth: usize| {
        let bytes = joined(&examples()[nth]);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    };
    let queue = "030000000700000000000000";
    let none = "00".repeat(16);
    let key = "ea4f66cec037adf7dfe70b7d92549a55";
    let batch = "746865206261746368";
    let one_time = "01000000000000007011010000000000";
    assert_eq!(hex(8), format!("01000000{queue}{none}{one_time}{batch}"));
    let two_times = "020000000000000000000000000100000300000000000000";
    assert_eq!(hex(9), format!("01030000{queue}{key}{two_times}{batch}"));
    let first = "04010000000000003000000001000000030000000000000 06f6e65".replace(' ', "");
    let second = "040000000000000030000000020000000300000000000000 74776f".replace(' ', "");
    assert_eq!(hex(10), format!("01000000{queue}0200000000000000{first}{second}"));
    let timer = "040000000000000030000000";
    assert_eq!(hex(11), format!("01000000{queue}{timer}"));
    assert_eq!(hex(12), format!("01000000{queue}{timer}00000000{batch}"));
}

#[test]
fn golden_bytes_of_items_about_schedules() {
    let hex = |nth: usize| {
        let bytes = joined(&examples()[nth]);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    };
    let queue = "0000030000000700000000000000";
    let batch = "746865206261746368";
    let (name, next) = ("07006e696768746c79", "7011010000000000");
    let cron = "09003020332 02a202a202a0300555443".replace(' ', "");
    let none = "0000000000000000";
    assert_eq!(
        hex(13),
        format!("0100{queue}07000000000000 00{none}{next}{name}{cron}{batch}").replace(' ', "")
    );
    assert_eq!(
        hex(14),
        format!("0101{queue}0700000000000000e803000000000000{next}{name}00000000{batch}")
    );
    assert_eq!(hex(15), format!("0101{queue}{next}{name}"));
    assert_eq!(hex(16), format!("0100{queue}{name}"));
    assert_eq!(hex(17), format!("0103{queue}880d010000000000{next}{name}{batch}"));
    assert_eq!(hex(18), format!("0106{queue}880d010000000000{next}{name}"));
    let Command::Recurring(Recurring::Run { key, .. }) = &examples()[17] else { panic!("a run") };
    let place = Recurring::run_header_bytes(key) as usize;
    assert_eq!(&joined(&examples()[17])[place..], b"the batch");
}

#[test]
fn batches_lie_where_the_item_says() {
    let Command::Release { batches, .. } = &examples()[10] else { panic!("a release") };
    let bytes = joined(&examples()[10]);
    for (place, released) in delay::release_places(batches).zip(batches) {
        assert_eq!(bytes.slice(place as usize..)[..3], released.batch[..]);
    }
    let Command::Schedule(scheduling) = &examples()[9] else { panic!("a schedule") };
    assert_eq!(&joined(&examples()[9])[scheduling.header_bytes() as usize..], b"the batch");
    assert_eq!(&joined(&examples()[12])[ROLL_HEADER_BYTES as usize..], b"the batch");
}

//! docs/PROTOCOL.md says what the code does: every opcode, error code, field, limit and example.

#![allow(clippy::unwrap_used, reason = "a test may")]

use grus_protocol::batch::bloom_of_tag;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    AckMessages, AckMessagesReply, AlterSchedule, AlterScheduleReply, AlterTopic, AlterTopicReply,
    AssignQueues, AssignTopic, AssignedQueue, BrokerHeartbeat, BrokerHeartbeatReply, BrokerState,
    ChangeReplicas, ChangeReplicasReply, ClaimQueue, ClaimQueueReply, ClientDescription,
    ClientMember, ClientProducer, ClientReader, CloseProducer, CountScheduled, CountScheduledReply,
    CreateSchedule, CreateScheduleReply, CreateTopic, CreateTopicReply, Credit, DeadLetter,
    DeadLetterPlace, DeadMark, DeleteGroup, DeleteGroupReply, DeleteSchedule, DeleteTopic,
    DeleteTopicReply, Deliver, DescribeGroup, DescribeGroupReply, DescribeShardsReply,
    DescribeTopic, DescribeTopicReply, DivideMember, DivideQueues, DivideTopic, Fetch, FetchReply,
    FetchedBatch, FindMessages, FindMessagesReply, FoundMessage, GroupDeliver, GroupHeartbeat,
    GroupHeartbeatReply, GroupMember, GroupOptions, GroupProgress, GroupProgressReply, GroupQueue,
    GroupSettings, GroupSubscription, GroupSummary, HandOverShards, HandOverShardsReply, Hello,
    HelloReply, InitProducer, InitProducerReply, JoinGroup, JoinGroupReply, LeadShards, LeaveGroup,
    LedShard, ListClients, ListClientsReply, ListDeadLetters, ListDeadLettersReply, ListGroups,
    ListGroupsReply, ListOffsets, ListOffsetsReply, ListScheduled, ListScheduledReply,
    ListSchedules, ListSchedulesReply, ListTopics, ListTopicsReply, MemberDescription, Metadata,
    MetadataReply, Nack, OfferTopics, OfferTopicsReply, OfferedQueue, OfferedTopic, OffsetRange,
    OpenPeer, OpenPeerReply, PingReply, PlaceDeadLetters, PlaceDeadLettersReply, Produce,
    ProduceReply, PurgeDeadLetters, PurgeDeadLettersReply, QueueDescription, QueuePlace,
    QueueProgress, QueueRoute, QueueSpan, RecallMessage, RecallMessageReply, Redelivered,
    RedriveDeadLetters, RedriveDeadLettersReply, RefusedTopic, RegisterBroker, RegisterBrokerReply,
    ResetGroup, ResetGroupReply, RoutesChanged, SchedulePlace, ScheduleState, Scheduled,
    ScheduledPlace, Seek, SeekReply, ShardClaim, ShardDescription, ShardMembership, ShardMessage,
    ShardState, ShowScheduled, ShowScheduledReply, Subscribe, SubscribeGroup, SubscribeGroupReply,
    SubscribeReply, Timer, TopicMetadata, TopicSettings, TopicState, TopicSummary, Unsubscribe,
    WatchRoutes, WatchRoutesReply,
};
use grus_protocol::{BatchLimits, ErrorCode, ErrorReply, FrameLimits, Opcode, limits};

const DOC: &str = include_str!("../../../docs/PROTOCOL.md");

/// The cells of each line that is a row of a table.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    DOC.lines().filter(|line| line.starts_with('|')).map(|line| {
        let inner = line.trim_start_matches('|').trim_end().trim_end_matches('|');
        inner.split('|').map(str::trim).collect()
    })
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[test]
fn every_opcode_is_listed_and_has_its_section() {
    for opcode in Opcode::ALL {
        let name = opcode.name();
        let link = format!("[`{name}`](#{})", name.to_lowercase());
        let number = opcode.number().to_string();
        assert!(rows().any(|row| row[0] == number && row[1] == link), "{name} is not listed");
        assert!(DOC.contains(&format!("\n### {name}\n")), "{name} has no section");
    }
    let listed = rows().filter(|row| row.len() > 1 && row[1].starts_with("[`")).count();
    assert_eq!(listed, Opcode::ALL.len(), "the doc lists an opcode that does not exist");
}

#[test]
fn every_error_code_is_listed_with_what_can_be_done_about_it() {
    let table: Vec<_> = rows().filter(|row| row.len() == 7 && row[0] != "code").collect();
    let table: Vec<_> = table.into_iter().filter(|row| !row[0].starts_with('-')).collect();
    let expected: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|error| {
            let yes = |is_so: bool, word, otherwise| if is_so { word } else { otherwise };
            vec![
                error.number().to_string(),
                code(error.name()),
                yes(error.is_retriable(), "yes", "no").to_owned(),
                yes(error.outcome_unknown(), "maybe", "no").to_owned(),
                yes(error.closes_connection(), "closes", "").to_owned(),
                yes(error.wants_metadata(), "ask", "").to_owned(),
            ]
        })
        .collect();
    let listed: Vec<_> = table.iter().map(|row| row[..6].to_vec()).collect();
    assert_eq!(listed, expected);
}

/// The tables of fields, in the order they stand in.
fn field_tables() -> Vec<Vec<Vec<&'static str>>> {
    let mut tables = Vec::new();
    for row in rows() {
        if row[..2] == ["#", "field"] {
            tables.push(Vec::new());
        } else if row[0].parse::<u32>().is_ok() && row.len() == 5 && row[1].starts_with('`') {
            let table: &mut Vec<_> = tables.last_mut().expect("a row before any table");
            table.push(row);
        }
    }
    tables
}

/// Each message's name, fields, and how many of them are required.
type Message = (&'static str, &'static [&'static str], usize);

macro_rules! messages {
    ($( $name:ident ),* $(,)?) => {
        &[$( (stringify!($name), $name::FIELDS, $name::FIELDS_REQUIRED) ),*]
    };
}

/// All messages, in the order in which they are documented.
const MESSAGES: &[Message] = messages![
    Hello,
    HelloReply,
    PingReply,
    Metadata,
    MetadataReply,
    BrokerAddress,
    TopicMetadata,
    QueueRoute,
    InitProducer,
    InitProducerReply,
    CloseProducer,
    Produce,
    ProduceReply,
    Fetch,
    FetchReply,
    FetchedBatch,
    ListOffsets,
    ListOffsetsReply,
    Subscribe,
    SubscribeReply,
    Credit,
    Seek,
    SeekReply,
    Unsubscribe,
    Deliver,
    FindMessages,
    FindMessagesReply,
    FoundMessage,
    CreateTopic,
    CreateTopicReply,
    TopicSettings,
    AlterTopic,
    AlterTopicReply,
    DeleteTopic,
    DeleteTopicReply,
    DescribeTopic,
    DescribeTopicReply,
    QueueDescription,
    ListTopics,
    ListTopicsReply,
    TopicSummary,
    WatchRoutes,
    WatchRoutesReply,
    RoutesChanged,
    BrokerState,
    ShardState,
    TopicState,
    QueueSpan,
    RegisterBroker,
    ShardClaim,
    ShardMembership,
    RegisterBrokerReply,
    BrokerHeartbeat,
    BrokerHeartbeatReply,
    OfferTopics,
    OfferedTopic,
    OfferedQueue,
    OfferTopicsReply,
    RefusedTopic,
    PlaceDeadLetters,
    PlaceDeadLettersReply,
    LeadShards,
    LedShard,
    ListClients,
    ListClientsReply,
    ClientDescription,
    ClientMember,
    ClientProducer,
    ClientReader,
    DescribeShardsReply,
    ShardDescription,
    MemberDescription,
    HandOverShards,
    HandOverShardsReply,
    ChangeReplicas,
    ChangeReplicasReply,
    Timer,
    RecallMessage,
    RecallMessageReply,
    ListScheduled,
    ListScheduledReply,
    ScheduledPlace,
    Scheduled,
    CountScheduled,
    CountScheduledReply,
    ShowScheduled,
    ShowScheduledReply,
    CreateSchedule,
    CreateScheduleReply,
    ListSchedules,
    ListSchedulesReply,
    SchedulePlace,
    ScheduleState,
    AlterSchedule,
    AlterScheduleReply,
    DeleteSchedule,
    GroupSettings,
    GroupOptions,
    GroupSubscription,
    JoinGroup,
    JoinGroupReply,
    GroupHeartbeat,
    QueuePlace,
    GroupHeartbeatReply,
    AssignedQueue,
    DivideQueues,
    DivideMember,
    DivideTopic,
    AssignQueues,
    AssignTopic,
    LeaveGroup,
    ClaimQueue,
    ClaimQueueReply,
    AckMessages,
    OffsetRange,
    Nack,
    DeadMark,
    AckMessagesReply,
    SubscribeGroup,
    SubscribeGroupReply,
    GroupDeliver,
    Redelivered,
    ListGroups,
    ListGroupsReply,
    GroupSummary,
    DescribeGroup,
    DescribeGroupReply,
    GroupMember,
    GroupQueue,
    ResetGroup,
    ResetGroupReply,
    DeleteGroup,
    DeleteGroupReply,
    GroupProgress,
    GroupProgressReply,
    QueueProgress,
    RedriveDeadLetters,
    RedriveDeadLettersReply,
    PurgeDeadLetters,
    PurgeDeadLettersReply,
    ListDeadLetters,
    ListDeadLettersReply,
    DeadLetterPlace,
    DeadLetter,
    OpenPeer,
    OpenPeerReply,
    ShardMessage,
    ErrorReply,
];

#[test]
fn every_field_of_every_message_is_listed_in_its_place() {
    let tables = field_tables();
    for (table, (name, fields, required)) in tables.iter().zip(MESSAGES) {
        let listed: Vec<_> = table.iter().map(|row| row[1].trim_matches('`')).collect();
        assert_eq!(listed, *fields, "{name}");
        for (at, row) in table.iter().enumerate() {
            assert_eq!(row[0], at.to_string(), "{name}");
            assert_eq!(row[3] == "required", at < *required, "{name}: {}", row[1]);
        }
    }
    assert_eq!(tables.len(), MESSAGES.len());
}

#[test]
fn every_limit_is_listed_with_its_default() {
    let batches = BatchLimits::PRODUCE;
    let expected = [
        ("frame_bytes_max", FrameLimits::REQUESTS.frame_bytes_max),
        ("header_bytes_max", FrameLimits::REQUESTS.header_bytes_max),
        ("batch_bytes_max", batches.batch_bytes_max),
        ("batch_records_max", batches.records_max),
        ("message_bytes_max", batches.message_bytes_max),
        ("headers_bytes_max", batches.headers_bytes_max),
        ("headers_max", batches.headers_max),
        ("header_name_bytes_max", batches.header_name_bytes_max),
        ("keys_max", batches.keys_max),
        ("key_bytes_max", batches.key_bytes_max),
        ("tag_bytes_max", batches.tag_bytes_max),
        ("priority_max", limits::PRIORITY_MAX.into()),
    ];
    let section = DOC.split("\n## 10. Limits").nth(1).unwrap();
    for (name, value) in expected {
        let row = format!("| `{name}` | {value} |");
        assert!(section.contains(&row), "{row} is missing");
        let in_hello = rows().find(|row| row.len() == 5 && row[1] == code(name));
        if name != "priority_max" {
            assert_eq!(in_hello.expect(name)[3], value.to_string(), "{name} in Hello");
        }
    }
}

#[test]
fn the_table_of_blooms_is_right() {
    let vectors = rows().filter(|row| row.len() == 3 && row[1].len() == 18 && row[0] != "tag");
    let mut count = 0;
    for row in vectors.filter(|row| row[1].starts_with('`')) {
        let tag = row[0].trim_matches('`');
        assert_eq!(row[2], format!("`{:016x}`", bloom_of_tag(tag)), "{tag}");
        count += 1;
    }
    assert_eq!(count, 5);
}

#[test]
fn every_example_has_the_bytes_of_its_golden_file() {
    let mut examples = 0;
    for block in DOC.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let body = rest.split("```").next().unwrap();
        // Bytes stand in front of at least three spaces, or fill the line.
        let bytes = body.lines().map(|line| line.split("   ").next().unwrap());
        let quoted = bytes.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
        let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
        let golden = std::fs::read_to_string(path).unwrap();
        let golden = golden.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(quoted, golden, "{name}");
        examples += 1;
    }
    assert_eq!(examples, 4);
}

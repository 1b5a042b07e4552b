//! The MessagePack headers: one request and one reply for each opcode.
//!
//! Each travels as an array of its fields in the order they are declared in. A field that says
//! "may be missing" has a value to fall back on when the array ends before it; elements after the
//! last known field are ignored. New fields are only ever added at the end.

use serde::Serialize;
use serde::de::DeserializeOwned;

mod clients;
mod fetch;
mod find;
mod group;
mod hello;
mod metadata;
mod peer;
mod produce;
mod registry;
mod schedule;
mod scheduled;
mod shards;
mod subscribe;
mod topic;

pub use clients::{
    CLIENTS_MAX, ClientDescription, ClientMember, ClientProducer, ClientReader, CloseProducer,
    CloseProducerReply, ListClients, ListClientsReply,
};
pub use fetch::{Fetch, FetchReply, FetchedBatch, ListAt, ListOffsets, ListOffsetsReply};
pub use find::{
    FOUND_MESSAGES_DEFAULT, FOUND_MESSAGES_MAX, FindBy, FindMessages, FindMessagesReply,
    FoundMessage,
};
pub use group::{
    ACK_MARKS_MAX, ACK_RANGES_MAX, ACK_REASONS_BYTES_MAX, AckMessages, AckMessagesReply,
    AssignQueues, AssignQueuesReply, AssignTopic, AssignedQueue, ClaimQueue, ClaimQueueReply,
    DEAD_LETTERS_PAGE_DEFAULT, DEAD_LETTERS_PAGE_MAX, DeadLetter, DeadLetterPlace, DeadMark,
    DeleteGroup, DeleteGroupReply, DescribeGroup, DescribeGroupReply, DivideMember, DivideQueues,
    DivideTopic, FilterError, GROUP_SESSION_MS_DEFAULT, GROUP_SESSION_MS_MAX, GROUP_SESSION_MS_MIN,
    GROUP_SUBSCRIPTIONS_MAX, GROUPS_PAGE_MAX, GroupDeliver, GroupHeartbeat, GroupHeartbeatReply,
    GroupMember, GroupModel, GroupOptions, GroupProgress, GroupProgressReply, GroupQueue,
    GroupSettings, GroupStrategy, GroupSubscription, GroupSummary, JoinGroup, JoinGroupReply,
    LADDER_MS_DEFAULT, LADDER_RUNGS_MAX, LeaveGroup, LeaveGroupReply, ListDeadLetters,
    ListDeadLettersReply, ListGroups, ListGroupsReply, MAX_DELIVERIES_DEFAULT, MessageFilter, Nack,
    OffsetRange, PROGRESS_PAGE_DEFAULT, PROGRESS_PAGE_MAX, PurgeDeadLetters, PurgeDeadLettersReply,
    QueuePlace, QueueProgress, REASON_BYTES_MAX, RETRY_AFTER_MS_MAX, Redelivered,
    RedriveDeadLetters, RedriveDeadLettersReply, ResetGroup, ResetGroupReply, SubscribeGroup,
    SubscribeGroupReply, TAGS_MAX, dead_letter_headers, subscription_of,
};
pub use hello::{HELLO_TEXT_BYTES_MAX, Hello, HelloReply, Ping, PingReply, features};
pub use metadata::{Metadata, MetadataReply, QueueRoute, TopicMetadata};
pub use peer::{OpenPeer, OpenPeerReply, ShardMessage, ShardMessageReply};
pub use produce::{InitProducer, InitProducerReply, NameScope, Produce, ProduceReply};
pub use registry::{
    BrokerHeartbeat, BrokerHeartbeatReply, BrokerState, HOST_BYTES_MAX, LeadShards,
    LeadShardsReply, LedShard, OfferTopics, OfferTopicsReply, OfferedQueue, OfferedTopic,
    PlaceDeadLetters, PlaceDeadLettersReply, QueueSpan, RefusedTopic, RegisterBroker,
    RegisterBrokerReply, RoutesChanged, ShardClaim, ShardMembership, ShardState, TopicState,
    WatchRoutes, WatchRoutesReply,
};
pub use schedule::{
    AlterSchedule, AlterScheduleReply, CreateSchedule, CreateScheduleReply, DeleteSchedule,
    DeleteScheduleReply, ListSchedules, ListSchedulesReply, SCHEDULE_BATCH_BYTES_MAX,
    SCHEDULE_RUNS_MAX, SCHEDULES_PAGE_DEFAULT, SCHEDULES_PAGE_MAX, SchedulePlace, ScheduleState,
    ZONE_DEFAULT,
};
pub use scheduled::{
    CountScheduled, CountScheduledReply, LATEST, ListScheduled, ListScheduledReply, RECALL_MAX,
    RecallMessage, RecallMessageReply, SCHEDULED_PAGE_DEFAULT, SCHEDULED_PAGE_MAX, Scheduled,
    ScheduledPlace, ShowScheduled, ShowScheduledReply, Timer,
};
pub use shards::{
    ChangeReplicas, ChangeReplicasReply, DescribeShards, DescribeShardsReply, HandOverShards,
    HandOverShardsReply, MemberDescription, ShardDescription,
};
pub use subscribe::{
    Credit, CreditReply, Deliver, Seek, SeekReply, Subscribe, SubscribeAt, SubscribeReply,
    Unsubscribe, UnsubscribeReply,
};
pub use topic::{
    AlterTopic, AlterTopicReply, CreateTopic, CreateTopicReply, DEDUP_WINDOW_MS_DEFAULT,
    DEDUP_WINDOW_MS_MAX, DeleteTopic, DeleteTopicReply, DescribeTopic, DescribeTopicReply,
    ExpiredPolicy, ListTopics, ListTopicsReply, QueueDescription, REPLICAS_UNNAMED,
    TEMPORARY_BYTES_DEFAULT, TopicKind, TopicSettings, TopicSummary, WhenFull,
};

use crate::opcode::Opcode;

/// A request's header, and what answers it.
pub trait Request: Serialize + DeserializeOwned {
    /// The opcode of both.
    const OPCODE: Opcode;
    /// The header of the reply.
    type Reply: Serialize + DeserializeOwned;
}

macro_rules! requests {
    ($( $request:ident => $reply:ident ),* $(,)?) => {
        $(
            impl Request for $request {
                const OPCODE: Opcode = Opcode::$request;
                type Reply = $reply;
            }
        )*
    };
}

requests! {
    Hello => HelloReply,
    Ping => PingReply,
    Metadata => MetadataReply,
    InitProducer => InitProducerReply,
    CloseProducer => CloseProducerReply,
    Produce => ProduceReply,
    Fetch => FetchReply,
    ListOffsets => ListOffsetsReply,
    Subscribe => SubscribeReply,
    Credit => CreditReply,
    Seek => SeekReply,
    Unsubscribe => UnsubscribeReply,
    FindMessages => FindMessagesReply,
    CreateTopic => CreateTopicReply,
    AlterTopic => AlterTopicReply,
    DeleteTopic => DeleteTopicReply,
    DescribeTopic => DescribeTopicReply,
    ListTopics => ListTopicsReply,
    WatchRoutes => WatchRoutesReply,
    RegisterBroker => RegisterBrokerReply,
    BrokerHeartbeat => BrokerHeartbeatReply,
    OfferTopics => OfferTopicsReply,
    PlaceDeadLetters => PlaceDeadLettersReply,
    LeadShards => LeadShardsReply,
    ListClients => ListClientsReply,
    DescribeShards => DescribeShardsReply,
    HandOverShards => HandOverShardsReply,
    ChangeReplicas => ChangeReplicasReply,
    RecallMessage => RecallMessageReply,
    ListScheduled => ListScheduledReply,
    CountScheduled => CountScheduledReply,
    ShowScheduled => ShowScheduledReply,
    CreateSchedule => CreateScheduleReply,
    ListSchedules => ListSchedulesReply,
    AlterSchedule => AlterScheduleReply,
    DeleteSchedule => DeleteScheduleReply,
    JoinGroup => JoinGroupReply,
    GroupHeartbeat => GroupHeartbeatReply,
    LeaveGroup => LeaveGroupReply,
    ClaimQueue => ClaimQueueReply,
    AckMessages => AckMessagesReply,
    SubscribeGroup => SubscribeGroupReply,
    ListGroups => ListGroupsReply,
    DescribeGroup => DescribeGroupReply,
    ResetGroup => ResetGroupReply,
    DeleteGroup => DeleteGroupReply,
    GroupProgress => GroupProgressReply,
    RedriveDeadLetters => RedriveDeadLettersReply,
    PurgeDeadLetters => PurgeDeadLettersReply,
    ListDeadLetters => ListDeadLettersReply,
    AssignQueues => AssignQueuesReply,
    OpenPeer => OpenPeerReply,
    ShardMessage => ShardMessageReply,
}

//! Who is connected to a broker.

use crate::ids::{MemberId, Offset, ProducerEpoch, ProducerId, QueueId, TimestampMs};
use crate::names::{GroupName, ProducerName, TopicName};
use crate::wire::wire_message;

/// Most clients of one answer to [`ListClients`], and how many it has when nothing was said.
pub const CLIENTS_MAX: u32 = 256;

wire_message! {
    /// Says that a producer sends no more on this connection: it is not listed any longer.
    pub struct CloseProducer {
        /// The producer.
        pub producer_id: ProducerId,
        /// Its epoch: a later life under the same name stays.
        pub producer_epoch: ProducerEpoch,
    }
}

wire_message! {
    /// It is not listed.
    pub struct CloseProducerReply {
    }
}

wire_message! {
    /// Lists those who are connected to this broker, page by page.
    pub struct ListClients {
        /// Those behind this number; nil: from the first on.
        pub after: Option<u64> = None,
        /// Most of them; 0: [`CLIENTS_MAX`], which is also the most that is given.
        pub clients_max: u32 = 0,
        /// Also those who have said nothing for the broker's session timeout, or no hello yet.
        pub all: bool = false,
    }
}

wire_message! {
    /// Some of the clients.
    pub struct ListClientsReply {
        /// In order of their connections' numbers.
        pub clients: Vec<ClientDescription>,
        /// What to ask for the next ones by; nil: these were the last.
        pub next: Option<u64> = None,
    }
}

wire_message! {
    /// One connection, and what it has shown of its client.
    pub struct ClientDescription {
        /// The connection's number, never used again by this run of the broker.
        pub connection: u64,
        /// What the client calls itself; empty before it has said hello.
        pub client_id: String,
        /// Program and version of its library.
        pub software: String,
        /// Its address and port.
        pub address: String,
        /// Since when it is connected.
        pub since: TimestampMs,
        /// When its last request came; in steps of a second.
        pub last_seen: TimestampMs,
        /// Requests it has sent.
        pub requests: u64,
        /// Its producers, as far as they are listed.
        pub producers: Vec<ClientProducer>,
        /// The queues it reads, as far as they are listed.
        pub readers: Vec<ClientReader>,
        /// Batches of producers that are not listed, being too many.
        pub batches_unlisted: u64 = 0,
        /// Fetches and subscriptions of queues that are not listed, being too many.
        pub fetches_unlisted: u64 = 0,
        /// The members of groups that are heard of over it, as far as they are listed: those of groups
        /// that this broker coordinates.
        pub groups: Vec<ClientMember> = Vec::new(),
    }
}

wire_message! {
    /// A member of a group, of a client.
    pub struct ClientMember {
        /// The group.
        pub group: GroupName,
        /// The member's id in it.
        pub member: MemberId,
        /// When it was first heard of on this connection.
        pub since: TimestampMs,
        /// When it was heard of last.
        pub last_seen: TimestampMs,
    }
}

wire_message! {
    /// A producer of a client.
    pub struct ClientProducer {
        /// Its id; 0: one without an identity.
        pub producer_id: ProducerId,
        /// Its epoch.
        pub producer_epoch: ProducerEpoch,
        /// The name by which it asked for its identity on this connection, if it did.
        pub name: Option<ProducerName>,
        /// The topic it sent to last; nil: to none yet.
        pub topic: Option<TopicName>,
        /// When it was first seen on this connection.
        pub since: TimestampMs,
        /// When it was seen last.
        pub last_seen: TimestampMs,
        /// Batches it has sent on this connection.
        pub batches: u64 = 0,
        /// Messages in them.
        pub messages: u64 = 0,
    }
}

wire_message! {
    /// A queue that a client reads.
    pub struct ClientReader {
        /// The topic.
        pub topic: TopicName,
        /// The queue.
        pub queue: QueueId,
        /// Whether it is sent by subscription; else it is fetched.
        pub is_push: bool,
        /// When it was first read on this connection.
        pub since: TimestampMs,
        /// When it was last asked for, or given credit.
        pub last_seen: TimestampMs,
        /// The offset asked for last; nil by subscription.
        pub offset: Option<Offset> = None,
        /// How often it was fetched.
        pub fetches: u64 = 0,
    }
}

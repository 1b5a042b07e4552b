//! What operators ask of brokers about their shards.

use crate::ids::{BrokerId, Durability, ShardId, Term};
use crate::names::TopicName;
use crate::wire::wire_message;

wire_message! {
    /// Asks a broker how its shards are.
    pub struct DescribeShards {}
}

wire_message! {
    /// How they are.
    pub struct DescribeShardsReply {
        /// The broker.
        pub broker: BrokerId,
        /// Its shards, those that it has alone and those that it is a member of.
        pub shards: Vec<ShardDescription>,
        /// Whether the broker is drained; nil: it is of a build that is drained until it is started again.
        pub drained: Option<bool> = None,
    }
}

wire_message! {
    /// A shard as one broker knows it.
    pub struct ShardDescription {
        /// Its number.
        pub shard: ShardId,
        /// What a receipt of it promises.
        pub durability: Durability,
        /// Whether several brokers have it.
        pub is_replicated: bool,
        /// Whether its queues are served by this broker.
        pub leads: bool,
        /// The broker that leads it, as far as this one knows.
        pub leader: Option<BrokerId>,
        /// The term of that.
        pub term: Term,
        /// Queues that this broker serves of it.
        pub queues: u32,
        /// The last entry of its log here, as index.
        pub last_index: Option<u64>,
        /// The last entry of its log here that is applied.
        pub applied_index: Option<u64>,
        /// The last entry of its log here that is on disk.
        pub synced_index: Option<u64>,
        /// Whether its disk here is full.
        pub disk_full: bool,
        /// Whether this member has forgotten what it promised, and does not vote before it has caught up.
        pub is_amnesiac: bool,
        /// The other members, where this broker leads; else nothing.
        pub members: Vec<MemberDescription>,
        /// Why this broker cannot start its member; nil: it runs. Where there is a reason the fields
        /// between this one and `is_replicated` say nothing.
        pub failed: Option<String> = None,
    }
}

wire_message! {
    /// Another member of a shard, as the leader knows it.
    pub struct MemberDescription {
        /// Its broker.
        pub broker: BrokerId,
        /// The last entry that it is known to have, as index.
        pub matched_index: Option<u64>,
        /// How long ago it last answered, in milliseconds; nil: it never did.
        pub heard_ms: Option<u64>,
        /// Whether it counts in every majority that may be needed: one that comes to be a member gets what is
        /// kept first, and does not until the change is at its end.
        pub votes: bool = true,
    }
}

wire_message! {
    /// Has a broker give shards that it leads to other members, drains it, or undoes that.
    pub struct HandOverShards {
        /// The shards; none: all that it leads.
        pub shards: Vec<ShardId>,
        /// To whom; nil: to the member that has most of the log of those that were heard of lately.
        pub to: Option<BrokerId> = None,
        /// Whether the broker is not to lead any of them again before it is started anew. With neither shards nor
        /// `to` it is drained: it leads nothing that another one can, whatever it is a member of by then, until
        /// that is undone.
        pub retire: bool = false,
        /// Whether it is drained no more. Nothing else is said then, and nothing is handed over.
        pub undo: bool = false,
    }
}

wire_message! {
    /// They are handed over, but for some.
    pub struct HandOverShardsReply {
        /// Shards that another member leads now, whoever led them before.
        pub handed_over: Vec<ShardId>,
        /// Shards that this broker still leads, or nobody: no other member could take them in time.
        pub kept: Vec<ShardId>,
    }
}

wire_message! {
    /// Has shards get other members, of whoever leads them, in their own time.
    pub struct ChangeReplicas {
        /// The shards. Where they are to grow, neither these nor a topic: all that have queues.
        pub shards: Vec<ShardId>,
        /// Beside them, those that have queues of this topic; where they are to grow, also those where
        /// groups that read these are coordinated.
        pub topic: Option<TopicName> = None,
        /// The broker that is to be a member of each; nil: none.
        pub add: Option<BrokerId> = None,
        /// The broker that is not to be one of any; nil: none.
        pub remove: Option<BrokerId> = None,
        /// How many members each is to have at least, whichever brokers are chosen, 2 to 7; 0: as `add`
        /// and `remove` say. With it, neither of these is given.
        pub replicas: u32 = 0,
    }
}

wire_message! {
    /// That is written: the leaders see to it from here on.
    pub struct ChangeReplicasReply {
        /// Shards whose members are to change now, and were not before.
        pub shards: Vec<ShardId>,
    }
}

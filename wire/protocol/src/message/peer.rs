//! Between brokers: the members of a shard's group speak with one another.

use crate::ids::{BrokerId, ShardId};
use crate::wire::wire_message;

wire_message! {
    /// A broker says who it is, and whom it means to have reached. The first request after Hello on
    /// a connection that carries [`ShardMessage`].
    pub struct OpenPeer {
        /// Who speaks.
        pub broker: BrokerId,
        /// The number of its data folder's disk.
        pub disk: u64,
        /// Whom it means.
        pub to: BrokerId,
        /// The number of that one's disk; 0: not known.
        pub to_disk: u64,
        /// Most bytes of a frame that it takes, and may send.
        pub frame_bytes_max: u32,
    }
}

wire_message! {
    /// It is the one that was meant.
    pub struct OpenPeerReply {
        /// The number of its data folder's disk.
        pub disk: u64,
        /// Most bytes of a frame that it takes.
        pub frame_bytes_max: u32,
    }
}

wire_message! {
    /// What one member of a shard's group says to another: the body, which is answered by the body
    /// of the reply.
    pub struct ShardMessage {
        /// The shard.
        pub shard: ShardId,
        /// Which group of that number: drawn when it was made, so that a group of another registry
        /// is never taken for it.
        pub group: u64,
    }
}

wire_message! {
    /// What the member answers is the body.
    pub struct ShardMessageReply {}
}

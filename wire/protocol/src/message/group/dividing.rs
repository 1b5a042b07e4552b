//! Dividing the queues of a group by a function of the program's own.

use crate::ids::{GroupId, MemberId, QueueId, TopicId};
use crate::names::{GroupName, InstanceName, TopicName};
use crate::wire::wire_message;

wire_message! {
    /// Asks a member to divide the queues of its group by a function of its program.
    pub struct DivideQueues {
        /// Which question; the answer names it.
        pub question: u64,
        /// The members, by id.
        pub members: Vec<DivideMember>,
        /// The topics, by incarnation.
        pub topics: Vec<DivideTopic>,
    }
}

wire_message! {
    /// A member among whom queues are divided.
    pub struct DivideMember {
        /// Its id.
        pub member: MemberId,
        /// Its name for itself.
        pub client_id: String,
        /// Its stable name; nil: none.
        pub instance: Option<InstanceName> = None,
    }
}

wire_message! {
    /// A topic whose queues are divided.
    pub struct DivideTopic {
        /// Its name.
        pub topic: TopicName,
        /// Its incarnation.
        pub topic_id: TopicId,
        /// The queues that are divided, ascending.
        pub queues: Vec<QueueId>,
        /// Whose each of them is now, in their order; 0: nobody's.
        pub owners: Vec<MemberId>,
        /// The members that subscribe to it, ascending: no other one may have a queue of it.
        pub members: Vec<MemberId>,
    }
}

wire_message! {
    /// A member has divided the queues of its group, as it was asked to.
    pub struct AssignQueues {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the member joined.
        pub group_id: GroupId,
        /// The member.
        pub member: MemberId,
        /// Which question it answers.
        pub question: u64,
        /// Each topic of the question; nil: it has no function for that, another one is asked.
        pub topics: Option<Vec<AssignTopic>>,
    }
}

wire_message! {
    /// Whose the queues of a topic are to be.
    pub struct AssignTopic {
        /// Its incarnation.
        pub topic_id: TopicId,
        /// One member for each of the queues of the question, in their order.
        pub members: Vec<MemberId>,
    }
}

wire_message! {
    /// It was taken, or is of no use any more.
    pub struct AssignQueuesReply {}
}

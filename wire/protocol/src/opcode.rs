//! What a frame asks for, answers, or tells.

use std::fmt;

macro_rules! opcodes {
    ($( $(#[$meta:meta])* $name:ident = $number:literal ),* $(,)?) => {
        /// An operation. The number is the wire form; it never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Opcode {
            $( $(#[$meta])* $name = $number, )*
        }

        impl Opcode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$name ),*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                self as u16
            }

            /// The operation of a number, if this version knows it.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// Its name as documented.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => stringify!($name), )*
                }
            }
        }
    };
}

opcodes! {
    /// Opens a connection: must be its first request.
    Hello = 1,
    /// Asks for a sign of life.
    Ping = 2,
    /// Asks where topics and their queues are served.
    Metadata = 3,
    /// Asks for the identity of an idempotent producer.
    InitProducer = 4,
    /// Says that a producer sends no more on this connection.
    CloseProducer = 7,
    /// Stores one record batch in one queue.
    Produce = 10,
    /// Reads record batches of one queue, waiting for them if asked to.
    Fetch = 11,
    /// Asks for the offset of a place or a time in one queue.
    ListOffsets = 12,
    /// Has the batches of one queue sent as they come, within a credit.
    Subscribe = 13,
    /// Gives a subscription more credit.
    Credit = 14,
    /// Has a subscription go on at another place.
    Seek = 15,
    /// Ends a subscription.
    Unsubscribe = 16,
    /// Brings batches to a subscription; a push.
    Deliver = 17,
    /// Looks for messages by id, key, offset or time.
    FindMessages = 18,
    /// Makes a topic.
    CreateTopic = 20,
    /// Changes a topic.
    AlterTopic = 21,
    /// Removes a topic and its messages.
    DeleteTopic = 22,
    /// Asks for all that is known of a topic.
    DescribeTopic = 23,
    /// Lists topics.
    ListTopics = 24,
    /// Asks to be told the routes, now and whenever they change.
    WatchRoutes = 25,
    /// Push: tells a change of the routes.
    RoutesChanged = 26,
    /// A broker says to a registry that it is there.
    RegisterBroker = 40,
    /// A broker says to a registry that it is still there.
    BrokerHeartbeat = 41,
    /// A broker tells a registry of topics that it does not know.
    OfferTopics = 42,
    /// A broker has a registry place the dead-letter queues of a group.
    PlaceDeadLetters = 43,
    /// A broker tells a registry which replicated shards it leads.
    LeadShards = 44,
    /// Lists who is connected to a broker.
    ListClients = 50,
    /// Asks a broker how its shards are.
    DescribeShards = 51,
    /// Has a broker give shards that it leads to other members.
    HandOverShards = 52,
    /// Has shards of several brokers get other members.
    ChangeReplicas = 53,
    /// Takes scheduled messages back.
    RecallMessage = 60,
    /// Lists what is scheduled.
    ListScheduled = 61,
    /// Counts what is scheduled.
    CountScheduled = 62,
    /// Asks for a scheduled message itself.
    ShowScheduled = 63,
    /// Makes a schedule of recurring messages.
    CreateSchedule = 64,
    /// Lists schedules.
    ListSchedules = 65,
    /// Has a schedule rest, or go on.
    AlterSchedule = 66,
    /// Removes a schedule.
    DeleteSchedule = 67,
    /// Makes a member of a group.
    JoinGroup = 70,
    /// A member of a group is still there, and asks for its queues.
    GroupHeartbeat = 71,
    /// A member leaves its group.
    LeaveGroup = 72,
    /// Makes a queue a member's, at the broker that leads it.
    ClaimQueue = 73,
    /// Says what became of messages of a claimed queue.
    AckMessages = 74,
    /// Has the messages of a claimed queue sent as they come, within a credit.
    SubscribeGroup = 75,
    /// Brings batches to a member of a group; a push.
    GroupDeliver = 76,
    /// Lists groups.
    ListGroups = 77,
    /// Asks for the members of a group and their queues.
    DescribeGroup = 78,
    /// Moves a group's progress in one queue.
    ResetGroup = 79,
    /// Removes a group.
    DeleteGroup = 80,
    /// Asks how far a group has come.
    GroupProgress = 81,
    /// Sends dead letters back to where they came from.
    RedriveDeadLetters = 82,
    /// Removes dead letters.
    PurgeDeadLetters = 83,
    /// Lists dead letters.
    ListDeadLetters = 84,
    /// A member has divided the queues of its group, as it was asked to.
    AssignQueues = 85,
    /// A broker says to another one who it is.
    OpenPeer = 100,
    /// A member of a shard's group says something to another one.
    ShardMessage = 101,
}

impl Opcode {
    /// Whether it stands in pushes: told without having been asked, and never answered.
    pub const fn is_push(self) -> bool {
        matches!(self, Self::Deliver | Self::RoutesChanged | Self::GroupDeliver)
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back_and_no_other_is_known() {
        let known: Vec<_> = (0..=u16::MAX).filter_map(Opcode::from_number).collect();
        assert_eq!(known, Opcode::ALL);
        for opcode in Opcode::ALL {
            assert_eq!(Opcode::from_number(opcode.number()), Some(*opcode));
        }
    }
}

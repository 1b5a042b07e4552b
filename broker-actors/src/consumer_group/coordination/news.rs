//! What a coordinator's decisions are told by. Pure.

use grus_protocol::ids::{Generation, MemberId};
use grus_protocol::message::{AssignedQueue, DivideQueues, GroupSettings};
use grus_protocol::names::TopicPattern;

use super::Ticket;

/// What to do after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The one with this ticket is that member now.
    Joined(Ticket, MemberId),
    /// What the one with this ticket asked is done.
    Done(Ticket),
    /// The one with this ticket is no member: another one has taken its place by its name.
    Superseded(Ticket),
    /// No member has divided the queues, as the group's strategy wants: they are, as by another one.
    DividedWithoutAnswer,
    /// Members want different messages of these topics, and what one of them does not want of its queues
    /// is passed over for the whole group.
    FiltersDiffer(TopicPattern),
    /// This member must be told its assignment, if a heartbeat of it waits.
    Changed(MemberId),
    /// This member is one no more; a heartbeat of it that waits is refused.
    Gone(MemberId),
}

/// Why a member is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMember;

/// What becomes of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// It is answered at once.
    Answer,
    /// It may wait.
    Park,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The generation of its assignment.
    pub generation: Generation,
    /// All its queues; none when they are what it knows.
    pub assigned: Option<Vec<AssignedQueue>>,
    /// How the group works, where that may be news.
    pub settings: Option<GroupSettings>,
    /// What it is to divide.
    pub divide: Option<DivideQueues>,
}

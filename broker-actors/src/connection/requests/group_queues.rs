//! Requests of members of groups about queues, to the broker that leads them.

use grus_protocol::frame::{Frame, HeaderError};
use grus_protocol::message::{
    AckMessages, ClaimQueue, GroupProgress, ListDeadLetters, PurgeDeadLetters, RedriveDeadLetters,
    ResetGroup, SubscribeGroup,
};
use grus_protocol::opcode::Opcode;

/// See the module documentation.
#[derive(Debug)]
pub enum GroupQueueRequest {
    /// A member takes a queue that it was given.
    Claim(ClaimQueue),
    /// A member has answered.
    Ack(AckMessages),
    /// A member wants what is not settled.
    Subscribe(SubscribeGroup),
    /// Asks how far a group has come.
    Progress(GroupProgress),
    /// Has a group go on elsewhere.
    Reset(ResetGroup),
    /// Sends dead letters back.
    Redrive(RedriveDeadLetters),
    /// Removes dead letters.
    Purge(PurgeDeadLetters),
    /// Lists dead letters.
    List(ListDeadLetters),
}

impl GroupQueueRequest {
    /// Reads the header of one; `None` for any other request.
    pub(super) fn decode(frame: &Frame) -> Result<Option<Self>, HeaderError> {
        Ok(Some(match frame.head.opcode {
            Opcode::ClaimQueue => Self::Claim(frame.header()?),
            Opcode::AckMessages => Self::Ack(frame.header()?),
            Opcode::SubscribeGroup => Self::Subscribe(frame.header()?),
            Opcode::GroupProgress => Self::Progress(frame.header()?),
            Opcode::ResetGroup => Self::Reset(frame.header()?),
            Opcode::RedriveDeadLetters => Self::Redrive(frame.header()?),
            Opcode::PurgeDeadLetters => Self::Purge(frame.header()?),
            Opcode::ListDeadLetters => Self::List(frame.header()?),
            _ => return Ok(None),
        }))
    }
}

//! What is answered for what became of a proposal.

use grus_consensus::{AppliedReply, ProposeError};
use grus_mailbox::Port;
use grus_protocol::ids::TopicId;

use crate::error::RegistryError;
use crate::state::Answer;

/// It is too late.
pub(super) fn refuse<T>(reply: Port<Result<T, RegistryError>>) {
    reply.send(Err(RegistryError::Stopping));
}

/// A topic id that nobody has: random, never 0.
pub(super) fn draw_topic_id() -> TopicId {
    let (high, low) = uuid::Uuid::now_v7().as_u64_pair();
    TopicId((high.rotate_left(32) ^ low).max(1))
}

pub(super) fn answer_of(result: Result<AppliedReply<Answer>, ProposeError>) -> Answer {
    match result {
        Ok(reply) => reply.replies.into_iter().next().unwrap_or_else(|| {
            Err(RegistryError::Unreadable { reason: "an entry without an answer".to_owned() })
        }),
        Err(error) => Err(match error {
            ProposeError::NotLeader { .. } => RegistryError::NotLeader,
            ProposeError::Unknown { .. } => RegistryError::OutcomeUnknown,
            ProposeError::Full => RegistryError::Busy,
            ProposeError::TooLarge { bytes, bytes_max } => RegistryError::InvalidSettings {
                reason: format!("{bytes} bytes of a command, at most {bytes_max}"),
            },
            ProposeError::Stopped | ProposeError::Fatal(_) => RegistryError::Stopping,
        }),
    }
}

/// An answer that is no success of the command asked for.
pub(super) fn unexpected(answer: Answer) -> RegistryError {
    answer.err().unwrap_or_else(|| RegistryError::Unreadable {
        reason: "an answer to another command".to_owned(),
    })
}

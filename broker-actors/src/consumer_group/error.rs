//! What a group's coordinator cannot do, as its callers are told.

use grus_protocol::error::{ErrorCode, ErrorReply};
use thiserror::Error;

use super::coordination::{AnswerRefusal, JoinRefusal};
use crate::error::QueueError;

/// How long a client waits before it asks a coordinator again that begins just now, in milliseconds.
const RETRY_AFTER_MS: u32 = 100;

/// Why a coordinator did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CoordinatorError {
    /// The shard has no leader here now.
    #[error("the group's coordinator is not ready")]
    NotLeader,
    /// The broker stops, or the group is deleted.
    #[error("the group's coordinator stops")]
    Stopping,
    /// What the log has of the group is not of this build.
    #[error("what is kept of the group cannot be read by this broker")]
    Unreadable,
    /// It is no member.
    #[error("no member of the group: join it again")]
    NoMember,
    /// It cannot be a member.
    #[error(transparent)]
    Join(#[from] JoinRefusal),
    /// What it has divided is of no use.
    #[error("{0}")]
    Answer(AnswerRefusal),
    /// It could not be written.
    #[error("not written: {0}")]
    NotWritten(QueueError),
    /// The group has members.
    #[error("the group has {members} members")]
    NotEmpty {
        /// How many.
        members: usize,
    },
}

impl CoordinatorError {
    /// As a client is told.
    #[must_use]
    pub fn to_reply(&self) -> ErrorReply {
        let text = self.to_string();
        match self {
            Self::NotLeader => {
                ErrorReply::new(ErrorCode::Unavailable, text).with_retry_after_ms(RETRY_AFTER_MS)
            }
            Self::Stopping => ErrorReply::new(ErrorCode::ShuttingDown, text),
            Self::Unreadable => ErrorReply::new(ErrorCode::Internal, text),
            Self::NoMember => ErrorReply::new(ErrorCode::UnknownMember, text),
            Self::Join(refusal) => ErrorReply::new(code_of(refusal), text),
            Self::Answer(AnswerRefusal::NoMember) => {
                ErrorReply::new(ErrorCode::UnknownMember, text)
            }
            Self::Answer(AnswerRefusal::Unusable) => {
                ErrorReply::new(ErrorCode::InvalidRequest, text)
            }
            Self::NotWritten(error) => error.to_reply(),
            Self::NotEmpty { .. } => ErrorReply::new(ErrorCode::GroupNotEmpty, text),
        }
    }
}

const fn code_of(refusal: &JoinRefusal) -> ErrorCode {
    match refusal {
        JoinRefusal::Invalid(_) => ErrorCode::InvalidRequest,
        JoinRefusal::Settings(_) => ErrorCode::InvalidSettings,
        JoinRefusal::Unserved(_) => ErrorCode::UnsupportedFeature,
        JoinRefusal::Differs => ErrorCode::SubscriptionsDiffer,
        JoinRefusal::Superseded => ErrorCode::Fenced,
        JoinRefusal::Full => ErrorCode::Overloaded,
    }
}

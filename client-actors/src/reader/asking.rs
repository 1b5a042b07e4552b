//! What a reader asks its brokers and tells them, and what a refusal for good means. No clock, no
//! I/O.

use grus_protocol::error::ErrorDetail;
use grus_protocol::{ErrorCode, Offset, QueueId};

use super::cursor::Want;
use crate::error::{ReadError, Refusal};
use crate::route::LinkId;

/// A request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asking {
    pub(crate) link: LinkId,
    pub(crate) queue: QueueId,
    pub(crate) number: u64,
    pub(crate) want: Want,
    pub(crate) ask: Ask,
}

/// How to ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// For one answer.
    Once { bytes_max: u32 },
    /// For all there is, with this credit of messages and bytes.
    Subscribe { credit: (u32, u32) },
}

/// Something to tell a broker about a subscription; it does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// More credit.
    Credit { link: LinkId, queue: QueueId, number: u64, credit: (u32, u32) },
    /// Its end.
    Leave { link: LinkId, number: u64 },
}

/// What a program is told of a refusal for good, by a queue asked for `asked`.
pub(crate) fn error_of(queue: QueueId, asked: Offset, refusal: Refusal) -> ReadError {
    match (refusal.code, &refusal.detail) {
        (ErrorCode::OffsetOutOfRange, Some(ErrorDetail::Bounds { log_start, end_offset })) => {
            let (log_start, end_offset) = (*log_start, *end_offset);
            ReadError::OffsetOutOfRange { queue, asked, log_start, end_offset }
        }
        (ErrorCode::Diverged, detail) => {
            let agreed = match detail {
                Some(ErrorDetail::Divergence { term, end_offset, .. }) => {
                    Some((*end_offset, *term))
                }
                _ => None,
            };
            ReadError::Diverged { queue, asked, agreed }
        }
        (ErrorCode::CorruptRange, _) => {
            ReadError::Damaged { queue, at: asked, reason: refusal.message }
        }
        _ => ReadError::Refused { queue, refusal },
    }
}

//! Why a frame is refused, and what is answered then.

use bytes::BytesMut;
use thiserror::Error;

use super::{FrameFlags, FrameKind, PROTOCOL_VERSION, RawHead, encode_raw};
use crate::error::{ErrorCode, ErrorDetail, ErrorReply};

/// Why a frame's bytes are not a frame this version can read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Where the next frame starts is not known any more: the connection must be closed.
    #[error("broken frame: {reason}")]
    Broken {
        /// The head that was read.
        head: RawHead,
        /// What is wrong.
        reason: BrokenFrame,
    },
    /// The frame was taken off the buffer unread; the connection is usable.
    #[error("frame refused: {reason}")]
    Refused {
        /// The head that was read.
        head: RawHead,
        /// What is wrong.
        reason: RefusedFrame,
    },
}

/// See [`FrameError::Broken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BrokenFrame {
    /// The length is less than that of an empty frame.
    #[error("length {0} is less than 20")]
    TooShort(u32),
    /// The frame is longer than the reader takes.
    #[error("{bytes} bytes, at most {limit} are taken")]
    TooLong {
        /// Bytes of the frame.
        bytes: u64,
        /// Most bytes the reader takes.
        limit: u32,
    },
}

/// See [`FrameError::Refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RefusedFrame {
    /// A version that is not spoken here.
    #[error("version {0} is not spoken here, version {PROTOCOL_VERSION} is")]
    Version(u8),
    /// A kind that does not exist.
    #[error("kind {0} does not exist")]
    Kind(u8),
    /// An operation that does not exist here.
    #[error("opcode {0} is not known here")]
    Opcode(u16),
    /// A flag that changes the meaning and is not known.
    #[error("flags {0:#06x} are not known here")]
    Flags(u16),
    /// The header is longer than the frame it is in.
    #[error("a header of {header} bytes in a frame that has {room} bytes after its head")]
    HeaderBeyondFrame {
        /// Bytes the header is said to have.
        header: u32,
        /// Bytes there are.
        room: u32,
    },
    /// The header is longer than the reader takes.
    #[error("a header of {bytes} bytes, at most {limit} are taken")]
    HeaderTooLong {
        /// Bytes of the header.
        bytes: u32,
        /// Most bytes the reader takes.
        limit: u32,
    },
}

impl FrameError {
    /// The head that was read.
    pub const fn head(&self) -> &RawHead {
        match self {
            Self::Broken { head, .. } | Self::Refused { head, .. } => head,
        }
    }

    /// Whether the connection must be closed.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Broken { .. })
    }

    /// The code to answer with.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Broken { reason: BrokenFrame::TooShort(_), .. } => ErrorCode::MalformedFrame,
            Self::Broken { reason: BrokenFrame::TooLong { .. }, .. } => ErrorCode::FrameTooLarge,
            Self::Refused { reason, .. } => match reason {
                RefusedFrame::Version(_) => ErrorCode::UnsupportedVersion,
                RefusedFrame::Opcode(_) => ErrorCode::UnknownOpcode,
                RefusedFrame::Flags(_) => ErrorCode::UnsupportedFeature,
                RefusedFrame::HeaderTooLong { .. } => ErrorCode::HeaderTooLarge,
                RefusedFrame::Kind(_) | RefusedFrame::HeaderBeyondFrame { .. } => {
                    ErrorCode::MalformedFrame
                }
            },
        }
    }

    /// The error reply to send.
    pub fn to_reply(&self) -> ErrorReply {
        let detail = match *self {
            Self::Broken { reason: BrokenFrame::TooLong { bytes, limit }, .. } => {
                Some(ErrorDetail::limit("frame_bytes_max", u64::from(limit), bytes, None))
            }
            Self::Refused { reason: RefusedFrame::HeaderTooLong { bytes, limit }, .. } => {
                Some(ErrorDetail::limit("header_bytes_max", limit.into(), bytes.into(), None))
            }
            Self::Refused { reason: RefusedFrame::Version(_), .. } => {
                Some(ErrorDetail::Versions { min: PROTOCOL_VERSION, max: PROTOCOL_VERSION })
            }
            _ => None,
        };
        ErrorReply { detail, ..ErrorReply::new(self.code(), self.to_string()) }
    }

    /// Appends the error reply to `out`, and says whether it did: a reply, a push, and a request
    /// that wants no reply are not answered.
    pub fn put_reply(&self, out: &mut BytesMut) -> bool {
        let head = self.head();
        let answers = [FrameKind::Reply.number(), FrameKind::Push.number()];
        let unanswered = FrameFlags(head.flags).contains(FrameFlags::NO_REPLY);
        if answers.contains(&head.kind) || unanswered {
            return false;
        }
        let reply = RawHead {
            version: PROTOCOL_VERSION,
            kind: FrameKind::Reply.number(),
            flags: FrameFlags::ERROR.0,
            ..*head
        };
        encode_raw(reply, &self.to_reply(), 0, out).is_ok()
    }
}

//! The fixed head of a frame.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{FRAME_HEAD_BYTES, FRAME_LENGTH_FIELD_BYTES, PROTOCOL_VERSION};
use crate::opcode::Opcode;

/// Which way a frame goes in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Asks; the correlation is the asker's to choose.
    Request = 1,
    /// Answers the request of the same correlation.
    Reply = 2,
    /// Tells without having been asked; nobody answers.
    Push = 3,
}

impl FrameKind {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind of a number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Request),
            2 => Some(Self::Reply),
            3 => Some(Self::Push),
            _ => None,
        }
    }
}

/// Flags of a frame. A reader refuses a frame with a flag of the low byte that it does not know,
/// and ignores those of the high byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FrameFlags(pub u16);

impl FrameFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// On a reply or a push: it is an error, the header is an
    /// [`ErrorReply`](crate::error::ErrorReply).
    pub const ERROR: Self = Self(1);
    /// On a request: nobody waits; it gets no reply, not even an error.
    pub const NO_REPLY: Self = Self(1 << 1);
    /// Flags a reader must know.
    pub(super) const CRITICAL: u16 = 0x00ff;
    pub(super) const KNOWN: u16 = Self::ERROR.0 | Self::NO_REPLY.0;

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a frame's fixed head says, the lengths apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Version of the frame and of its header.
    pub version: u8,
    /// Request, reply or push.
    pub kind: FrameKind,
    /// Flags.
    pub flags: FrameFlags,
    /// The operation.
    pub opcode: Opcode,
    /// Chosen by the asker, repeated in the reply.
    pub correlation: u64,
}

impl FrameHead {
    /// The head of a request.
    pub const fn request(opcode: Opcode, correlation: u64) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            kind: FrameKind::Request,
            flags: FrameFlags::NONE,
            opcode,
            correlation,
        }
    }

    /// The head of the reply to the request with this head.
    #[must_use]
    pub const fn reply(&self) -> Self {
        Self { version: PROTOCOL_VERSION, kind: FrameKind::Reply, flags: FrameFlags::NONE, ..*self }
    }

    /// The head of the error reply to the request with this head.
    #[must_use]
    pub const fn error_reply(&self) -> Self {
        Self { flags: FrameFlags::ERROR, ..self.reply() }
    }

    /// The head of a push about `correlation`.
    pub const fn push(opcode: Opcode, correlation: u64) -> Self {
        Self { kind: FrameKind::Push, ..Self::request(opcode, correlation) }
    }

    /// Whether this is a reply or a push that carries an error.
    pub const fn is_error(&self) -> bool {
        self.flags.contains(FrameFlags::ERROR)
    }

    /// Whether this is a request that wants no reply.
    pub const fn wants_no_reply(&self) -> bool {
        self.flags.contains(FrameFlags::NO_REPLY)
    }
}

/// The fixed head as it stands on the wire, nothing of it judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawHead {
    /// Bytes after the length field.
    pub length: u32,
    /// Version number.
    pub version: u8,
    /// Kind number.
    pub kind: u8,
    /// Flag bits.
    pub flags: u16,
    /// Opcode number.
    pub opcode: u16,
    /// Correlation.
    pub correlation: u64,
    /// Bytes of the MessagePack header.
    pub header_length: u32,
}

impl RawHead {
    /// Reads the head at the start of `bytes`; `None` when they are fewer than 24.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
        let [l0, l1, l2, l3, version, kind, f0, f1, o0, o1, _, _, rest @ ..] = *head;
        let [c0, c1, c2, c3, c4, c5, c6, c7, h0, h1, h2, h3] = rest;
        Some(Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            version,
            kind,
            flags: u16::from_le_bytes([f0, f1]),
            opcode: u16::from_le_bytes([o0, o1]),
            correlation: u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
            header_length: u32::from_le_bytes([h0, h1, h2, h3]),
        })
    }

    /// Bytes of the whole frame, the length field included.
    pub fn frame_bytes(&self) -> u64 {
        u64::from(self.length) + FRAME_LENGTH_FIELD_BYTES as u64
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.length);
        out.put_u8(self.version);
        out.put_u8(self.kind);
        out.put_u16_le(self.flags);
        out.put_u16_le(self.opcode);
        out.put_u16_le(0);
        out.put_u64_le(self.correlation);
        out.put_u32_le(self.header_length);
    }
}

impl From<FrameHead> for RawHead {
    fn from(head: FrameHead) -> Self {
        Self {
            length: 0,
            version: head.version,
            kind: head.kind.number(),
            flags: head.flags.0,
            opcode: head.opcode.number(),
            correlation: head.correlation,
            header_length: 0,
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Request => "request",
            Self::Reply => "reply",
            Self::Push => "push",
        })
    }
}

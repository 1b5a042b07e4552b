//! What a decoder takes at most. Each is compared before anything is allocated.

use crate::batch::{Compression, RecordAttributes};
use crate::frame::FRAME_HEAD_BYTES;

/// Default for the most bytes of one message's body: 4 MiB.
pub const MESSAGE_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Default for the most bytes of a frame, its length field included: 16 MiB.
pub const FRAME_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Default for the most bytes of a record batch: 8 MiB.
pub const BATCH_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// Default for the most bytes of a request's MessagePack header: 256 KiB.
pub const REQUEST_HEADER_BYTES_MAX: u32 = 256 * 1024;
/// Default for the most records of a batch.
pub const BATCH_RECORDS_MAX: u32 = 65_536;
/// Default for the most bytes of all headers of one message, names and values: 32 KiB.
pub const HEADERS_BYTES_MAX: u32 = 32 * 1024;
/// Default for the most headers of one message.
pub const HEADERS_MAX: u32 = 256;
/// Default for the most bytes of a header's name.
pub const HEADER_NAME_BYTES_MAX: u32 = 255;
/// Default for the most keys of one message.
pub const KEYS_MAX: u32 = 16;
/// Default for the most bytes of a key, an order key or a dedup key.
pub const KEY_BYTES_MAX: u32 = 1024;
/// Default for the most bytes of a tag or a lane.
pub const TAG_BYTES_MAX: u32 = 255;
/// The highest priority.
pub const PRIORITY_MAX: u8 = 9;

const _: () = {
    assert!(MESSAGE_BYTES_MAX + HEADERS_BYTES_MAX < BATCH_BYTES_MAX);
    assert!(BATCH_BYTES_MAX + REQUEST_HEADER_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(FRAME_HEAD_BYTES < REQUEST_HEADER_BYTES_MAX as usize);
};

/// What a reader of frames takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Most bytes of a frame, its length field included.
    pub frame_bytes_max: u32,
    /// Most bytes of a frame's MessagePack header.
    pub header_bytes_max: u32,
}

impl FrameLimits {
    /// What a broker takes from a client by default.
    pub const REQUESTS: Self =
        Self { frame_bytes_max: FRAME_BYTES_MAX, header_bytes_max: REQUEST_HEADER_BYTES_MAX };
    /// What a client takes from a broker by default: a listing of many topics is all header.
    pub const REPLIES: Self =
        Self { frame_bytes_max: FRAME_BYTES_MAX, header_bytes_max: FRAME_BYTES_MAX };
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self::REQUESTS
    }
}

/// What a batch may hold, for its builder and for whoever checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most bytes of a batch, its header included; also of what a compressed one becomes.
    pub batch_bytes_max: u32,
    /// Most records of a batch.
    pub records_max: u32,
    /// Most bytes of one message's body.
    pub message_bytes_max: u32,
    /// Most bytes of one message's headers, names and values.
    pub headers_bytes_max: u32,
    /// Most headers of one message.
    pub headers_max: u32,
    /// Most bytes of a header's name.
    pub header_name_bytes_max: u32,
    /// Most keys of one message.
    pub keys_max: u32,
    /// Most bytes of a key, an order key or a dedup key.
    pub key_bytes_max: u32,
    /// Most bytes of a tag or a lane.
    pub tag_bytes_max: u32,
    /// Record attributes that may be used. Others are known to the format but not served: a
    /// broker that ignored a due time or a time to live would break what it accepted.
    pub attributes_allowed: RecordAttributes,
    /// Compressions that may be used: bit n for compression n.
    pub compressions: u32,
}

impl BatchLimits {
    /// What a producer may send by default.
    pub const PRODUCE: Self = Self {
        batch_bytes_max: BATCH_BYTES_MAX,
        records_max: BATCH_RECORDS_MAX,
        message_bytes_max: MESSAGE_BYTES_MAX,
        headers_bytes_max: HEADERS_BYTES_MAX,
        headers_max: HEADERS_MAX,
        header_name_bytes_max: HEADER_NAME_BYTES_MAX,
        keys_max: KEYS_MAX,
        key_bytes_max: KEY_BYTES_MAX,
        tag_bytes_max: TAG_BYTES_MAX,
        attributes_allowed: RecordAttributes::PRODUCER,
        compressions: Compression::ALL_BITS,
    };

    /// Whatever the format can carry: for reading batches that a broker has accepted, under
    /// limits that may have been others than today's.
    pub const FORMAT: Self = Self {
        batch_bytes_max: u32::MAX,
        records_max: u32::MAX,
        message_bytes_max: u32::MAX,
        headers_bytes_max: u32::MAX,
        headers_max: u32::MAX,
        header_name_bytes_max: u32::MAX,
        keys_max: u32::MAX,
        key_bytes_max: u32::MAX,
        tag_bytes_max: u32::MAX,
        attributes_allowed: RecordAttributes::ALL,
        compressions: Compression::ALL_BITS,
    };
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self::PRODUCE
    }
}

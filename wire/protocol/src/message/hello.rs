//! Opening a connection, and keeping it.

use serde_bytes::ByteBuf;

use crate::batch::Compression;
use crate::error::{ErrorCode, ErrorDetail, ErrorReply};
use crate::frame::PROTOCOL_VERSION;
use crate::ids::{BrokerId, TimestampMs};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, BatchLimits, FRAME_BYTES_MAX, FrameLimits,
    HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, KEYS_MAX,
    MESSAGE_BYTES_MAX, REQUEST_HEADER_BYTES_MAX, TAG_BYTES_MAX,
};
use crate::wire::wire_message;

/// Most bytes of each text in a [`Hello`].
pub const HELLO_TEXT_BYTES_MAX: usize = 255;

/// Bits of `features`. A side uses a feature only when both have said it.
pub mod features {
    /// No optional feature.
    pub const NONE: u64 = 0;
    /// Requests may carry the flag `NO_REPLY`.
    pub const NO_REPLY: u64 = 1;
    /// The routes can be watched: `WatchRoutes` is served, and `RoutesChanged` understood.
    pub const WATCH_ROUTES: u64 = 1 << 3;
    /// What this version of the crate can speak.
    pub const KNOWN: u64 = NO_REPLY | WATCH_ROUTES;
}

wire_message! {
    /// The first request of a connection, in a frame of version 1 whatever the versions offered.
    pub struct Hello {
        /// Lowest protocol version the client speaks.
        pub version_min: u8,
        /// Highest protocol version the client speaks.
        pub version_max: u8,
        /// Optional features the client speaks, see [`features`].
        pub features: u64 = 0,
        /// Batch compressions the client can read and write: bit n for compression n.
        pub compressions: u32 = 0,
        /// The client's own name for itself, for people: logs, listings. At most 255 bytes.
        pub client_id: String = String::new(),
        /// Program and version of the client library, for people. At most 255 bytes.
        pub software: String = String::new(),
        /// Reserved for authentication; nil until then.
        pub auth: Option<ByteBuf> = None,
    }
}

impl Hello {
    /// A Hello of this crate's version.
    pub fn new(client_id: impl Into<String>, software: impl Into<String>) -> Self {
        Self {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: features::KNOWN,
            compressions: Compression::ALL_BITS,
            client_id: client_id.into(),
            software: software.into(),
            auth: None,
        }
    }

    /// Judges what the client says of itself; answers the version to speak.
    ///
    /// # Errors
    /// The error reply to send: no version in common, or a text over [`HELLO_TEXT_BYTES_MAX`].
    pub fn judge(&self) -> Result<u8, ErrorReply> {
        for (field, text) in [("client_id", &self.client_id), ("software", &self.software)] {
            if text.len() > HELLO_TEXT_BYTES_MAX || text.chars().any(char::is_control) {
                let rule = format!(
                    "{field} of Hello must have at most {HELLO_TEXT_BYTES_MAX} bytes and no \
                     control characters"
                );
                return Err(ErrorReply::new(ErrorCode::InvalidRequest, rule));
            }
        }
        self.agree().ok_or_else(|| {
            let (min, max) = (self.version_min, self.version_max);
            let text = format!("versions {min} to {max} are not spoken here");
            let known = ErrorDetail::Versions { min: PROTOCOL_VERSION, max: PROTOCOL_VERSION };
            ErrorReply::new(ErrorCode::UnsupportedVersion, text).with_detail(known)
        })
    }

    /// The version to speak: the highest that both sides know, if there is one.
    pub fn agree(&self) -> Option<u8> {
        let known = self.version_min..=self.version_max;
        known.contains(&PROTOCOL_VERSION).then_some(PROTOCOL_VERSION)
    }
}

wire_message! {
    /// The broker's answer: what was agreed on, and what the broker takes.
    pub struct HelloReply {
        /// The version of all frames from now on.
        pub version: u8,
        /// The broker.
        pub broker_id: BrokerId,
        /// Optional features both sides speak.
        pub features: u64 = 0,
        /// Batch compressions both sides speak: bit n for compression n.
        pub compressions: u32 = 0,
        /// Most bytes of a frame, its length field included.
        pub frame_bytes_max: u32 = FRAME_BYTES_MAX,
        /// Most bytes of a request's MessagePack header.
        pub header_bytes_max: u32 = REQUEST_HEADER_BYTES_MAX,
        /// Most bytes of a record batch.
        pub batch_bytes_max: u32 = BATCH_BYTES_MAX,
        /// Most records of a batch.
        pub batch_records_max: u32 = BATCH_RECORDS_MAX,
        /// Most bytes of one message's body.
        pub message_bytes_max: u32 = MESSAGE_BYTES_MAX,
        /// Most bytes of one message's headers, names and values.
        pub headers_bytes_max: u32 = HEADERS_BYTES_MAX,
        /// Most headers of one message.
        pub headers_max: u32 = HEADERS_MAX,
        /// Most bytes of a header's name.
        pub header_name_bytes_max: u32 = HEADER_NAME_BYTES_MAX,
        /// Most keys of one message.
        pub keys_max: u32 = KEYS_MAX,
        /// Most bytes of a key.
        pub key_bytes_max: u32 = KEY_BYTES_MAX,
        /// Most bytes of a tag.
        pub tag_bytes_max: u32 = TAG_BYTES_MAX,
        /// The broker closes a connection on which nothing came for so long, in milliseconds.
        pub idle_ms_max: u32 = 120_000,
        /// The broker's clock.
        pub time: TimestampMs = TimestampMs(0),
        /// Program and version of the broker, for people.
        pub software: String = String::new(),
    }
}

impl HelloReply {
    /// The answer to `hello` by a broker with these limits, in the version agreed on.
    pub fn new(
        hello: &Hello,
        version: u8,
        broker_id: BrokerId,
        frames: &FrameLimits,
        batches: &BatchLimits,
    ) -> Self {
        Self {
            version,
            broker_id,
            features: hello.features & features::KNOWN,
            compressions: hello.compressions & batches.compressions | Compression::None.bit(),
            frame_bytes_max: frames.frame_bytes_max,
            header_bytes_max: frames.header_bytes_max,
            batch_bytes_max: batches.batch_bytes_max,
            batch_records_max: batches.records_max,
            message_bytes_max: batches.message_bytes_max,
            headers_bytes_max: batches.headers_bytes_max,
            headers_max: batches.headers_max,
            header_name_bytes_max: batches.header_name_bytes_max,
            keys_max: batches.keys_max,
            key_bytes_max: batches.key_bytes_max,
            tag_bytes_max: batches.tag_bytes_max,
            idle_ms_max: 120_000,
            time: TimestampMs(0),
            software: String::new(),
        }
    }

    /// The limits a batch for this broker is built under.
    pub fn batch_limits(&self) -> BatchLimits {
        BatchLimits {
            batch_bytes_max: self.batch_bytes_max,
            records_max: self.batch_records_max,
            message_bytes_max: self.message_bytes_max,
            headers_bytes_max: self.headers_bytes_max,
            headers_max: self.headers_max,
            header_name_bytes_max: self.header_name_bytes_max,
            keys_max: self.keys_max,
            key_bytes_max: self.key_bytes_max,
            tag_bytes_max: self.tag_bytes_max,
            compressions: self.compressions,
            ..BatchLimits::PRODUCE
        }
    }
}

wire_message! {
    /// Asks for a sign of life; keeps a quiet connection open.
    pub struct Ping {}
}

wire_message! {
    /// Answers [`Ping`].
    pub struct PingReply {
        /// The broker's clock.
        pub time: TimestampMs = TimestampMs(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_common_is_agreed_on_and_others_are_named() {
        let hello = |min, max| Hello {
            version_min: min,
            version_max: max,
            ..Hello::new("client", "software")
        };
        assert_eq!(hello(1, 1).judge(), Ok(1));
        assert_eq!(hello(0, 200).judge(), Ok(1));
        for (min, max) in [(2, 9), (0, 0), (2, 0)] {
            let refused = hello(min, max).judge().unwrap_err();
            assert_eq!(refused.code, ErrorCode::UnsupportedVersion);
            assert_eq!(refused.detail, Some(ErrorDetail::Versions { min: 1, max: 1 }));
        }
    }

    #[test]
    fn texts_for_people_are_short_and_printable() {
        assert!(Hello::new("c".repeat(255), "").judge().is_ok());
        for (client_id, software) in
            [("c".repeat(256), String::new()), (String::new(), "a\nb".into())]
        {
            let refused = Hello::new(client_id, software).judge().unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidRequest);
        }
    }

    #[test]
    fn only_what_both_sides_speak_is_agreed_on() {
        let hello = Hello { features: u64::MAX, compressions: u32::MAX, ..Hello::new("", "") };
        let limits = BatchLimits { keys_max: 3, ..BatchLimits::PRODUCE };
        let reply = HelloReply::new(&hello, 1, BrokerId(7), &FrameLimits::REQUESTS, &limits);
        assert_eq!((reply.features, reply.compressions), (features::KNOWN, 0b111));
        assert_eq!(reply.batch_limits(), limits);
    }
}

//! Decodes the MessagePack header of a frame.

use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::error::{ErrorCode, ErrorReply};
use crate::names::NAME_ERROR_MARK;

/// Deepest nesting of arrays and maps in a header.
pub const HEADER_DEPTH_MAX: usize = 16;

/// Why a header is not the message it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It is not MessagePack, not an array, an element is missing or is not of its type.
    #[error("malformed header: {0}")]
    Malformed(String),
    /// A name in it breaks the rule of names.
    #[error("{0}")]
    Name(String),
    /// More bytes follow the array.
    #[error("malformed header: {0} bytes follow the array")]
    Trailing(usize),
}

impl HeaderError {
    /// The code to answer with.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed(_) | Self::Trailing(_) => ErrorCode::MalformedHeader,
            Self::Name(_) => ErrorCode::InvalidName,
        }
    }

    /// The error reply to send.
    pub fn to_reply(&self) -> ErrorReply {
        ErrorReply::new(self.code(), self.to_string())
    }
}

/// Decodes a header. Bounded: nesting by [`HEADER_DEPTH_MAX`], memory by the header's own length
/// times a small factor.
///
/// # Errors
/// When it is not the array that `T` expects.
pub fn decode_header<T: DeserializeOwned>(header: &[u8]) -> Result<T, HeaderError> {
    let mut decoder = rmp_serde::Deserializer::new(header);
    decoder.set_max_depth(HEADER_DEPTH_MAX);
    let message = T::deserialize(&mut decoder).map_err(|error| {
        let text = error.to_string();
        if text.starts_with(NAME_ERROR_MARK) {
            HeaderError::Name(text)
        } else {
            HeaderError::Malformed(text)
        }
    })?;
    match decoder.into_inner().len() {
        0 => Ok(message),
        trailing => Err(HeaderError::Trailing(trailing)),
    }
}

/// Why a reply is not the message that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// The other side answered with an error.
    #[error("{0}")]
    Refused(ErrorReply),
    /// The header could not be decoded.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

//! One part of a saved state.

use bytes::Bytes;

/// One part of a saved state: its key, and its value unless it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Names the part.
    pub key: Bytes,
    /// Its value; none if the part is gone.
    pub value: Option<Bytes>,
}

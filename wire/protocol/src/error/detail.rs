//! What a program needs to act on an error.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{BrokerAddress, Offset, Sequence, Term};

/// Travels as an array whose first element says which; one that the reader does not know reads as
/// [`ErrorDetail::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorDetail {
    /// 1: what the queue holds: offsets from `log_start` to before `end_offset`.
    Bounds {
        /// First offset there is.
        log_start: Offset,
        /// Offset the next record will get.
        end_offset: Offset,
    },
    /// 2: up to where the reader's records are the queue's: it goes on at `end_offset`, whose
    /// predecessor is of `term`.
    Divergence {
        /// The greatest term of this queue that is not above the reader's.
        term: Term,
        /// Where that term's records end.
        end_offset: Offset,
        /// First offset there is.
        log_start: Offset,
    },
    /// 3: who leads the queue, as far as this broker knows.
    Leader(BrokerAddress),
    /// 4: a limit that was broken.
    Limit {
        /// The limit's name as documented.
        name: String,
        /// Its value.
        limit: u64,
        /// What came.
        actual: u64,
        /// Index of the record in its batch, when it is about one.
        record_index: Option<u32>,
    },
    /// 5: the record that was refused.
    Record {
        /// Its index in the batch, from 0.
        record_index: u32,
    },
    /// 6: the sequence the broker expects next from this producer in this queue.
    ExpectedSequence(Sequence),
    /// 7: the protocol versions spoken here.
    Versions {
        /// Lowest.
        min: u8,
        /// Highest.
        max: u8,
    },
    /// 8: the damaged offsets: a reader may go on at `to`.
    Range {
        /// The first damaged one.
        from: Offset,
        /// The first one after them that is whole.
        to: Offset,
    },
    /// A detail this version does not know.
    Unknown(u32),
}

impl ErrorDetail {
    /// A broken limit.
    pub fn limit(name: &str, limit: u64, actual: u64, record_index: Option<u32>) -> Self {
        Self::Limit { name: name.to_owned(), limit, actual, record_index }
    }
}

impl Serialize for ErrorDetail {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bounds { log_start, end_offset } => {
                (1_u32, log_start, end_offset).serialize(output)
            }
            Self::Divergence { term, end_offset, log_start } => {
                (2_u32, term, end_offset, log_start).serialize(output)
            }
            Self::Leader(address) => (3_u32, address).serialize(output),
            Self::Limit { name, limit, actual, record_index } => {
                (4_u32, name, limit, actual, record_index).serialize(output)
            }
            Self::Record { record_index } => (5_u32, record_index).serialize(output),
            Self::ExpectedSequence(sequence) => (6_u32, sequence).serialize(output),
            Self::Versions { min, max } => (7_u32, min, max).serialize(output),
            Self::Range { from, to } => (8_u32, from, to).serialize(output),
            Self::Unknown(number) => (number,).serialize(output),
        }
    }
}

impl<'de> Deserialize<'de> for ErrorDetail {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_seq(DetailVisitor)
    }
}

struct DetailVisitor;

impl<'de> Visitor<'de> for DetailVisitor {
    type Value = ErrorDetail;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the array of ErrorDetail")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<ErrorDetail, A::Error> {
        let number: u32 = next(&mut elements)?;
        let detail = match number {
            1 => ErrorDetail::Bounds {
                log_start: next(&mut elements)?,
                end_offset: next(&mut elements)?,
            },
            2 => ErrorDetail::Divergence {
                term: next(&mut elements)?,
                end_offset: next(&mut elements)?,
                log_start: next(&mut elements)?,
            },
            3 => ErrorDetail::Leader(next(&mut elements)?),
            4 => ErrorDetail::Limit {
                name: next(&mut elements)?,
                limit: next(&mut elements)?,
                actual: next(&mut elements)?,
                record_index: next(&mut elements)?,
            },
            5 => ErrorDetail::Record { record_index: next(&mut elements)? },
            6 => ErrorDetail::ExpectedSequence(next(&mut elements)?),
            7 => ErrorDetail::Versions { min: next(&mut elements)?, max: next(&mut elements)? },
            8 => ErrorDetail::Range { from: next(&mut elements)?, to: next(&mut elements)? },
            other => ErrorDetail::Unknown(other),
        };
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(detail)
    }
}

fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(elements: &mut A) -> Result<T, A::Error> {
    elements.next_element()?.ok_or_else(|| serde::de::Error::custom("ErrorDetail is too short"))
}

//! The record batch: encoded once by the producer, checked once at the edge, stored as is and
//! sent as is.
//!
//! ```text
//!  0       1         2          4        8        12      16          24
//!  | magic | version | reserved | length | crc32c | count | born_base | born_max |
//!     u8      u8        u16        u32      u32      u32     u64         u64
//!  32            40               44           48               56          64
//!  | producer_id | producer_epoch | attributes | first_sequence | tag_bloom | records ...
//!      u64           u32              u32          u64              u64
//! ```
//!
//! All numbers are little endian. `length` is that of the whole batch; the checksum covers all
//! that follows it. A batch has no offset inside: whoever sends it says where it stands.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

mod again;
mod alone;
mod attributes;
mod bloom;
mod builder;
mod check;
mod compress;
mod cursor;
mod header;
mod record;

pub use attributes::{BatchAttributes, Compression, RecordAttributes, UnknownCompression};
pub use bloom::{bloom_of, bloom_of_tag, may_contain};
pub use builder::{BatchBuilder, NewRecord, Origin};
pub use header::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BATCH_VERSION, BatchHeader, compression_number_of,
};
pub use record::{
    Headers, Keys, PRIORITY_DEFAULT, RECORD_BYTES_MIN, Record, RecordOf, RecordView, Records,
    Views, ttl_ms_of,
};

use crate::error::{ErrorCode, ErrorDetail, ErrorReply};
use crate::ids::{ProducerEpoch, ProducerId, Sequence, TimestampMs};
use crate::limits::BatchLimits;

/// Why bytes are not a record batch that may be taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Fewer bytes than a batch header has.
    #[error("{0} bytes are too few for a record batch")]
    TooShort(usize),
    /// The first byte is not the magic one.
    #[error("magic byte {0:#04x} does not start a record batch")]
    Magic(u8),
    /// The batch is of another version.
    #[error("record batch version {0} is not known here, version {BATCH_VERSION} is")]
    Version(u8),
    /// A reserved field is not 0.
    #[error("reserved field of the batch header is {0:#06x}, not 0")]
    Reserved(u16),
    /// The length field disagrees with the bytes.
    #[error("batch says it has {declared} bytes, {actual} are there")]
    Length {
        /// What the length field says.
        declared: u32,
        /// Bytes there are.
        actual: usize,
    },
    /// A limit on the whole batch is broken.
    #[error("batch breaks {name}: {actual}, at most {limit}")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// Its value.
        limit: u64,
        /// What came.
        actual: u64,
    },
    /// The checksum is not that of the bytes.
    #[error("batch checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// What the batch says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Attribute bits are set that do not exist.
    #[error("batch attributes {0:#x} do not exist")]
    UnknownAttributes(u32),
    /// The records are compressed in a way that is not known, or was not agreed on in Hello.
    #[error("compression {0} was not agreed on")]
    Compression(u8),
    /// The compressed records are not what they should be.
    #[error("compressed records: {0}")]
    Decompression(&'static str),
    /// A batch without records.
    #[error("batch has no records")]
    Empty,
    /// The count disagrees with the records.
    #[error("batch says it has {declared} records, its bytes hold {actual}")]
    Count {
        /// What the header says.
        declared: u32,
        /// Records before the bytes end; one more than declared stands for more.
        actual: u32,
    },
    /// An epoch or a sequence without a producer id.
    #[error("producer epoch and first sequence must be 0 without a producer id")]
    Producer,
    /// The sequence of the last record is beyond 64 bits.
    #[error("sequence numbers overflow")]
    SequenceOverflow,
    /// The greatest birth time is not that of the records.
    #[error("batch says its last birth is {declared}, its records say {actual}")]
    BornMax {
        /// What the header says.
        declared: TimestampMs,
        /// What the records say.
        actual: TimestampMs,
    },
    /// The tag bloom lacks bits of a record's tag: a reader would skip the record.
    #[error("tag bloom {declared:#018x} lacks bits of the records' {actual:#018x}")]
    TagBloom {
        /// What the header says.
        declared: u64,
        /// What the records need at least.
        actual: u64,
    },
    /// The batch says that records have a time to live and none has, or the other way round:
    /// they would be delivered when they are over.
    #[error("the batch's bit of times to live is not that of its records: {actual}")]
    TtlBit {
        /// Whether a record has one.
        actual: bool,
    },
    /// A record is malformed or breaks a rule.
    #[error("record {index}: {error}")]
    Record {
        /// Its index in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        error: RecordError,
    },
}

/// Why a record may not be in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The batch has no room for it: finish the batch and put the record in the next one.
    #[error("the batch is full")]
    BatchFull,
    /// It is too long for any batch of these limits.
    #[error("{bytes} bytes do not fit any batch, at most {limit} do")]
    TooLong {
        /// Bytes of the batch with this record alone.
        bytes: u64,
        /// Most bytes of a batch.
        limit: u64,
    },
    /// A field reaches beyond the record's end.
    #[error("{field} reaches beyond the record's end")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// A number is longer than it need be, or longer than its type.
    #[error("{field} is not a number in its shortest form")]
    Number {
        /// The field.
        field: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("{field} is not UTF-8")]
    Text {
        /// The field.
        field: &'static str,
    },
    /// A field that says nothing: text of no bytes, a list of none. It should be left out.
    #[error("{field} is empty")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// A name that breaks the rule of names.
    #[error("{field} breaks the rule of names")]
    Name {
        /// The field.
        field: &'static str,
    },
    /// A time before 0 or beyond 64 bits.
    #[error("{field} is out of range")]
    Time {
        /// The field.
        field: &'static str,
    },
    /// The id is all zeros.
    #[error("the message id is nil")]
    NilId,
    /// Attribute bits are set that do not exist.
    #[error("attributes {0:#06x} do not exist")]
    UnknownAttributes(u16),
    /// Attributes are used that the limits do not allow.
    #[error("attributes {0:#06x} are not served here")]
    AttributesNotAllowed(u16),
    /// A body in a record that says it has none.
    #[error("a record without a body has {0} bytes of body")]
    BodyNotAllowed(u32),
    /// Not all records of the batch have the same dedup key, or none.
    #[error("the records of a batch have one dedup key, all the same, or none")]
    MixedDedupKeys,
    /// Some records of the batch have a time at which they are due, and some have none.
    #[error("all records of a batch have a due time or a delay, or none has")]
    MixedDueTimes,
    /// Not all records of the batch live for the same time, or for ever.
    #[error("the records of a batch have one time to live, all the same, or none")]
    MixedTtls,
    /// It has a time at which it is due, and a delay.
    #[error("a record has a due time or a delay, not both")]
    TwoDueTimes,
    /// A limit is broken.
    #[error("{name} broken: {actual}, at most {limit}")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// Its value.
        limit: u64,
        /// What came.
        actual: u64,
    },
}

impl RecordError {
    /// The code to answer with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated { .. } | Self::Number { .. } | Self::BodyNotAllowed(_) => {
                ErrorCode::MalformedBatch
            }
            Self::AttributesNotAllowed(_) => ErrorCode::UnsupportedFeature,
            Self::Limit { name, .. } if *name == MESSAGE_BYTES_LIMIT => ErrorCode::MessageTooLarge,
            Self::BatchFull | Self::TooLong { .. } => ErrorCode::BatchTooLarge,
            _ => ErrorCode::InvalidRecord,
        }
    }
}

/// The name of the limit that answers with a code of its own.
pub(crate) const MESSAGE_BYTES_LIMIT: &str = "message_bytes_max";

impl BatchError {
    /// The code to answer with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Checksum { .. } => ErrorCode::BatchChecksum,
            Self::Limit { .. } => ErrorCode::BatchTooLarge,
            Self::Compression(_) => ErrorCode::UnsupportedCompression,
            Self::Record { error, .. } => error.code(),
            _ => ErrorCode::MalformedBatch,
        }
    }

    /// The error reply to send; it names the record and the limit.
    pub fn to_reply(&self) -> ErrorReply {
        let detail = match *self {
            Self::Limit { name, limit, actual } => {
                Some(ErrorDetail::limit(name, limit, actual, None))
            }
            Self::Record { index, error: RecordError::Limit { name, limit, actual } } => {
                Some(ErrorDetail::limit(name, limit, actual, Some(index)))
            }
            Self::Record { index, .. } => Some(ErrorDetail::Record { record_index: index }),
            _ => None,
        };
        ErrorReply { detail, ..ErrorReply::new(self.code(), self.to_string()) }
    }
}

/// A record batch: its bytes and its decoded header. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    bytes: Bytes,
    header: BatchHeader,
}

impl RecordBatch {
    /// Checks everything there is to check: checksum, counts, lengths, limits, text, times, tag
    /// bloom. For bytes from a stranger; one pass, no allocation.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(bytes: Bytes, limits: &BatchLimits) -> Result<Self, BatchError> {
        Self::check_each(bytes, limits, |_| Ok(()))
    }

    /// The same, with a look at each record in the one pass, as it was before it was compressed.
    ///
    /// # Errors
    /// What is wrong first, also what `look` finds.
    pub fn check_each(
        bytes: Bytes,
        limits: &BatchLimits,
        look: impl FnMut(&RecordView<'_>) -> Result<(), RecordError>,
    ) -> Result<Self, BatchError> {
        let header = check::check(&bytes, limits, look)?;
        Ok(Self { bytes, header })
    }

    /// Decodes the header alone. For bytes that [`RecordBatch::check`] has seen and whose store
    /// vouches for them.
    ///
    /// # Errors
    /// When the header is not one, or its length is not that of the bytes.
    pub fn from_log(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::decode(&bytes)?;
        Ok(Self { bytes, header })
    }

    /// Compares the checksum with the bytes. For a reader who does not need more.
    ///
    /// # Errors
    /// When they differ.
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        check::verify_checksum(&self.bytes, &self.header)
    }

    /// The same records under another place in a producer's sequence: for a producer that had to
    /// ask for a new identity while the batch waited. Copies the batch.
    #[must_use]
    pub fn restamped(&self, id: ProducerId, epoch: ProducerEpoch, first: Sequence) -> Self {
        let mut header = self.header;
        header.producer_id = id;
        header.producer_epoch = epoch;
        header.first_sequence = first;
        let bytes = header.seal(BytesMut::from(&*self.bytes));
        Self { header: BatchHeader { checksum: header::checksum_of(&bytes), ..header }, bytes }
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::Compression`] when that is not known here.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        self.header.attributes.compression()
    }

    /// Whether the records must be [decompressed](RecordBatch::decompressed) to be read.
    pub fn is_compressed(&self) -> bool {
        self.header.attributes.compression_number() != Compression::None as u8
    }

    /// The batch with its records as they were before they were compressed; a clone that shares
    /// its bytes when they are not. The rest of the header stays what it was.
    ///
    /// # Errors
    /// [`BatchError::Limit`] when it would be longer than `batch_bytes_max`, which is judged
    /// before any memory is taken; [`BatchError::Compression`] and [`BatchError::Decompression`].
    pub fn decompressed(&self, limits: &BatchLimits) -> Result<Self, BatchError> {
        if !self.is_compressed() {
            return Ok(self.clone());
        }
        let plain = compress::decompress(&self.bytes, &self.header, limits)?;
        let attributes = self.header.attributes.with_compression(Compression::None);
        let length = u32::try_from(plain.len()).expect("a length of 32 bits was decompressed");
        let header = BatchHeader { length, attributes, ..self.header };
        let bytes = header.seal(plain);
        Ok(Self { header: BatchHeader { checksum: header::checksum_of(&bytes), ..header }, bytes })
    }

    /// The encoded batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The encoded batch, taken out.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The decoded header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of the encoded batch.
    pub fn len_bytes(&self) -> u32 {
        self.header.length
    }

    /// Number of records, at least 1.
    pub fn count(&self) -> u32 {
        self.header.count
    }

    /// Greatest birth time of the records.
    pub fn born_max(&self) -> TimestampMs {
        self.header.born_max
    }

    /// The producer; [`ProducerId::NONE`] when the batch has no sequence numbers.
    pub fn producer_id(&self) -> ProducerId {
        self.header.producer_id
    }

    /// The producer's epoch.
    pub fn producer_epoch(&self) -> ProducerEpoch {
        self.header.producer_epoch
    }

    /// The sequence of the first record; the others follow.
    pub fn first_sequence(&self) -> Sequence {
        self.header.first_sequence
    }

    /// The bloom of the records' tags, for [`may_contain`].
    pub fn tag_bloom(&self) -> u64 {
        self.header.tag_bloom
    }

    /// Whether the batch's messages are for the gray lane.
    pub fn is_gray(&self) -> bool {
        self.header.attributes.is_gray()
    }

    /// The records, each a slice of the batch that keeps it alive. Allocates nothing. After an
    /// error, which a checked batch never gives, there are no more. Those of a compressed batch
    /// are an error: ask its [decompressed](RecordBatch::decompressed) form.
    pub fn records(&self) -> Records<'_> {
        Records::new(self.views(), &self.bytes)
    }

    /// The records, borrowed: cheaper than [`RecordBatch::records`] for a look.
    pub fn views(&self) -> Views<'_> {
        Views::new(&self.bytes, &self.header)
    }
}

//! Attribute bits of a batch and of a record.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::BatchError;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    None = 0,
    /// LZ4, as one frame of its frame format: fast.
    Lz4 = 1,
    /// Zstandard, as one frame: small.
    Zstd = 2,
}

impl Compression {
    /// Its bit in the sets of compressions that Hello carries.
    pub const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// The bits of all of them.
    pub const ALL_BITS: u32 = Self::None.bit() | Self::Lz4.bit() | Self::Zstd.bit();

    /// The one with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            _ => Err(UnknownCompression),
        }
    }
}

/// A text names no compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a compression is none, lz4 or zstd")]
pub struct UnknownCompression;

/// Attributes of a batch: bits 0 to 2 compression, bit 3 gray, bit 4 time to live, the rest 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BatchAttributes(pub u32);

impl BatchAttributes {
    const COMPRESSION_MASK: u32 = 0b111;
    const GRAY: u32 = 1 << 3;
    const TTL: u32 = 1 << 4;

    /// The attributes of a batch.
    pub const fn new(is_gray: bool, compression: Compression) -> Self {
        Self(if is_gray { Self::GRAY } else { 0 } | compression as u32)
    }

    /// The same with another compression.
    #[must_use]
    pub const fn with_compression(self, compression: Compression) -> Self {
        Self(self.0 & !Self::COMPRESSION_MASK | compression as u32)
    }

    /// The same, saying whether a record has a time to live.
    #[must_use]
    pub const fn with_ttl(self, has_ttl: bool) -> Self {
        Self(self.0 & !Self::TTL | if has_ttl { Self::TTL } else { 0 })
    }

    /// Whether a record has a time to live, so that the batch may be over when it is delivered.
    pub const fn has_ttl(self) -> bool {
        self.0 & Self::TTL != 0
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::Compression`] when that is not known here.
    pub fn compression(self) -> Result<Compression, BatchError> {
        let number = self.compression_number();
        Compression::from_number(number).ok_or(BatchError::Compression(number))
    }

    /// The number of the compression.
    pub const fn compression_number(self) -> u8 {
        (self.0 & Self::COMPRESSION_MASK) as u8
    }

    /// Whether the messages are for the gray lane.
    pub const fn is_gray(self) -> bool {
        self.0 & Self::GRAY != 0
    }

    /// The bits that do not exist.
    pub const fn unknown(self) -> u32 {
        self.0 & !(Self::COMPRESSION_MASK | Self::GRAY | Self::TTL)
    }
}

/// Attributes of a record: each bit says that a field is there. The fields follow in the order of
/// the bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RecordAttributes(pub u16);

impl RecordAttributes {
    /// No attribute.
    pub const NONE: Self = Self(0);
    /// Bit 0: priority.
    pub const PRIORITY: Self = Self(1);
    /// Bit 1: due time.
    pub const DELIVER_AT: Self = Self(1 << 1);
    /// Bit 2: keys, to find the message by.
    pub const KEYS: Self = Self(1 << 2);
    /// Bit 3: tag, to filter by.
    pub const TAG: Self = Self(1 << 3);
    /// Bit 4: headers.
    pub const HEADERS: Self = Self(1 << 4);
    /// Bit 5: key of the order the message keeps with others.
    pub const ORDER_KEY: Self = Self(1 << 5);
    /// Bit 6: time to live.
    pub const TTL: Self = Self(1 << 6);
    /// Bit 7: key by which a second one is dropped.
    pub const DEDUP_KEY: Self = Self(1 << 7);
    /// Bit 8: lane.
    pub const LANE: Self = Self(1 << 8);
    /// Bit 9: how often it was delivered in vain.
    pub const RETRY_COUNT: Self = Self(1 << 9);
    /// Bit 10: the topic, queue and offset it came from.
    pub const ORIGIN: Self = Self(1 << 10);
    /// Bit 11: it has no body and removes its key from a compacted topic.
    pub const TOMBSTONE: Self = Self(1 << 11);

    /// Bit 12: fields of later versions, as one piece that a reader may skip.
    pub const EXTENSION: Self = Self(1 << 12);
    /// Bit 13: how long after it was taken it is due.
    pub const DELAY: Self = Self(1 << 13);

    /// All that exist.
    pub const ALL: Self = Self((1 << 14) - 1);
    /// Those that a producer may use today.
    pub const PRODUCER: Self = Self::PRIORITY
        .with(Self::KEYS)
        .with(Self::TAG)
        .with(Self::HEADERS)
        .with(Self::ORDER_KEY)
        .with(Self::TTL)
        .with(Self::DELIVER_AT)
        .with(Self::DELAY)
        .with(Self::DEDUP_KEY);

    /// Whether all attributes of `other` are there.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The attributes of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The attributes of `self` that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

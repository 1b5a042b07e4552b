//! Which timers of a run are over.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{CodecError, Decoder};

const VERSION: u8 = 1;

/// Which timers of a run are over: a bit for each position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    words: Vec<u64>,
    count: usize,
}

impl Done {
    /// How many are over.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether the timer at a position is over.
    #[must_use]
    pub fn contains(&self, position: usize) -> bool {
        self.words.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    /// The timer at a position is over. False when it was so already.
    pub fn insert(&mut self, position: usize) -> bool {
        if self.contains(position) {
            return false;
        }
        if self.words.len() <= position / 64 {
            self.words.resize(position / 64 + 1, 0);
        }
        self.words[position / 64] |= 1 << (position % 64);
        self.count += 1;
        true
    }

    /// The value of its part in a checkpoint; none while nothing is over.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        if self.count == 0 {
            return None;
        }
        let mut out = BytesMut::with_capacity(1 + self.words.len() * 8);
        out.put_u8(VERSION);
        self.words.iter().for_each(|word| out.put_u64_le(*word));
        Some(out.freeze())
    }

    /// Reads what [`Done::encode`] wrote, for a run of `timers`.
    ///
    /// # Errors
    /// When the bytes are not such a value.
    pub fn decode(bytes: Bytes, timers: usize) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        let bad = CodecError::Value("timers that are over");
        let mut done = Self::default();
        while decoder.left() > 0 {
            let word = decoder.u64()?;
            done.count += word.count_ones() as usize;
            done.words.push(word);
        }
        let last =
            done.words.last().map_or(0, |word| word.checked_ilog2().map_or(0, |bit| bit + 1));
        let end = done.words.len().saturating_sub(1) * 64 + last as usize;
        if last == 0 || end > timers { Err(bad) } else { Ok(done) }
    }
}

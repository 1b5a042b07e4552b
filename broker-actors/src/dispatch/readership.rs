//! What of a queue's batches a connection's client is given: not what it cannot read, and not what
//! is over.

use bytes::Bytes;
use grus_mailbox::Clock;
use grus_protocol::batch::{Compression, compression_number_of, ttl_ms_of};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::TimestampMs;

use crate::topic_queue::{Fetched, FetchedBatch};

/// A connection's client, as a reader.
#[derive(Debug, Clone, Copy)]
pub struct Readership {
    /// Compressions that it reads: bit n for compression n.
    pub compressions: u32,
    /// By which it is decided what is over.
    pub clock: Clock,
}

impl Readership {
    /// The batches up to the first one that the client cannot read; an error when that is the
    /// first. Those whose time to live is over are left without bytes.
    ///
    /// # Errors
    /// The error reply to send.
    pub fn given(&self, fetched: Fetched) -> Result<Fetched, ErrorReply> {
        self.given_but(fetched, &|_| false)
    }

    /// The same, but batches that somebody has in his hands already have no end.
    ///
    /// # Errors
    /// As [`Readership::given`].
    pub fn given_but(
        &self,
        mut fetched: Fetched,
        in_hands: &dyn Fn(&FetchedBatch) -> bool,
    ) -> Result<Fetched, ErrorReply> {
        let now = self.clock.now();
        for batch in &mut fetched.batches {
            if is_over(batch, now) && !in_hands(batch) {
                batch.bytes = Bytes::new();
            }
        }
        if self.compressions == Compression::ALL_BITS {
            return Ok(fetched);
        }
        let unreadable = fetched
            .batches
            .iter()
            .position(|batch| (1 << compression_number_of(&batch.bytes)) & self.compressions == 0);
        match unreadable {
            None => Ok(fetched),
            Some(0) => {
                let first = &fetched.batches[0];
                let number = compression_number_of(&first.bytes);
                let text = format!(
                    "the batch at offset {} has compression {number}, which this connection did \
                     not agree on in Hello",
                    first.base_offset
                );
                Err(ErrorReply::new(ErrorCode::UnsupportedCompression, text))
            }
            Some(count) => {
                fetched.batches.truncate(count);
                Ok(fetched)
            }
        }
    }
}

fn is_over(batch: &FetchedBatch, now: TimestampMs) -> bool {
    ttl_ms_of(&batch.bytes).is_some_and(|ttl_ms| now.0 >= batch.stored.0.saturating_add(ttl_ms))
}

#[cfg(test)]
mod tests {
    use grus_protocol::batch::{BatchBuilder, NewRecord};
    use grus_protocol::ids::{MessageId, Offset, Term};
    use grus_protocol::limits::BatchLimits;

    use super::*;

    fn batch(ttl_ms: Option<u64>, compression: Compression) -> FetchedBatch {
        let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
        for _ in 0..20 {
            let id = MessageId::from_bytes([7; 16]);
            let body = "much alike, and so compressed";
            let record = NewRecord { ttl_ms, ..NewRecord::new(id, TimestampMs(1), body) };
            builder.push(&record).expect("the format has room for it");
        }
        builder.compress(compression);
        let (base_offset, term, stored) = (Offset(3), Term(1), TimestampMs(1_000));
        FetchedBatch { base_offset, count: 20, term, stored, bytes: builder.finish() }
    }

    #[test]
    fn a_batch_is_over_when_its_time_is_and_not_before() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let one = batch(Some(500), compression);
            assert!(!is_over(&one, TimestampMs(1_499)));
            assert!(is_over(&one, TimestampMs(1_500)));
            assert!(!is_over(&batch(None, compression), TimestampMs(u64::MAX)));
            assert!(!is_over(&batch(Some(u64::MAX), compression), TimestampMs(1 << 60)));
        }
        assert!(is_over(&batch(Some(0), Compression::None), TimestampMs(1_000)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_keeps_its_place_and_needs_no_codec() {
        let clock = Clock::simulated(TimestampMs(2_000));
        let plain_only = Readership { compressions: Compression::None.bit(), clock };
        let batches = vec![
            batch(Some(10), Compression::Zstd),
            batch(None, Compression::None),
            batch(None, Compression::Zstd),
        ];
        let (log_start, end_offset) = (Offset(0), Offset(63));
        let given = plain_only.given(Fetched { log_start, end_offset, batches }).unwrap();
        let bytes: Vec<_> = given.batches.iter().map(|one| one.bytes.is_empty()).collect();
        assert_eq!(bytes, [true, false], "over; readable; the third cannot be read");
        assert_eq!(given.batches[0].count, 20);
        let fetched = Fetched { batches: vec![batch(Some(10), Compression::None)], ..given };
        let kept = plain_only.given_but(fetched, &|batch| batch.base_offset == Offset(3)).unwrap();
        assert!(!kept.batches[0].is_over(), "somebody has it in his hands");
    }
}

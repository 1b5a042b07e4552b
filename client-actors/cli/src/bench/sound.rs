//! Whether what was read is what `bench produce` sent: every body whole, none left out or doubled.
//!
//! A batch of the load holds consecutive sequences, and a queue consecutive offsets; a topic may have
//! been filled several times over, each time from the same sequence on, so nothing more can be asked.

use std::collections::HashMap;

use grus_client::{DeliveredBatch, Offset, QueueId};

use super::body;

/// How far each queue was read.
#[derive(Debug, Default)]
pub struct Sound {
    next: HashMap<QueueId, Offset>,
}

impl Sound {
    /// Looks at the next batch; answers its messages and the bytes of their bodies.
    ///
    /// # Errors
    /// What is wrong with which message.
    pub fn look(&mut self, batch: &DeliveredBatch) -> Result<(u64, u64), String> {
        self.take((batch.queue, batch.len()), batch.views(), |record| record.body())
    }

    fn take<R>(
        &mut self,
        (queue, count): (QueueId, usize),
        records: impl Iterator<Item = (Offset, R)>,
        body_of: impl Fn(&R) -> &[u8],
    ) -> Result<(u64, u64), String> {
        let (mut messages, mut bytes, mut due) = (0, 0, None);
        for (offset, record) in records {
            let body = body_of(&record);
            let at = || format!("queue {queue} offset {offset}");
            let Some(sequence) = body::check(body) else {
                return Err(format!("{}: a body is not as it was sent", at()));
            };
            if due.is_some_and(|due| due != sequence) {
                return Err(format!("{}: sequence {sequence} where another is due", at()));
            }
            if self.next.get(&queue).is_some_and(|next| *next != offset && messages == 0) {
                return Err(format!("{}: not the one behind the last", at()));
            }
            due = Some(sequence + 1);
            messages += 1;
            bytes += body.len() as u64;
            if messages == count as u64 {
                self.next.insert(queue, Offset(offset.0 + 1));
            }
        }
        if messages == count as u64 {
            return Ok((messages, bytes));
        }
        Err(format!("queue {queue}: a batch of {count} messages has {messages}"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::body::Bodies;
    use super::*;

    fn taken(sound: &mut Sound, from: u64, bodies: &[Bytes]) -> Result<(u64, u64), String> {
        let offsets = (from..).map(Offset);
        sound.take((QueueId(3), bodies.len()), offsets.zip(bodies), |body| body)
    }

    #[test]
    fn what_was_sent_is_sound_and_anything_else_is_named() {
        let mut sound = Sound::default();
        let made = Bodies::new(100).make(7, 5);
        assert_eq!(taken(&mut sound, 40, &made), Ok((5, 500)));
        assert_eq!(taken(&mut sound, 45, &made), Ok((5, 500)), "the topic was filled twice");
        let gap = taken(&mut sound, 51, &made).unwrap_err();
        assert!(gap.contains("offset 51"), "{gap}");
        let again = taken(&mut sound, 49, &made).unwrap_err();
        assert!(again.contains("offset 49"), "{again}");
        let lacks_one = [made[0].clone(), made[2].clone()];
        let lost = taken(&mut sound, 50, &lacks_one).unwrap_err();
        assert!(lost.contains("offset 51: sequence 9"), "{lost}");
        let mut bytes = made[1].to_vec();
        bytes[50] ^= 1;
        let damaged = taken(&mut sound, 50, &[made[0].clone(), bytes.into()]).unwrap_err();
        assert!(damaged.contains("offset 51: a body"), "{damaged}");
        let one = std::iter::once((Offset(0), &made[0]));
        let cut = sound.take((QueueId(4), 2), one, |body| body);
        assert!(cut.unwrap_err().contains("a batch of 2"));
    }
}

//! The message of a run.

use bytes::Bytes;
use grus_protocol::batch::RecordBatch;
use grus_protocol::{BatchBuilder, BatchLimits, MessageId, NewRecord};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::Step;
use crate::commands::recurring::{ScheduleKey, ScheduleTerms};

/// The batch that a step stores: the schedule's message, born at the time of the run. Its id comes
/// of the schedule and that time, so it is the same whoever works it out. Empty for a step that
/// does not run.
pub fn run_batch(key: &ScheduleKey, terms: &ScheduleTerms, step: &Step) -> Bytes {
    if !step.runs {
        return Bytes::new();
    }
    let Ok(batch) = RecordBatch::from_log(terms.batch.clone()) else { return Bytes::new() };
    let Some(Ok(record)) = batch.records().next() else { return Bytes::new() };
    let topic = key.queue.topic.0.rotate_left(32);
    let seed = topic ^ u64::from(key.queue.queue.0) ^ step.due.0.rotate_left(16);
    let hash = xxh3_128_with_seed(key.name.as_str().as_bytes(), seed).to_le_bytes();
    let mut random = [0; 10];
    random.copy_from_slice(&hash[..10]);
    let id = MessageId::from_parts(step.due, &random);
    let record = NewRecord { id, born: step.due, ..NewRecord::of(&record) };
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    if builder.push(&record).is_err() {
        return Bytes::new();
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{QueueId, QueueKey, TimestampMs, TopicId};
    use grus_protocol::names::ScheduleName;

    use super::*;
    use crate::schedule::{CadenceText, Timing};

    fn terms() -> ScheduleTerms {
        let id = MessageId::from_parts(TimestampMs(1), &[7; 10]);
        let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
        let tag = Some("tick".into());
        let record = NewRecord { tag, ..NewRecord::new(id, TimestampMs(1), "body") };
        builder.push(&record).unwrap();
        ScheduleTerms {
            cadence: CadenceText::Every(1_000),
            made_up_max: 1,
            batch: builder.finish(),
        }
    }

    fn key(name: &str) -> ScheduleKey {
        let queue = QueueKey { topic: TopicId(5), queue: QueueId(0) };
        ScheduleKey { queue, name: ScheduleName::try_from(name).unwrap() }
    }

    fn at(due: u64) -> Step {
        let (due, next) = (TimestampMs(due), TimestampMs(due + 1_000));
        Step { due, next, runs: true, timing: Timing::InTime }
    }

    #[test]
    fn each_run_has_an_id_and_a_time_of_its_own_and_the_message_of_all() {
        let batch = run_batch(&key("a"), &terms(), &at(5_000));
        let batch = RecordBatch::check(batch, &BatchLimits::PRODUCE).unwrap();
        let record = batch.records().next().unwrap().unwrap();
        assert_eq!((record.born(), record.tag()), (TimestampMs(5_000), Some("tick")));
        assert_eq!(record.body(), b"body");
        let id = |name, due| {
            let batch = RecordBatch::from_log(run_batch(&key(name), &terms(), &at(due))).unwrap();
            batch.records().next().unwrap().unwrap().id()
        };
        assert_eq!(id("a", 5_000), record.id(), "the same whoever works it out");
        assert_ne!(id("a", 6_000), record.id());
        assert_ne!(id("b", 5_000), record.id());
        let skipped = Step { runs: false, ..at(5_000) };
        assert!(run_batch(&key("a"), &terms(), &skipped).is_empty());
    }
}

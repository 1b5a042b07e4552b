//! What is in hand of a queue, where what comes is not as it should be.

use grus_protocol::message::{AssignedQueue, GroupDeliver, MessageFilter};
use grus_protocol::{
    BatchBuilder, BatchLimits, Generation, MessageId, NewRecord, Offset, QueueId, RecordBatch,
    Term, TimestampMs, TopicId, TopicName,
};

use super::OwnedQueue;
use crate::reader::cursor::{Content, Fetched};

fn queue() -> OwnedQueue<u32> {
    let assigned = AssignedQueue {
        topic: TopicName::try_from("t").unwrap(),
        topic_id: TopicId(1),
        queue: QueueId(0),
        generation: Generation(1),
    };
    OwnedQueue::new(1, assigned, MessageFilter::All, (false, 1))
}

/// Three messages from an offset on.
fn fetched(base: u64) -> Fetched {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    for number in 1..=3 {
        let id = MessageId::from_bytes([number; 16]);
        builder.push(&NewRecord::new(id, TimestampMs(1), "x")).unwrap();
    }
    let batch = RecordBatch::from_log(builder.finish()).unwrap();
    let (term, stored, content) = (Term(1), TimestampMs(1), Content::Batch(batch));
    Fetched { base_offset: Offset(base), term, stored, content }
}

fn push() -> GroupDeliver {
    GroupDeliver {
        queue: QueueId(0),
        log_start: Offset(0),
        end_offset: Offset(9),
        batches: Vec::new(),
        skipped: Vec::new(),
        redelivered: Vec::new(),
    }
}

#[test]
fn a_push_that_is_refused_in_the_middle_leaves_nothing_in_hand() {
    let mut queue = queue();
    let most = (4, 1 << 20);
    assert_eq!(queue.window.open(most), Some(most));
    let damage = queue.delivered(&push(), vec![fetched(0), fetched(3), fetched(6)]).unwrap_err();
    assert!(damage.contains("credit"), "the third came without any: {damage}");
    assert_eq!(queue.window.open(most), Some(most), "it subscribes anew with all of its window");
    let items = queue.delivered(&push(), vec![fetched(0), fetched(3)]).unwrap();
    assert_eq!(items.len(), 2, "they come again");
}

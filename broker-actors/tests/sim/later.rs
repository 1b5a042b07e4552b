//! Messages for later whose bodies tell which they are, and what a replica has of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_broker::delay_wheel::messages::{DelayAsk, Recalled};
use grus_broker::delay_wheel::round::messages_of;
use grus_broker::error::QueueError;
use grus_broker::timers::TimerId;
use grus_broker::timers::run::Timer;
use grus_broker::topic_queue::{Produce, QueueHandle, Receipt};
use grus_log::Run;
use grus_mailbox::Answer;
use grus_mailbox::reply::port;
use grus_protocol::batch::{BatchBuilder, NewRecord, Record, RecordBatch};
use grus_protocol::ids::{MessageId, Offset, QueueId, QueueKey, Term, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;

use crate::world::Running;

pub(crate) fn key(topic: u64) -> QueueKey {
    QueueKey { topic: TopicId(topic), queue: QueueId(0) }
}

/// The body of a message: its number, then bytes that follow from it.
pub(crate) fn body_of(number: u64, bytes: usize) -> Bytes {
    let mut body = number.to_le_bytes().to_vec();
    body.extend(
        (8..bytes).map(|at| number.wrapping_mul(31).wrapping_add(at as u64).to_le_bytes()[0]),
    );
    body.into()
}

/// The number of a body, which must be whole.
pub(crate) fn number_of(body: &Bytes) -> u64 {
    let number = u64::from_le_bytes(body[..8].try_into().unwrap());
    assert_eq!(*body, body_of(number, body.len()), "the body of {number}");
    number
}

/// A batch of these bodies.
pub(crate) fn batch(bodies: &[Bytes]) -> RecordBatch {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for body in bodies {
        let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(1), body.clone())).unwrap();
    }
    RecordBatch::check(builder.finish(), &BatchLimits::FORMAT).unwrap()
}

/// Sends a batch, due at these times; at once without.
pub(crate) async fn send(
    queue: &QueueHandle,
    bodies: &[Bytes],
    due: &[u64],
) -> Answer<Result<Receipt, QueueError>> {
    let (reply, answer) = port();
    let times = due.iter().copied().map(TimestampMs).collect();
    let due = (!due.is_empty()).then_some(times);
    let produce = Produce { batch: batch(bodies), dedup_key: None, due, reply };
    let _ = queue.produce.put(produce).await; // stopped: the answer says so
    answer
}

/// Takes a message back.
pub(crate) async fn recall(
    running: &Running,
    queue: QueueKey,
    timer: TimerId,
) -> Answer<Result<Vec<Recalled>, QueueError>> {
    let (reply, answer) = port();
    let ask = DelayAsk::Recall { queue, timers: vec![timer], reply };
    let _ = running.handle.delays.put(ask).await; // stopped: the answer says so
    answer
}

/// The number and the stored time of each message that a replica's own log and state have of a
/// queue, from an offset on, with its offset.
pub(crate) fn visible(running: &Running, queue: QueueKey, from: u64) -> Vec<(u64, u64, u64)> {
    let all = records(running, queue, from).into_iter();
    all.map(|(offset, record, stored)| (offset, number_of(&record.body_bytes()), stored)).collect()
}

/// The same on a replica that may be on its way to what it has installed: the log that it has then is that of
/// a later state, in which what was old is gone.
pub(crate) fn visible_so_far(
    running: &Running,
    queue: QueueKey,
    from: u64,
) -> Vec<(u64, u64, u64)> {
    let all = records_of(running, queue, from, !running.group.status().ready).into_iter();
    all.map(|(offset, record, stored)| (offset, number_of(&record.body_bytes()), stored)).collect()
}

/// The same, whole records.
pub(crate) fn records(running: &Running, queue: QueueKey, from: u64) -> Vec<(u64, Record, u64)> {
    records_of(running, queue, from, false)
}

fn records_of(
    running: &Running,
    queue: QueueKey,
    from: u64,
    may_lack_some: bool,
) -> Vec<(u64, Record, u64)> {
    let (log, machine) = (running.ground.log.borrow(), running.ground.machine.borrow());
    let Some(numbers) = machine.state.queue(queue) else { return Vec::new() };
    let mut next = numbers.visible_start.0.max(from);
    let mut found = Vec::new();
    while next < numbers.next_offset.0 {
        let runs = log.runs(queue, Offset(next), 1);
        if may_lack_some {
            let Some(run) = runs.first() else { break };
            next = next.max(run.base.0);
        }
        let run = runs.first().unwrap_or_else(|| panic!("no run for offset {next}"));
        assert!(run.base.0 <= next && next < run.base.0 + u64::from(run.count));
        let bytes = log.slice(run).unwrap_or_else(|error| panic!("offset {next}: {error}"));
        let batch = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
        for (offset, record) in (run.base.0..).zip(batch.records()) {
            if offset >= next {
                found.push((offset, record.unwrap(), run.stored.0));
            }
        }
        next = run.base.0 + u64::from(run.count);
    }
    found
}

/// What waits on a replica, each message read from the replica's own log: number and due time, and the
/// oldest log index of an entry that one of them first lay in.
pub(crate) fn waiting(running: &Running) -> (BTreeMap<u64, u64>, Option<u64>) {
    let (log, machine) = (running.ground.log.borrow(), running.ground.machine.borrow());
    let timers = machine.state.timers();
    let (mut found, mut oldest) = (BTreeMap::new(), None);
    for (name, _) in timers.runs_behind(None) {
        for timer in timers.timers_of(name) {
            let read = |timer: &Timer| log.slice(&run_of(timer)).ok();
            let alone = messages_of(&[timer], read).remove(0).expect("its bytes can be read");
            let batch = RecordBatch::check(alone, &BatchLimits::FORMAT).unwrap();
            let body = batch.records().next().unwrap().unwrap().body_bytes();
            let twice = found.insert(number_of(&body), timer.due.0);
            assert_eq!(twice, None, "it waits twice");
            oldest = oldest.or(Some(timer.batch.index));
        }
    }
    (found, oldest)
}

fn run_of(timer: &Timer) -> Run {
    Run {
        queue: timer.queue,
        base: Offset(0),
        count: timer.count,
        at: timer.at,
        length: timer.length,
        term: Term(0),
        stored: TimestampMs(0),
        born_max: TimestampMs(0),
        tag_bloom: 0,
    }
}

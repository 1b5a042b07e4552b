//! From a caller to a batch of a queue.

use grus_protocol::{BatchBuilder, NewRecord, QueueId, RecordError};

use super::choice::{Pick, Queues};
use super::lane::Batch;
use super::parts::{BatchKind, Ids, Load, Member, Members};
use super::payload::Payload;
use super::state::{Open, ProducerState, QueueLane, Unrouted};
use crate::config::QueueChoice;
use crate::error::SendError;
use crate::message::Message;

impl<P> Queues for Vec<QueueLane<P>> {
    fn count(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn is_led(&self, queue: u32) -> bool {
        self[queue as usize].link.is_some()
    }

    fn backlog_bytes(&self, queue: u32) -> u64 {
        let entry = &self[queue as usize];
        let open = entry.open.as_ref().map_or(0, |open| open.builder.len_bytes());
        open as u64 + entry.lane.backlog_bytes()
    }
}

impl<P, F> ProducerState<P, F> {
    /// Takes what a caller sends; `port` hears of it exactly once.
    pub(crate) fn take(&mut self, pick: Pick, load: Load, ids: Ids, port: P, now_ms: u64) {
        let generation = self.flushes.taken(ids.count());
        let member = Member { port, ids, pick, generation };
        if let Some(error) = &self.fenced {
            let error = error.clone();
            return self.end(QueueId(0), vec![member], Err(error));
        }
        if self.route.is_none() {
            self.ask_route.want();
            let deadline_ms = now_ms + self.window_ms;
            return self.unrouted.push_back(Unrouted { deadline_ms, load, member });
        }
        self.place(load, member, now_ms);
    }

    /// Chooses a queue, and puts what is sent into a batch of it. It fails when a batch taken at
    /// `at_ms` does.
    pub(super) fn place(&mut self, load: Load, member: Member<P>, at_ms: u64) {
        let first_id = member.ids.as_slice().first().copied().unwrap_or_default();
        let own;
        let message = match &load {
            Load::One(record) if matches!(self.config.queue_choice, QueueChoice::Own(_)) => {
                own = Message { record: record.clone(), queue: None };
                Some(&own)
            }
            Load::ManyLike(_, first) => Some(&**first),
            Load::One(_) | Load::Many(_) => None,
        };
        let queue = match self.chooser.choose(member.pick, first_id, message, &self.lanes) {
            Ok(queue) => queue,
            Err(queue) => {
                self.ask_route.want(); // it may have been added since
                let queues = self.lanes.count();
                let error = SendError::UnknownQueue { queue, queues };
                return self.end(queue, vec![member], Err(error));
            }
        };
        match load {
            Load::One(record) if record.dedup_key.is_some() => {
                self.close_open(queue);
                self.place_one(queue, &record, member, at_ms);
                self.close_open(queue);
            }
            Load::One(record) => self.place_one(queue, &record, member, at_ms),
            Load::Many(builder) | Load::ManyLike(builder, _) => {
                self.close_open(queue);
                self.push_batch(queue, builder, vec![member], at_ms);
            }
        }
        self.list(queue);
    }

    fn place_one(&mut self, queue: u32, record: &NewRecord, member: Member<P>, at_ms: u64) {
        let kind = BatchKind::of(record);
        let open = self.lanes[queue as usize].open.as_ref();
        if open.is_some_and(|open| open.kind != kind) {
            self.close_open(queue);
        }
        for _ in 0..2 {
            let open = self.lanes[queue as usize].open.get_or_insert_with(|| Open {
                builder: BatchBuilder::new(self.limits),
                members: Vec::new(),
                kind,
                since_ms: at_ms,
            });
            match open.builder.push(record) {
                Ok(()) => {
                    open.members.push(member);
                    if open.builder.len_bytes() >= self.config.batch_bytes_max as usize {
                        self.close_open(queue);
                    }
                    return;
                }
                Err(RecordError::BatchFull) if !open.members.is_empty() => self.close_open(queue),
                Err(reason) => {
                    if open.members.is_empty() {
                        self.lanes[queue as usize].open = None;
                    }
                    let error = SendError::Invalid { index: 0, reason };
                    return self.end(QueueId(queue), vec![member], Err(error));
                }
            }
        }
        unreachable!("an empty batch takes a record, or says what is wrong with it");
    }

    pub(super) fn close_open(&mut self, queue: u32) {
        let Some(open) = self.lanes[queue as usize].open.take() else { return };
        let since_ms = open.since_ms;
        self.push_batch(queue, open.builder, open.members, since_ms);
    }

    fn push_batch(&mut self, queue: u32, builder: BatchBuilder, members: Members<P>, at_ms: u64) {
        self.chooser.batch_closed(queue, self.queues());
        let records = builder.count();
        let deadline_ms = at_ms + self.window_ms;
        let bytes = builder.len_bytes() as u64;
        let payload = Payload::Open(builder);
        let batch = Batch { payload, members, records, bytes, deadline_ms };
        self.lanes[queue as usize].lane.push(batch);
    }
}

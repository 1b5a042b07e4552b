//! What a shard does so that messages are found: it tells the Finder of each batch, has tables made,
//! and hands searches on with all that is new, so that a receipt's message is found at once.

use std::collections::BTreeMap;

use grus_log::{Disk, FindBuilt, FindBy, FindOutcome, FindQuery};
use grus_mailbox::{Credit, Inbox, Port, PutError, Receive, Room, Weigh};
use grus_protocol::ids::QueueKey;

use super::ShardActor;
use super::ground::Ground;
use crate::error::QueueError;
use crate::finder::{BuildTable, IndexBatches, Search};
use crate::topic_queue::OVERLOADED_RETRY_MS;

/// Bytes of batches told at a time: about 10 ms of parsing.
const INDEXED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// With so much waiting it is told without waiting for the tick.
const INDEXED_BYTES_SOON: u64 = 1024 * 1024;
/// How long until a table that could not be made is tried again.
const RETRY_MS: u64 = 60_000;

/// The Finder has taken batches in.
#[derive(Debug)]
pub(crate) struct Indexed {
    /// Segments it must be told of from the start.
    pub(crate) gaps: Vec<u64>,
}

impl Weigh for Indexed {}

/// A table was made, or could not be.
#[derive(Debug)]
pub(crate) struct TableBuilt {
    pub(crate) built: FindBuilt,
}

impl Weigh for TableBuilt {}

/// Who waits for a search.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) reply: Port<Result<FindOutcome, QueueError>>,
    /// The index lacked something; it was told, and this is the second time.
    is_second: bool,
}

/// A search is over.
#[derive(Debug)]
pub(crate) struct Searched {
    pub(crate) query: FindQuery,
    pub(crate) outcome: FindOutcome,
    pub(crate) wanted: Wanted,
    /// Of the Finder's inbox.
    pub(crate) credit: Credit,
}

impl Weigh for Searched {}

/// The way to the Finder and back; none when the index is switched off.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) batches: Inbox<IndexBatches>,
    pub(super) tables: Inbox<BuildTable>,
    pub(super) searches: Inbox<Search>,
    pub(super) own: OwnInboxes,
    pub(super) retry_at_ms: u64,
}

/// Where the Finder answers.
#[derive(Debug)]
pub(super) struct OwnInboxes {
    pub(super) indexed: Inbox<Indexed>,
    pub(super) built: Inbox<TableBuilt>,
    pub(super) searched: Inbox<Searched>,
}

impl<D: Disk> Ground<D> {
    /// The offsets of a topic's queues here that may be answered with.
    fn scope_of(&self, by: &FindBy) -> Option<BTreeMap<QueueKey, Bounds>> {
        let FindBy::Key { topic, .. } = by else { return None };
        let machine = self.machine.borrow();
        let config = machine.state.topic(*topic);
        let queues = config.into_iter().flat_map(|config| &config.queues);
        let bounds = queues.filter_map(|queue| {
            let key = QueueKey { topic: *topic, queue: *queue };
            let numbers = machine.state.queue(key)?;
            Some((key, (numbers.visible_start, numbers.next_offset)))
        });
        Some(bounds.collect())
    }

    /// Drops what is not visible any more: trimmed, or of a topic that is gone.
    fn keep_visible(&self, outcome: &mut FindOutcome) {
        let machine = self.machine.borrow();
        outcome.matches.retain(|found| {
            machine.state.queue(found.queue).is_some_and(|numbers| {
                (numbers.visible_start..numbers.next_offset).contains(&found.offset)
            })
        });
    }
}

/// First offset, and the one behind the last.
type Bounds = (grus_protocol::ids::Offset, grus_protocol::ids::Offset);

impl<D: Disk> ShardActor<D> {
    /// Begins a search.
    pub(super) fn find(
        &self,
        by: FindBy,
        messages_max: usize,
        reply: Port<Result<FindOutcome, QueueError>>,
    ) {
        let status = self.group.status();
        if !status.ready {
            let error = match status.leader {
                leader @ Some(_) => QueueError::NotLeader { leader },
                None => QueueError::Unavailable,
            };
            return reply.send(Err(error));
        }
        let scope = self.ground.scope_of(&by);
        let query = FindQuery { by, messages_max: messages_max.max(1), scope };
        self.search(query, Wanted { reply, is_second: false });
    }

    fn search(&self, query: FindQuery, wanted: Wanted) {
        let Some(finding) = &self.finding else {
            return wanted.reply.send(Err(QueueError::NoFindIndex));
        };
        if finding.searches.free() == 0 {
            let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
            return wanted.reply.send(Err(error));
        }
        let (feed, views) = {
            let mut log = self.ground.log.borrow_mut();
            (log.find_feed(u64::MAX), log.find_views())
        };
        let shard = finding.own.searched.clone();
        match finding.searches.try_put(Search { feed, views, query, wanted, shard }) {
            Ok(()) => {}
            Err(PutError::Full(_)) => unreachable!("there was room, and nobody else puts here"),
            Err(PutError::Stopped(search)) => {
                search.wanted.reply.send(Err(QueueError::Stopping));
            }
        }
    }

    /// Tells the Finder what is new, and has the next table made.
    pub(super) fn keep_findable(&mut self, monotonic_ms: u64) {
        let Some(finding) = &mut self.finding else { return };
        if finding.retry_at_ms <= monotonic_ms {
            finding.retry_at_ms = monotonic_ms + RETRY_MS;
            self.ground.log.borrow_mut().find_retry();
        }
        self.tell_batches();
        let Some(finding) = &self.finding else { return };
        if finding.tables.free() > 0
            && let Some(view) = self.ground.log.borrow_mut().next_find_build()
        {
            // Stopped: the shard is stopping, too.
            let _ = finding.tables.try_put(BuildTable { view, shard: finding.own.built.clone() });
        }
    }

    fn tell_batches(&self) {
        let Some(finding) = &self.finding else { return };
        if finding.batches.free() == 0 {
            return; // it says when it is ready
        }
        let feed = self.ground.log.borrow_mut().find_feed(INDEXED_BYTES_MAX);
        if !feed.is_empty() {
            let shard = finding.own.indexed.clone();
            let _ = finding.batches.try_put(IndexBatches { feed, shard });
        }
    }

    fn tell_again(&self, gaps: &[u64]) {
        let mut log = self.ground.log.borrow_mut();
        for gap in gaps {
            log.find_again(*gap);
        }
    }
}

impl<D: Disk> Receive<Indexed> for ShardActor<D> {
    fn receive(&mut self, msg: Indexed, credit: Credit, _room: &mut Room<'_, Self>) {
        drop(credit);
        self.tell_again(&msg.gaps);
        if self.ground.log.borrow().find_waiting_bytes() >= INDEXED_BYTES_SOON {
            self.tell_batches();
        }
    }
}

impl<D: Disk> Receive<TableBuilt> for ShardActor<D> {
    fn receive(&mut self, msg: TableBuilt, _credit: Credit, _room: &mut Room<'_, Self>) {
        if let Some(failure) = &msg.built.failure {
            let (shard, segment) = (self.ground.shard.0, msg.built.sequence);
            tracing::debug!(shard, segment, failure, "no table of ids and keys");
        }
        self.ground.log.borrow_mut().find_built(&msg.built);
    }
}

impl<D: Disk> Receive<Searched> for ShardActor<D> {
    fn receive(&mut self, msg: Searched, _credit: Credit, _room: &mut Room<'_, Self>) {
        let Searched { query, mut outcome, mut wanted, credit } = msg;
        drop(credit);
        let gaps = std::mem::take(&mut outcome.gaps);
        self.tell_again(&gaps);
        self.tell_again(&outcome.without_table);
        if !gaps.is_empty() && !wanted.is_second {
            wanted.is_second = true;
            return self.search(query, wanted);
        }
        self.ground.keep_visible(&mut outcome);
        if !gaps.is_empty() {
            // Twice: the Finder was rebuilt in between.
            return wanted.reply.send(Err(QueueError::Unavailable));
        }
        wanted.reply.send(Ok(outcome));
    }
}

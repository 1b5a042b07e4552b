//! What openraft's log storage, its state machine and the group share, on one arbiter.
//!
//! Borrows are short and never held across an await or a call out of this crate.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use grus_log::{
    AppendError, Disk, EntryId, EntryKind, JobDone, Log, NewEntry, ReadError, Step, Ticket,
};
use openraft::async_runtime::AsyncRuntime;
use openraft::entry::RaftEntry as _;
use openraft::storage::IOFlushed;
use tokio::sync::{Notify, oneshot};

use crate::apply::Applied;
use crate::ballot::{Ballot, Standing};
use crate::codec;
use crate::config::GroupConfig;
use crate::fault::Fault;
use crate::flushes::Flushes;
use crate::intake::Intake;
use crate::jobs::JobPort;
use crate::machine::StateMachine;
use crate::payload::Command;
use crate::types::{LogId, Payload, RaftEntry, TypeConfig, log_id, log_id_parts};
use crate::wire::Shape;

/// How often an append that found no room tries again when no job comes back.
const ROOM_RETRY: Duration = Duration::from_millis(100);
/// What the log adds to the payload of an entry, at most.
pub(crate) const ENTRY_OVERHEAD_BYTES: u64 = 72;

/// openraft's configuration for machine `S` on runtime `RT`.
pub(crate) type Types<S, RT> = TypeConfig<<S as StateMachine>::Reply, RT>;

/// The state all sides share.
pub(crate) struct Shared<S: StateMachine, D: Disk, RT: AsyncRuntime> {
    pub(crate) config: GroupConfig,
    pub(crate) log: Rc<RefCell<Log<D>>>,
    pub(crate) machine: Rc<RefCell<S>>,
    pub(crate) applied: RefCell<Applied>,
    pub(crate) ballot: RefCell<Ballot>,
    /// Woken when there may be something to do outside the write path.
    pub(crate) keeper: Notify,
    /// openraft is reading what is there; nothing has been written yet.
    pub(crate) starting: Cell<bool>,
    /// Bytes proposed and not yet in the log.
    pub(crate) proposed_bytes: Rc<Cell<u64>>,
    /// What came of a leader and is not answered yet.
    pub(crate) intake: Intake,
    pub(crate) jobs: Box<dyn JobPort<D>>,
    pub(crate) flushes: RefCell<Flushes<IOFlushed<Types<S, RT>>>>,
    tickets: RefCell<BTreeMap<Ticket, oneshot::Sender<()>>>,
    /// Woken whenever a job is done: there may be room.
    job_done: Notify,
    waiting_for_room: Cell<u32>,
    /// Woken when an append finds the disk full.
    found_full: Notify,
    /// The group is being stopped: nobody waits for room any more.
    stopping: Cell<bool>,
    /// Appends may be acknowledged by the class of the shard.
    early: Cell<bool>,
    /// Nothing is, while the only voter has learners.
    pub(crate) syncs_first: Cell<bool>,
    /// The last membership that was appended: it is acknowledged when it is synced, whatever the
    /// class of the shard.
    members_at: Cell<Option<u64>>,
    /// Something was applied that the keeper should look at.
    pub(crate) attention: Cell<bool>,
    fault: RefCell<Option<Fault>>,
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Shared<S, D, RT> {
    pub(crate) fn new(
        config: GroupConfig,
        log: Rc<RefCell<Log<D>>>,
        machine: Rc<RefCell<S>>,
        jobs: Box<dyn JobPort<D>>,
        applied: Applied,
        ballot: Ballot,
    ) -> Self {
        Self {
            config,
            log,
            machine,
            applied: RefCell::new(applied),
            ballot: RefCell::new(ballot),
            keeper: Notify::new(),
            starting: Cell::new(true),
            proposed_bytes: Rc::default(),
            intake: Intake::default(),
            jobs,
            flushes: RefCell::default(),
            tickets: RefCell::default(),
            job_done: Notify::new(),
            waiting_for_room: Cell::new(0),
            found_full: Notify::new(),
            stopping: Cell::new(false),
            early: Cell::new(false),
            syncs_first: Cell::new(false),
            members_at: Cell::new(None),
            attention: Cell::new(false),
            fault: RefCell::new(None),
        }
    }

    // --- faults ---

    /// Keeps the first fault and reports it; returns it as an error openraft can carry.
    pub(crate) fn fail(&self, fault: Fault) -> std::io::Error {
        let first = self.fault.borrow().is_none();
        if first {
            *self.fault.borrow_mut() = Some(fault.clone());
            tracing::error!(shard = self.config.shard.0, %fault, "replica stops");
            (self.config.fatal)(&fault);
            // Nobody gets an answer from here on; those who wait see the group stop.
            self.flushes.borrow_mut().clear();
            self.tickets.borrow_mut().clear();
            self.job_done.notify_waiters();
            self.keeper.notify_one();
        }
        fault.into_io()
    }

    /// The fault that stopped this replica.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.borrow().clone()
    }

    // --- jobs and what waits for them ---

    /// Hands over every job that may start now.
    pub(crate) fn pump(&self) {
        while self.fault.borrow().is_none() {
            let Some(job) = self.log.borrow_mut().next_job() else { break };
            if let Some(done) = self.jobs.submit(job) {
                self.complete(done);
            }
        }
    }

    /// A job came back: completes what is durable now, in log order.
    pub(crate) fn job_done(&self, done: JobDone<D>) {
        self.complete(done);
        self.pump();
    }

    fn complete(&self, done: JobDone<D>) {
        let completed = self.log.borrow_mut().complete(done); // not borrowed when a fault is told
        let progress = match completed {
            Ok(progress) => progress,
            Err(fatal) => {
                let _ = self.fail(fatal.into());
                return;
            }
        };
        self.complete_flushes();
        for ticket in progress.tickets {
            let waiter = self.tickets.borrow_mut().remove(&ticket);
            if let Some(waiter) = waiter {
                let _ = waiter.send(()); // whoever asked may be gone
            }
        }
        self.log_has_grown();
        self.job_done.notify_waiters();
    }

    /// Completes the appends that the log says are durable.
    fn complete_flushes(&self) {
        let durable = self.acknowledged();
        loop {
            let next = self.flushes.borrow_mut().pop_durable(durable);
            let Some(callback) = next else { break };
            callback.io_completed(Ok(()));
        }
    }

    /// Up to where appends may be acknowledged: by the class of the shard, but before the durable
    /// mark that this is done early is there, only what is synced. A membership is never early: a
    /// member that forgets it would ask the wrong voters, and could elect itself alone.
    fn acknowledged(&self) -> Option<u64> {
        let log = self.log.borrow();
        let synced = log.synced_index();
        if !self.early.get() || self.syncs_first.get() {
            return synced;
        }
        match self.members_at.get() {
            Some(at) if synced < Some(at) => log.durable_index().min(at.checked_sub(1)).max(synced),
            _ => log.durable_index(),
        }
    }

    /// Sets the durable mark that entries are acknowledged before they are synced (`replicated`).
    pub(crate) async fn set_volatile(&self) {
        let ticket = self.log.borrow_mut().set_volatile();
        if self.wait(ticket).await.is_ok() {
            self.early.set(true);
            self.complete_flushes();
        }
    }

    /// The only voter has no learners any more, or is not the only one: the class of the shard counts again.
    pub(crate) fn end_sync_first(&self) {
        if self.syncs_first.replace(false) {
            self.complete_flushes();
        }
    }

    /// A clean stop: everything is synced, then the mark that it may not be goes.
    /// Returns once that is durable, so that a start after a power cut sees it.
    pub(crate) async fn forget_nothing(&self) {
        let sound = self.ballot.borrow().standing() == Standing::Sound;
        if self.early.get() && sound && self.fault.borrow().is_none() {
            // One job does both, the sync first.
            let ticket = {
                let mut log = self.log.borrow_mut();
                log.request_sync();
                log.clear_volatile()
            };
            let _ = self.wait(ticket).await; // after a fault the mark stays, as it should
        }
    }

    /// The only voter: what a lost kernel took is lost, and nobody remembers more.
    pub(crate) fn heal_alone(&self) {
        self.ballot.borrow_mut().alone();
        if self.log.borrow().lost_memory() {
            self.log.borrow_mut().heal_volatile();
            self.pump();
        }
    }

    /// Asks for another try at what a full disk refused.
    pub(crate) fn request_room(&self) {
        self.log.borrow_mut().request_room();
        self.pump();
    }

    /// Starts a sync of what was acknowledged before it was synced, and tries a full disk again.
    pub(crate) fn look_at_disk(&self) {
        let mut log = self.log.borrow_mut();
        log.request_sync();
        if log.is_disk_full() {
            log.request_room();
        }
        drop(log);
        self.pump();
    }

    /// Waits until the job behind `ticket` is done.
    pub(crate) async fn wait(&self, ticket: Ticket) -> std::io::Result<()> {
        if self.fault.borrow().is_some() {
            return Err(self.stopped()); // no job runs any more
        }
        let (sender, done) = oneshot::channel();
        self.tickets.borrow_mut().insert(ticket, sender);
        self.pump();
        done.await.map_err(|_| self.stopped())
    }

    pub(crate) fn stopped(&self) -> std::io::Error {
        let fault = self.fault();
        fault.unwrap_or_else(|| Fault::Raft("group stopped".to_owned())).into_io()
    }

    /// Whether an append waits for room on the disk; RaftCore answers nobody meanwhile.
    pub(crate) fn waits_for_disk(&self) -> bool {
        self.waiting_for_room.get() > 0 || !self.tickets.borrow().is_empty()
    }

    /// Whether an append waits for room that a full disk does not give.
    pub(crate) fn waits_on_full_disk(&self) -> bool {
        self.waiting_for_room.get() > 0 && self.log.borrow().is_disk_full()
    }

    /// Ends when an append finds the disk full, from now on.
    pub(crate) fn next_found_full(&self) -> impl Future<Output = ()> + '_ {
        self.found_full.notified()
    }

    /// Whether the group is being stopped, or has failed.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get() || self.fault.borrow().is_some()
    }

    /// Nobody waits for room from here on: a stop must not wait for a disk that stays full.
    pub(crate) fn stop_waiting(&self) {
        self.stopping.set(true);
        self.job_done.notify_waiters();
    }

    // --- appending ---

    /// Appends entries, waiting for room if need be; the callback is called when they are durable.
    pub(crate) async fn append(
        &self,
        entries: impl IntoIterator<Item = RaftEntry>,
        callback: IOFlushed<Types<S, RT>>,
    ) -> std::io::Result<()> {
        let mut last = None;
        for entry in entries {
            self.append_one(&entry).await?;
            last = Some(entry.index());
            if matches!(entry.payload, Payload::Membership(_)) {
                self.members_at.set(last);
                self.log.borrow_mut().request_sync();
            }
        }
        if self.syncs_first.get() {
            // Whoever has sent it waits for the sync: nothing else would ask for one before the next second.
            self.log.borrow_mut().request_sync();
        }
        match last {
            Some(last) => self.flushes.borrow_mut().push(last, callback),
            None => callback.io_completed(Ok(())),
        }
        if self.config.sabotage.complete_early {
            self.flushes.borrow_mut().pop_durable(last).into_iter().for_each(|c| {
                c.io_completed(Ok(()));
            });
        }
        self.complete_flushes();
        self.pump();
        Ok(())
    }

    async fn append_one(&self, entry: &RaftEntry) -> std::io::Result<()> {
        let shape = Shape::of(&entry.payload);
        let (term, index) = log_id_parts(&entry.log_id());
        let new = NewEntry { kind: shape.kind(), term, index, payload: shape.slices() };
        loop {
            let done = self.job_done.notified();
            let result = self.log.borrow_mut().append(std::slice::from_ref(&new));
            match result {
                Ok(()) => break,
                Err(AppendError::NoRoom | AppendError::DiskFull) => {
                    self.waiting_for_room.set(self.waiting_for_room.get() + 1);
                    self.found_full.notify_waiters();
                    self.pump();
                    // A disk that was full is looked at again now and then.
                    let _ = RT::timeout(ROOM_RETRY, done).await;
                    self.waiting_for_room.set(self.waiting_for_room.get() - 1);
                    if self.is_stopping() {
                        return Err(self.stopped());
                    }
                }
                Err(error) => return Err(self.fail(Fault::Log(error.to_string()))),
            }
        }
        Ok(())
    }

    /// Whether the log has room for `bytes` more, on top of what has been proposed already.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(ENTRY_OVERHEAD_BYTES);
        self.log.borrow().room_bytes() >= self.proposed_bytes.get().saturating_add(wanted)
    }

    /// How many of these steps the log has room for, from the first on.
    pub(crate) fn fits(&self, steps: &[Step]) -> usize {
        // A leader that was has yet to write what was proposed to it.
        let proposed = self.proposed_bytes.get() > 0;
        let bytes = |step: &Step| match step {
            Step::Cut => 0,
            Step::Entry { payload_bytes, .. } => *payload_bytes as u64 + ENTRY_OVERHEAD_BYTES,
        };
        if proposed && !self.has_room(steps.iter().map(bytes).sum()) {
            return 0;
        }
        self.log.borrow().fits(steps.iter().copied())
    }

    /// Whether the log was purged up to this entry, or further.
    pub(crate) fn is_purged(&self, id: LogId) -> bool {
        let (_, index) = log_id_parts(&id);
        self.log.borrow().purged().is_some_and(|purged| index <= purged.index)
    }

    /// Whether the log has this entry, of this term.
    pub(crate) fn has(&self, id: LogId) -> bool {
        let (term, index) = log_id_parts(&id);
        self.log.borrow().term_of(index) == Some(term)
    }

    /// Cuts the log behind `after`.
    pub(crate) fn truncate(&self, after: Option<u64>) {
        self.flushes.borrow_mut().truncate(after);
        self.members_at.set(self.members_at.get().filter(|at| Some(*at) <= after));
        self.log.borrow_mut().truncate_after(after);
        self.pump();
    }

    /// Drops the log up to `purged`.
    pub(crate) fn purge(&self, purged: EntryId) {
        let beyond = self.log.borrow().last().is_none_or(|last| last.index < purged.index);
        if beyond {
            self.flushes.borrow_mut().clear();
        }
        self.log.borrow_mut().purge(purged);
        self.pump();
    }

    /// The durable log may have reached the read index that makes an amnesiac sound: from then on
    /// it counts as having seen this kernel.
    pub(crate) fn log_has_grown(&self) {
        let durable = self.log.borrow().synced_index();
        let sound = self.ballot.borrow_mut().durable(durable);
        if sound {
            tracing::info!(shard = self.config.shard.0, "has caught up with what it forgot");
            self.log.borrow_mut().heal_volatile();
            self.keeper.notify_one();
            self.pump();
        }
    }

    // --- reading ---

    /// Entries `from..to`, as many as there are and as fit `bytes_max`.
    pub(crate) fn read(
        &self,
        from: u64,
        to: u64,
        bytes_max: u64,
    ) -> std::io::Result<Vec<RaftEntry>> {
        let read = self.log.borrow().entries(from..to, bytes_max);
        let entries = read.map_err(|error| {
            let index = if let ReadError::Corrupt { index } = error { index } else { from };
            self.fail(Fault::Entry { index, reason: error.to_string() })
        })?;
        entries.into_iter().map(|entry| self.to_raft(entry)).collect()
    }

    fn to_raft(&self, entry: grus_log::Entry) -> std::io::Result<RaftEntry> {
        let payload = match entry.kind {
            // The first entry of a log holds its founders, who are known without it.
            EntryKind::Lost if entry.index == 0 && !self.config.members.is_empty() => {
                Payload::Membership(self.config.founders().into())
            }
            // A lost entry: the operator has accepted that nothing of it is applied.
            EntryKind::Blank | EntryKind::Lost => Payload::Blank,
            EntryKind::Membership => {
                let decoded = codec::decode_membership(entry.payload);
                let bad = |error| self.fail(Fault::codec(entry.index, error));
                Payload::Membership(decoded.map_err(bad)?)
            }
            EntryKind::Normal => Payload::Normal(Command::stored(false, entry.payload)),
            EntryKind::Seal => Payload::Normal(Command::stored(true, entry.payload)),
        };
        Ok(RaftEntry::new(log_id(entry.term, entry.index), payload))
    }

    /// Ends when the next job is done.
    pub(crate) fn next_job_done(&self) -> impl Future<Output = ()> + '_ {
        self.job_done.notified().map(|()| ())
    }
}

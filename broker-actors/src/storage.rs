//! Storage: one shard's log on its core arbiter, where finished work comes back to it.
//!
//! The log is a plain struct (`grus-log`) that consensus writes and queues read directly, as they
//! all live on one arbiter. This actor is the door for what other threads have done for it.
//!
//! * Owns: nothing of its own; the log is shared with consensus.
//! * Lives on: its shard's core arbiter.
//! * Inbox: `JobFinished`, as many as Flush may have on their way; `Checked`, of one.
//! * Talks to: consensus, which completes what is durable now, in log order.
//! * Stops: after consensus.
//! * If it panics: the process ends; recovery is a restart.

use std::cell::OnceCell;
use std::rc::Rc;

use grus_consensus::Group;
use grus_log::{Disk, JobDone, ScrubDone};
use grus_mailbox::{Credit, Inbox, Receive, Resident, Room, Weigh};

use crate::shard::RoomAgain;
use crate::shard::ground::{Ground, ShardMachine};

/// A job of the log is done, well or badly.
pub(crate) struct JobFinished<D: Disk> {
    pub(crate) done: JobDone<D>,
    /// Of the Flush inbox: held until the log knows.
    pub(crate) credit: Credit,
}

impl<D: Disk> Weigh for JobFinished<D> {}

/// Entries that nobody in this process had read were checked.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) done: ScrubDone,
    /// Of the Reader's inbox: the next check waits for it.
    pub(crate) credit: Credit,
}

impl Weigh for Checked {}

/// Consensus has started: what came back before is handed to it now.
#[derive(Debug)]
pub(crate) struct ConsensusStarted;

impl Weigh for ConsensusStarted {}

/// Whom Storage talks to, known once they live.
pub(crate) struct StorageLinks<D: Disk>(Rc<Links<D>>);

struct Links<D: Disk> {
    group: OnceCell<Group<ShardMachine, D>>,
    shard: OnceCell<Inbox<RoomAgain>>,
}

impl<D: Disk> Default for StorageLinks<D> {
    fn default() -> Self {
        Self(Rc::new(Links { group: OnceCell::new(), shard: OnceCell::new() }))
    }
}

impl<D: Disk> Clone for StorageLinks<D> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<D: Disk> StorageLinks<D> {
    /// # Panics
    /// When it was set before.
    pub(crate) fn set_group(&self, group: Group<ShardMachine, D>) {
        assert!(self.0.group.set(group).is_ok(), "consensus starts once");
    }

    /// # Panics
    /// When it was set before.
    pub(crate) fn set_shard(&self, shard: Inbox<RoomAgain>) {
        assert!(self.0.shard.set(shard).is_ok(), "a shard starts once");
    }
}

/// See the module documentation.
pub(crate) struct Storage<D: Disk> {
    ground: Rc<Ground<D>>,
    links: StorageLinks<D>,
    /// Came back before consensus had started.
    early: Vec<JobDone<D>>,
}

impl<D: Disk> Storage<D> {
    pub(crate) const fn new(ground: Rc<Ground<D>>, links: StorageLinks<D>) -> Self {
        Self { ground, links, early: Vec::new() }
    }
}

impl<D: Disk> Resident for Storage<D> {}

impl<D: Disk> Receive<JobFinished<D>> for Storage<D> {
    fn receive(&mut self, msg: JobFinished<D>, _credit: Credit, _room: &mut Room<'_, Self>) {
        let Some(group) = self.links.0.group.get() else { return self.early.push(msg.done) };
        group.job_done(msg.done);
        drop(msg.credit);
        if self.ground.starved.get()
            && let Some(shard) = self.links.0.shard.get()
        {
            // Full: one is waiting already.
            let _ = shard.try_put(RoomAgain);
        }
    }
}

impl<D: Disk> Receive<Checked> for Storage<D> {
    fn receive(&mut self, msg: Checked, _credit: Credit, _room: &mut Room<'_, Self>) {
        let damage = self.ground.log.borrow_mut().complete_scrub(msg.done);
        for range in damage {
            tracing::error!(shard = self.ground.shard.0, %range, "stored entries are damaged");
        }
        drop(msg.credit);
    }
}

impl<D: Disk> Receive<ConsensusStarted> for Storage<D> {
    fn receive(&mut self, _: ConsensusStarted, _credit: Credit, _room: &mut Room<'_, Self>) {
        let group = self.links.0.group.get().expect("it is set before this is told");
        for done in self.early.drain(..) {
            group.job_done(done);
        }
    }
}

//! Finder: finds messages of one shard by id or by key, and keeps the index for it, so that neither
//! costs producers more than a note of each batch.
//!
//! ```text
//! Shard --IndexBatches (ten times a second)--> [Finder] --Indexed------> Shard
//! Shard --BuildTable (after a seal)---------->     |    --TableBuilt---> Shard
//! Shard --Search (all that is new inside)---->     '    --Searched-----> Shard --> Connection, HTTP
//! ```
//!
//! * Owns: the index of what has no table yet, the tables that were opened. The log can tell it all
//!   of that again.
//! * Lives on: its own arbiter, which the disk may hold up. Shared by the shards.
//! * Inbox: `IndexBatches` and `BuildTable`, one each; `Search`, full means too many searches, which
//!   they are told; `BuildStep` of its own, one.
//! * Talks to: Shard.
//! * Stops: with its shard, before it.
//! * If it panics: it is rebuilt, knowing nothing; the shard tells it what it lacks. The search
//!   that did it is answered with a code that clients retry.

use std::path::PathBuf;

use grus_log::{
    Disk, FindBuilt, FindFeed, FindIndex, FindOutcome, FindQuery, FindViews, SealedView,
};
use grus_mailbox::{Credit, Inbox, Receive, Resident, Room, Weigh};

use crate::shard::finding::{Indexed, Searched, TableBuilt, Wanted};

/// Searches of a shard that may be on their way.
pub const SEARCHES_MAX: u32 = 64;

/// Batches that were applied.
#[derive(Debug)]
pub(crate) struct IndexBatches {
    pub(crate) feed: FindFeed,
    pub(crate) shard: Inbox<Indexed>,
}

impl Weigh for IndexBatches {}

/// Makes the table of a sealed segment.
#[derive(Debug)]
pub(crate) struct BuildTable {
    pub(crate) view: SealedView,
    pub(crate) shard: Inbox<TableBuilt>,
}

impl Weigh for BuildTable {}

/// Looks for messages, after what is new has been taken in.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) feed: FindFeed,
    pub(crate) views: FindViews,
    pub(crate) query: FindQuery,
    pub(crate) wanted: Wanted,
    pub(crate) shard: Inbox<Searched>,
}

impl Weigh for Search {}

/// Goes on with a table; searches come in between.
#[derive(Debug)]
struct BuildStep;

impl Weigh for BuildStep {}

/// See the module documentation.
pub(crate) struct Finder<D: Disk> {
    index: FindIndex<D>,
    steps: Option<Inbox<BuildStep>>,
    /// Who waits for the table being made, and the credit of that wish.
    building: Option<(Inbox<TableBuilt>, Credit)>,
}

impl<D: Disk> Finder<D> {
    /// Of the log in `folder`.
    pub(crate) fn new(disk: D, folder: PathBuf) -> Self {
        Self { index: FindIndex::new(disk, folder), steps: None, building: None }
    }

    fn step_later(&self) {
        // Full: one is waiting. Stopped: so is all this.
        let _ = self.steps.as_ref().map(|steps| steps.try_put(BuildStep));
    }

    fn tell_built(&mut self, built: FindBuilt) {
        let Some((shard, credit)) = self.building.take() else { return };
        drop(credit);
        let _ = shard.try_put(TableBuilt { built });
    }
}

impl<D: Disk> Resident for Finder<D> {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.steps = Some(room.inbox(1));
    }
}

impl<D: Disk> Receive<IndexBatches> for Finder<D> {
    fn receive(&mut self, msg: IndexBatches, credit: Credit, _room: &mut Room<'_, Self>) {
        let gaps = self.index.feed(msg.feed);
        drop(credit);
        let _ = msg.shard.try_put(Indexed { gaps });
    }
}

impl<D: Disk> Receive<BuildTable> for Finder<D> {
    fn receive(&mut self, msg: BuildTable, credit: Credit, _room: &mut Room<'_, Self>) {
        self.building = Some((msg.shard, credit));
        match self.index.begin_build(msg.view) {
            Some(built) => self.tell_built(built),
            None => self.step_later(),
        }
    }
}

impl<D: Disk> Receive<BuildStep> for Finder<D> {
    fn receive(&mut self, _: BuildStep, credit: Credit, _room: &mut Room<'_, Self>) {
        drop(credit);
        match self.index.build_step() {
            Some(built) => self.tell_built(built),
            None if self.index.is_building() => self.step_later(),
            None => {}
        }
    }
}

impl<D: Disk> Receive<Search> for Finder<D> {
    fn receive(&mut self, msg: Search, credit: Credit, _room: &mut Room<'_, Self>) {
        let Search { feed, views, query, wanted, shard } = msg;
        let mut gaps = self.index.feed(feed);
        let outcome = if wanted.reply.is_closed() {
            FindOutcome::default()
        } else {
            self.index.search(&query, &views)
        };
        gaps.extend(&outcome.gaps);
        let outcome = FindOutcome { gaps, ..outcome };
        // Stopped: the port in it says so to whoever waits.
        let _ = shard.try_put(Searched { query, outcome, wanted, credit });
    }
}

//! Whether a shard's queues are served here. One that a broker has alone always serves them; of several
//! members the one that leads does, as long as its lease holds.

use grus_log::Disk;
use grus_mailbox::{Inbox, Room, Stopped, Weigh};
use grus_protocol::ids::{BrokerId, Term};

use super::{ShardActor, Stage};

/// Who leads a shard, as one of its members knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardStanding {
    /// Whether this member leads, has applied all that was acknowledged before, and has its lease.
    pub leads: bool,
    /// The broker that leads, as far as is known.
    pub leader: Option<BrokerId>,
    /// The term.
    pub term: Term,
    /// Counts how often this member has come to lead: its queues are others each time.
    pub reign: u64,
    /// Whether it is one of several members.
    pub is_replicated: bool,
    /// Index of the list of members that names this one alone; none: it does not lead, or there are others.
    pub alone_at: Option<u64>,
}

impl ShardStanding {
    /// Of a member that has just started: alone, it leads.
    pub(super) fn first(is_alone: bool, broker: BrokerId) -> Self {
        Self {
            leads: is_alone,
            leader: is_alone.then_some(broker),
            term: Term(0),
            reign: 0,
            is_replicated: !is_alone,
            alone_at: None,
        }
    }
}

/// Consensus says something new about who leads. At most one waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaderChanged;

impl Weigh for LeaderChanged {}

impl<D: Disk> ShardActor<D> {
    /// Has itself told when who leads may have changed.
    pub(super) fn watch_leader(&self, room: &mut Room<'_, Self>) {
        let mut watch = self.group.watch();
        let changed: Inbox<LeaderChanged> = room.inbox(1);
        room.spawn(async move {
            while watch.changed().await.is_ok() && changed.put(LeaderChanged).await.is_ok() {}
        });
    }

    fn alone_at(&self) -> Option<u64> {
        let members = self.group.members();
        members.index.filter(|_| members.is_settled && members.voters.len() == 1)
    }

    /// Opens the queues where this member has come to lead, and closes them where it has ceased to: what it
    /// gives resolves when those are closed.
    pub(super) fn look_at_leader(&mut self) -> Vec<Stopped> {
        let Some(told) = &self.leading else { return Vec::new() };
        let status = self.group.status();
        // What a temporary queue had in an earlier term is gone.
        let is_new_life = self.ground.rings.borrow_mut().follow(Term(status.term));
        let leads = status.ready && !status.lease_left.is_zero() && self.stage == Stage::Serving;
        // One whose lease is over does not name itself: the others may have elected somebody.
        let leader = status.leader.filter(|_| leads || !status.is_leader);
        self.ground.leader.set(leader);
        let led = self.ground.leads.replace(leads);
        let now = ShardStanding {
            reign: told.borrow().reign + u64::from(leads && !led),
            leads,
            leader: leader.map(BrokerId),
            term: Term(status.term),
            is_replicated: true,
            alone_at: if leads { self.alone_at() } else { None },
        };
        let shard = self.ground.shard;
        if leads && !led {
            tracing::info!(%shard, term = status.term, "leads its shard");
            // Footers of older segments still name topics that were dropped later.
            let machine = self.ground.machine.borrow();
            let mut log = self.ground.log.borrow_mut();
            log.index_retain(|topic| machine.state.topic(topic).is_some());
            drop((machine, log));
            self.queues.follow_state();
            self.groups.follow_state();
        }
        // Told before those who wait here are: they come again where the routes lead them.
        told.send_if_modified(|before| std::mem::replace(before, now) != now);
        if !led || leads {
            if led && is_new_life {
                self.queues.wake(); // who waits in a temporary one waits where nothing comes any more
            }
            return Vec::new();
        }
        tracing::info!(%shard, term = status.term, leader, "follows now");
        let mut stops = self.queues.stop();
        stops.extend(self.groups.stop());
        stops
    }
}

//! What the actors of one shard share on their arbiter: its log and its state.
//!
//! Borrows are short and never held across an await or a message.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use grus_consensus::{ApplyContext, IndexSink, Item, RestoreError, StateMachine};
use grus_log::{Disk, Log, Part, Position, Run};
use grus_mailbox::Inbox;
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Durability, QueueKey, ShardId, Term};

use crate::commands::{
    APPEND_HEADER_BYTES, APPEND_ONCE_HEADER_BYTES, Command, KIND_APPEND_ONCE, is_known,
};
use crate::delay_wheel::messages::TimersStored;
use crate::error::QueueError;
use crate::group_tallies::GroupTallies;
use crate::machine::{Appended, IndexChange, Machine, Moment, Outcome, ReleasedRun};
use crate::rings::Rings;
use crate::topic_queue::Applied;

/// A shard's log and state, as its actors see them.
pub struct Ground<D: Disk> {
    /// The shard.
    pub shard: ShardId,
    /// What its receipts promise.
    pub durability: Durability,
    /// The log; consensus writes it, readers slice it.
    pub log: Rc<RefCell<Log<D>>>,
    /// The state; consensus applies to it, queues read it.
    pub machine: Rc<RefCell<ShardMachine>>,
    /// True while an entry waits for room in the log: work that was done for the log may have
    /// made some.
    pub starved: Cell<bool>,
    /// Whether queues are served here: a member that does not lead, or whose lease is over, has none.
    pub leads: Cell<bool>,
    /// Whether nobody else can lead at this very moment; none where this broker has the shard alone.
    pub(crate) lease: OnceCell<Box<dyn Fn() -> bool>>,
    /// The broker that leads, as far as is known here.
    pub leader: Cell<Option<u64>>,
    /// False after a start on a full disk, until there is room for the leader's first entry: what
    /// is applied may end before what was acknowledged.
    pub complete: Cell<bool>,
    /// When somebody last sent messages or answered for some, on the monotonic clock; none: nobody has yet.
    pub(crate) worked_at_ms: Cell<Option<u64>>,
    /// The queues of temporary topics, of the term that is on.
    pub(crate) rings: RefCell<Rings>,
    /// What was done for groups in its queues.
    pub tallies: RefCell<GroupTallies>,
}

impl<D: Disk> Ground<D> {
    /// Whether nobody else leads the shard: what is here is the end of its queues, and whoever holds them
    /// here does so. Looked at whenever that is told, for between two ticks the process may have been
    /// stopped for longer than its lease. Some 100 ns; nothing where the shard has one member.
    pub(crate) fn holds_lease(&self) -> bool {
        self.lease.get().is_none_or(|holds| holds())
    }

    /// The largest item that the log takes in an entry, in bytes as it is encoded.
    pub(crate) fn item_bytes_max(&self) -> usize {
        let overhead = super::ENTRY_HEADER_BYTES + super::ITEM_HEADER_BYTES;
        self.log.borrow().entry_bytes_max().saturating_sub(overhead)
    }

    /// What is answered without the lease.
    pub(crate) fn not_leader(&self) -> QueueError {
        // It is not known yet who leads instead.
        let leader = self.leader.get().filter(|_| !self.leads.get());
        QueueError::NotLeader { leader }
    }
}

/// Where queues are told that they have changed.
pub(crate) type ChangedPorts = Rc<RefCell<BTreeMap<QueueKey, Inbox<Applied>>>>;

/// The state machine as consensus drives it: decodes items, feeds the index, wakes queues.
#[derive(Debug)]
pub struct ShardMachine {
    /// The state.
    pub state: Machine,
    changed: ChangedPorts,
    /// Where the wheel is told that messages were stored for later.
    pub(crate) stored: Option<Inbox<TimersStored>>,
}

impl ShardMachine {
    /// An empty state that tells `changed`.
    pub(crate) fn new(shard: ShardId, changed: ChangedPorts) -> Self {
        Self { state: Machine::new(shard), changed, stored: None }
    }
}

const fn moment(context: &ApplyContext, byte: u32) -> Moment {
    Moment { term: Term(context.term), index: context.index, time: context.time, byte }
}

/// A batch that can be seen from now on, `byte` bytes into the entry at `index`.
fn run(index: u64, byte: u32, queue: QueueKey, appended: &Appended, batch: &RecordBatch) -> Run {
    Run {
        queue,
        base: appended.base_offset,
        count: appended.count,
        at: Position { index, byte },
        length: batch.len_bytes(),
        term: appended.term,
        stored: appended.stored,
        born_max: batch.born_max(),
        tag_bloom: batch.tag_bloom(),
    }
}

impl StateMachine for ShardMachine {
    type Reply = Outcome;

    fn knows(&self, kind: u16, _level: u16) -> bool {
        is_known(kind)
    }

    /// # Panics
    /// When an item of a known kind does not read: it was written by a later build, and a replica
    /// that skipped it would differ from its peers. The panic stops the replica.
    fn apply(
        &mut self,
        context: &ApplyContext,
        item: Item,
        index: &mut dyn IndexSink,
    ) -> Self::Reply {
        let Item { kind, byte, bytes } = item;
        let command = Command::decode(kind, bytes).unwrap_or_else(|error| {
            panic!("entry {} holds an item that does not read: {error}", context.index)
        });
        let header_bytes = match kind {
            KIND_APPEND_ONCE => APPEND_ONCE_HEADER_BYTES,
            _ => APPEND_HEADER_BYTES,
        };
        let effect = self.state.apply(moment(context, byte), command);
        match effect.index {
            None => {}
            Some(IndexChange::Dropped(topic)) => index.drop_topic(topic),
            Some(IndexChange::Stored { queue, appended, batch }) => {
                index.add(run(context.index, byte + header_bytes, queue, &appended, &batch));
            }
            Some(IndexChange::Released { queue, runs }) => {
                for ReleasedRun { place, appended, batch } in runs {
                    index.add(run(context.index, byte + place, queue, &appended, &batch));
                }
            }
        }
        effect.outcome
    }

    fn entry_applied(&mut self, context: &ApplyContext) {
        self.state.entry_applied(moment(context, 0));
        if self.state.timers().has_fresh()
            && let Some(wheel) = &self.stored
        {
            // Full: one is waiting already, and will see these too.
            let _ = wheel.try_put(TimersStored);
        }
        let ports = self.changed.borrow();
        for queue in self.state.take_changed() {
            if let Some(port) = ports.get(&queue) {
                // Full: one is waiting already, and will see this change too.
                let _ = port.try_put(Applied);
            }
        }
    }

    fn dirty_parts(&mut self) -> Vec<Part> {
        self.state.dirty_parts()
    }

    fn all_parts(&self) -> Vec<Part> {
        self.state.all_parts()
    }

    fn freeze(&mut self, whole: bool) -> bool {
        self.state.freeze(whole);
        true
    }

    fn frozen_parts(&mut self, parts: &mut Vec<Part>) -> Option<u64> {
        self.state.frozen_parts(parts)
    }

    fn restore(&mut self, parts: Vec<Part>) -> Result<(), RestoreError> {
        self.state.restore(parts).map_err(|error| RestoreError::new(&error.key(), &error))
    }

    fn digest(&self) -> u64 {
        self.state.digest()
    }
}

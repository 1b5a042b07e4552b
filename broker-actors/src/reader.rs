//! Reader: waits for the disk in place of those who must not, so that a lagging consumer never
//! stalls the arbiter that producers live on.
//!
//! ```text
//! TopicQueue --ReadCold (the fetch inside)--> [Reader] --Warmed--> TopicQueue --> Connection
//! DelayWheel -ReadBodies--------------------> [Reader] --its port---> DelayWheel
//! Shard ------CheckEntries------------------> [Reader] --Checked-> Storage
//! consensus --ReadForConsensus (the answer port inside)--> [Reader]
//! ```
//!
//! * Owns: nothing; what it works on travels in the message. Its reads give way to syncs
//!   ([`DiskTurns`]).
//! * Lives on: its own arbiter, which the disk may hold up. May serve several shards.
//! * Inbox: `ReadCold`, full means too many readers of old messages, which they are told;
//!   `ReadBodies`, one for each question to a shard's wheel, and a few; `CheckEntries`, one per shard;
//!   `ReadForConsensus`, a few per shard.
//! * Talks to: TopicQueue, DelayWheel, Storage.
//! * Stops: with its shard.
//! * If it panics: it is rebuilt. What it was asked goes back to the queue unread ([`ColdWork`]), which
//!   tries again or says so.

use grus_consensus::Reading;
use grus_log::{FaultIn, Scrub};
use grus_mailbox::{Credit, Inbox, Port, PutError, Receive, Resident, Room, Weigh};

use crate::disk_turns::DiskTurns;
use crate::storage::Checked;
use crate::topic_queue::{Cold, Warmed};

/// Cold reads that may wait.
pub const COLD_READS_MAX: u32 = 256;
/// Checkpoints that may wait to be read for consensus.
pub const CONSENSUS_READS_MAX: u32 = 16;

/// Brings batches into memory, then hands the fetch or the turn back to its queue.
#[derive(Debug)]
pub(crate) struct ReadCold {
    pub(crate) fault_in: FaultIn,
    pub(crate) work: ColdWork,
}

impl Weigh for ReadCold {}

/// Who wants what is not in memory, on the way to the Reader and back. Dropped on the way, as when
/// the Reader panics, it goes back as not read.
#[derive(Debug)]
pub(crate) struct ColdWork {
    cold: Option<Cold>,
    queue: Inbox<Warmed>,
}

impl ColdWork {
    pub(crate) fn new(cold: Cold, queue: Inbox<Warmed>) -> Self {
        Self { cold: Some(cold), queue }
    }

    /// Who wants it, when the Reader did not take it.
    pub(crate) fn refused(mut self) -> Option<Cold> {
        self.cold.take()
    }

    fn is_given_up(&self) -> bool {
        self.cold.as_ref().is_none_or(Cold::is_given_up)
    }

    fn goes_back(&mut self, batches_max: Option<usize>) {
        let Some(cold) = self.cold.take() else { return };
        match self.queue.try_put(Warmed { cold, batches_max }) {
            Ok(()) => {}
            // A panic that goes on is the one to be told.
            Err(PutError::Full(_)) => {
                assert!(std::thread::panicking(), "a queue has room for its own reads");
            }
            Err(PutError::Stopped(warmed)) => warmed.cold.stopped(),
        }
    }
}

impl Drop for ColdWork {
    fn drop(&mut self) {
        self.goes_back(None);
    }
}

/// Checks entries that nobody in this process has read yet.
#[derive(Debug)]
pub(crate) struct CheckEntries {
    pub(crate) scrub: Scrub,
    pub(crate) storage: Inbox<Checked>,
}

impl Weigh for CheckEntries {}

/// Brings scheduled messages into memory, then tells the wheel that asked.
#[derive(Debug)]
pub(crate) struct ReadBodies {
    pub(crate) fault_in: FaultIn,
    /// Gets the word that it is done.
    pub(crate) done: Port<()>,
}

impl Weigh for ReadBodies {}

/// Something that consensus has to read from the disk.
pub(crate) struct ReadForConsensus(pub(crate) Reading);

impl Weigh for ReadForConsensus {}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) disk: DiskTurns,
}

impl Resident for Reader {}

impl Receive<ReadCold> for Reader {
    fn receive(&mut self, msg: ReadCold, _credit: Credit, _room: &mut Room<'_, Self>) {
        let ReadCold { fault_in, mut work } = msg;
        if work.is_given_up() {
            drop(work.refused());
            return;
        }
        let batches_max = fault_in.run(|| self.disk.give_way());
        work.goes_back(Some(batches_max));
    }
}

impl Receive<ReadBodies> for Reader {
    fn receive(&mut self, msg: ReadBodies, _credit: Credit, _room: &mut Room<'_, Self>) {
        // What cannot be read is found out by who slices it.
        msg.fault_in.run(|| self.disk.give_way());
        msg.done.send(());
    }
}

impl Receive<ReadForConsensus> for Reader {
    fn receive(&mut self, msg: ReadForConsensus, _credit: Credit, _room: &mut Room<'_, Self>) {
        (msg.0)();
    }
}

impl Receive<CheckEntries> for Reader {
    fn receive(&mut self, msg: CheckEntries, credit: Credit, _room: &mut Room<'_, Self>) {
        let done = msg.scrub.run();
        // Stopped: the shard has gone, and nobody asks any more.
        let _ = msg.storage.try_put(Checked { done, credit });
    }
}

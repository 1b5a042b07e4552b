//! What the Registry hears from its own state machine.

use std::cell::Cell;
use std::rc::Rc;

use grus_mailbox::{Inbox, Weigh};

use crate::disk_store::AppliedAt;
use crate::machine::{Applied, Change};
use crate::materialiser::Write;

/// The state has changed.
#[derive(Debug)]
pub(crate) struct StateChanged;

impl Weigh for StateChanged {}

/// What was heard of applied entries.
#[derive(Default)]
pub(crate) struct Heard {
    /// Counts them.
    pub(super) sequence: Cell<u64>,
    /// The last one.
    pub(super) last: Cell<Option<AppliedAt>>,
    /// The copy in sled has missed something, and was not given the whole state since.
    pub(super) copy_behind: Cell<bool>,
}

/// Passes on what the state machine tells.
pub(crate) struct Ear {
    pub(crate) heard: Rc<Heard>,
    pub(crate) writes: Inbox<Write>,
    pub(crate) changed: Inbox<StateChanged>,
}

impl Applied for Ear {
    fn applied(&mut self, index: u64, term: u64, changes: Vec<Change>) {
        let at = AppliedAt { index, term };
        let sequence = self.heard.sequence.get() + 1;
        self.heard.sequence.set(sequence);
        self.heard.last.set(Some(at));
        if !changes.is_empty() {
            let _ = self.changed.try_put(StateChanged); // one that waits is enough
        }
        if self.writes.try_put(Write { sequence, at, changes }).is_err() {
            self.heard.copy_behind.set(true);
        }
    }

    fn replaced(&mut self) {
        self.heard.sequence.set(self.heard.sequence.get() + 1);
        self.heard.copy_behind.set(true);
        let _ = self.changed.try_put(StateChanged);
    }
}

//! The registry as a state machine of its replicated log: what an entry changes, in which parts,
//! and what it answers. Deterministic: time and ids come with the commands.

use std::collections::BTreeSet;

use bytes::Bytes;
use grus_consensus::{ApplyContext, IndexSink, Item, Part, RestoreError, StateMachine};
use grus_protocol::ids::TimestampMs;
use xxhash_rust::xxh3::xxh3_64;

use crate::command::Command;
use crate::error::RegistryError;
use crate::part::{self, PartError, PartKey};
use crate::state::{Answer, State};

/// A part that changed: its new value, or that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The part.
    pub key: Bytes,
    /// Its value; `None`: it is gone.
    pub value: Option<Bytes>,
}

/// Told what each applied entry changed. For whoever keeps a copy of the state elsewhere.
pub trait Applied {
    /// The entry of this index and term has been applied. Called for every entry, in order, also
    /// for those that changed nothing.
    fn applied(&mut self, index: u64, term: u64, changes: Vec<Change>);
    /// The state was replaced as a whole.
    fn replaced(&mut self);
}

/// The registry's state machine.
pub struct RegistryMachine {
    state: State,
    /// Changed since the last checkpoint.
    dirty: BTreeSet<PartKey>,
    /// Changed by the entry under way.
    entry: BTreeSet<PartKey>,
    applied: Box<dyn Applied>,
}

impl RegistryMachine {
    /// An empty registry, whose changes are told to `applied`.
    pub fn new(applied: impl Applied + 'static) -> Self {
        Self {
            state: State::default(),
            dirty: BTreeSet::new(),
            entry: BTreeSet::new(),
            applied: Box::new(applied),
        }
    }

    /// Topics, brokers and shards as they are now.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Applies one item of an entry.
    ///
    /// # Errors
    /// What the command asks for cannot be done, or it cannot be read: an answer like any other,
    /// the same on every replica.
    pub fn apply_item(&mut self, time: TimestampMs, kind: u16, bytes: &[u8]) -> Answer {
        let command = Command::decode(kind, bytes)
            .map_err(|error| RegistryError::Unreadable { reason: error.to_string() })?;
        self.state.apply(time, command, &mut self.entry)
    }

    /// Ends an entry: tells what all its items changed.
    pub fn end_entry(&mut self, index: u64, term: u64) {
        let changes = self.entry.iter().map(|key| self.change(*key)).collect();
        self.dirty.append(&mut self.entry);
        self.applied.applied(index, term, changes);
    }

    fn change(&self, key: PartKey) -> Change {
        Change { key: key.encode(), value: part::value(&self.state, key) }
    }

    /// The parts changed since the last call.
    pub fn take_dirty(&mut self) -> Vec<Change> {
        self.dirty.append(&mut self.entry);
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|key| self.change(key)).collect()
    }

    /// All parts, in the order of their keys' kinds and numbers.
    pub fn parts(&self) -> Vec<Change> {
        part::keys(&self.state).map(|key| self.change(key)).collect()
    }

    /// Replaces the whole state by these parts.
    ///
    /// # Errors
    /// The key of a part that cannot be taken, and why; nothing is changed then.
    pub fn replace<'a>(
        &mut self,
        parts: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), (Vec<u8>, PartError)> {
        self.state = part::restore(parts)?;
        self.dirty.clear();
        self.entry.clear();
        self.applied.replaced();
        Ok(())
    }

    /// A digest of the whole state: XXH3 of all parts, each with the lengths of key and value.
    pub fn state_digest(&self) -> u64 {
        digest(self.parts().iter().filter_map(|part| Some((&*part.key, part.value.as_deref()?))))
    }
}

impl StateMachine for RegistryMachine {
    type Reply = Answer;

    fn apply(&mut self, context: &ApplyContext, item: Item, _: &mut dyn IndexSink) -> Answer {
        self.apply_item(context.time, item.kind, &item.bytes)
    }

    fn knows(&self, kind: u16, _level: u16) -> bool {
        Command::knows(kind)
    }

    fn entry_applied(&mut self, context: &ApplyContext) {
        self.end_entry(context.index, context.term);
    }

    fn dirty_parts(&mut self) -> Vec<Part> {
        self.take_dirty().into_iter().map(Part::from).collect()
    }

    fn all_parts(&self) -> Vec<Part> {
        self.parts().into_iter().map(Part::from).collect()
    }

    fn restore(&mut self, parts: Vec<Part>) -> Result<(), RestoreError> {
        let there = parts.iter().filter_map(|part| Some((&*part.key, part.value.as_deref()?)));
        self.replace(there).map_err(|(key, error)| RestoreError::new(&key, error))
    }

    fn digest(&self) -> u64 {
        self.state_digest()
    }
}

impl From<Change> for Part {
    fn from(Change { key, value }: Change) -> Self {
        Self { key, value }
    }
}

/// The digest of parts, in this order.
pub fn digest<'a>(parts: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> u64 {
    let mut all = Vec::new();
    for (key, value) in parts {
        all.extend_from_slice(&(key.len() as u64).to_le_bytes());
        all.extend_from_slice(key);
        all.extend_from_slice(&(value.len() as u64).to_le_bytes());
        all.extend_from_slice(value);
    }
    xxh3_64(&all)
}

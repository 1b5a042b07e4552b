//! The two tasks at the edge of a connection: one reads its socket, one writes it.
//!
//! ```text
//! socket --frames--> [reader] --requests--> queues, registry link
//!                       ^ room                     | answers
//! socket <--writev-- [writer] <-------- outlet ----'
//! ```
//!
//! Both run on the connection's arbiter and share its [`Gate`]: the reader waits there while the
//! connection has too much under way, which is how a client is slowed down. Replies that are
//! ready together leave in one vectored write, and so do deliveries, for which the writer gives
//! out turns ([`turns`]).

pub mod alarm;
pub(crate) mod peer;
pub mod reader;
pub mod turns;
pub mod writer;

use std::cell::{Cell, RefCell};

use tokio::sync::Notify;

use crate::connection::budget::{Budget, BudgetLimits, Load};
use crate::connection::facts::Facts;
use crate::connection::liveness::Pulse;

/// What reader, writer and actor of one connection share, all on one thread.
#[derive(Debug)]
pub struct Gate {
    budget: RefCell<Budget>,
    room: Notify,
    quiet: Notify,
    frames_read: Cell<u64>,
    partial_bytes: Cell<u64>,
    bytes_written: Cell<u64>,
    output_waits: Cell<bool>,
    greeted: Cell<bool>,
    facts: RefCell<Facts>,
}

impl Gate {
    /// Nothing is under way.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        Self {
            budget: RefCell::new(Budget::new(limits)),
            room: Notify::new(),
            quiet: Notify::new(),
            frames_read: Cell::new(0),
            partial_bytes: Cell::new(0),
            bytes_written: Cell::new(0),
            output_waits: Cell::new(false),
            greeted: Cell::new(false),
            facts: RefCell::default(),
        }
    }

    /// Waits until another request may be taken.
    pub async fn wait_for_room(&self) {
        while !self.budget.borrow().has_room() {
            self.room.notified().await;
        }
    }

    /// A whole request of `bytes` is taken.
    pub fn request_taken(&self, bytes: u32) {
        self.frames_read.set(self.frames_read.get() + 1);
        self.budget.borrow_mut().request_taken(bytes);
    }

    /// The peer is waited for, and has sent so many bytes of its next frame; 0 while it is not.
    pub fn waits_with(&self, partial_bytes: usize) {
        self.partial_bytes.set(partial_bytes as u64);
    }

    /// A frame that asks nothing arrived.
    pub fn frame_ignored(&self) {
        self.frames_read.set(self.frames_read.get() + 1);
    }

    /// The reply to a request of `bytes` is written.
    pub fn request_over(&self, bytes: u32) {
        self.budget.borrow_mut().request_over(bytes);
    }

    /// Replies of so many bytes wait for the peer, which has just taken `written` more.
    pub fn output_is(&self, waiting: u64, written: u64) {
        self.bytes_written.set(self.bytes_written.get() + written);
        self.output_waits.set(waiting > 0);
        self.budget.borrow_mut().output_is(waiting);
        if self.budget.borrow().has_room() {
            self.room.notify_one();
        }
    }

    /// Hello was accepted.
    pub fn greet(&self) {
        self.greeted.set(true);
    }

    /// Whether Hello was accepted.
    pub fn is_greeted(&self) -> bool {
        self.greeted.get()
    }

    /// What is known of the peer.
    pub const fn facts(&self) -> &RefCell<Facts> {
        &self.facts
    }

    /// What is under way.
    pub fn load(&self) -> Load {
        self.budget.borrow().load()
    }

    /// What has happened so far.
    pub fn pulse(&self) -> Pulse {
        Pulse {
            frames_read: self.frames_read.get(),
            partial_bytes: self.partial_bytes.get(),
            bytes_written: self.bytes_written.get(),
            output_waits: self.output_waits.get(),
            greeted: self.greeted.get(),
        }
    }

    /// Has the reader give its buffer back while nothing comes.
    pub fn hush(&self) {
        self.quiet.notify_waiters();
    }

    /// Resolves when the connection has gone quiet.
    pub async fn hushed(&self) {
        self.quiet.notified().await;
    }
}

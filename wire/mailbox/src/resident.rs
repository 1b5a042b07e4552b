//! What an actor is to the rest of the code: plain state that receives messages.

use crate::credit::{Credit, Weigh};
use crate::room::Room;

/// The state of an actor. It lives on one arbiter and never leaves it, so it may hold `Rc`s; its
/// factory builds it there, and builds it again after a panic.
pub trait Resident: Sized + 'static {
    /// Called once it has been built, before any message: the first time, and after a panic.
    fn started(&mut self, room: &mut Room<'_, Self>) {
        let _ = room;
    }

    /// Called when it is told to stop, after all messages that were put before. It stops at once,
    /// unless it calls [`Room::linger`] here: then it goes on receiving until [`Room::stop`].
    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        let _ = room;
    }
}

/// An actor that takes messages of type `M`.
pub trait Receive<M: Weigh + Send + 'static>: Resident {
    /// Deals with one message. Returns at once: no await, no lock, no file, nothing above 500 µs.
    /// Drop `credit` when the work is over (on disk, on the wire), not when this returns.
    fn receive(&mut self, msg: M, credit: Credit, room: &mut Room<'_, Self>);
}

/// Received after [`Room::notify_drained`], once all that waited in the mailbox has been received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained;

impl Weigh for Drained {}

//! Hooks of the program before and after what a client does.

use std::fmt;
use std::sync::Arc;

use crate::error::SendError;
use crate::guard::Guard;
use crate::message::Message;
use crate::read::Delivered;
use crate::receipt::Receipt;

/// Sees every message of a client. All methods do nothing unless they are written.
///
/// They are called for every way of sending: [`send`](crate::Producer::send),
/// [`enqueue`](crate::Producer::enqueue), [`send_async`](crate::Producer::send_async),
/// [`send_one_way`](crate::Producer::send_one_way), and for each message of a batch. One that
/// panics is counted ([`Client::panics`](crate::Client::panics)) and passed over: the message goes
/// on as it was before.
///
/// ```
/// use grus_client::{Interceptor, Message};
///
/// struct Trace;
/// impl Interceptor for Trace {
///     fn before_send(&self, message: &mut Message) {
///         *message = std::mem::take(message).header("traceparent", "00-1-2-01");
///     }
/// }
///
/// let mut config = grus_client::ClientConfig::default();
/// config.interceptors.add(Trace);
/// ```
pub trait Interceptor: Send + Sync {
    /// Before a message is sent, on the thread that sends it. It may be changed.
    fn before_send(&self, message: &mut Message) {
        let _ = message;
    }

    /// After a message is acknowledged or has failed, once for each; most often on the client's
    /// thread: it must return at once.
    fn after_send(&self, message: &Message, result: &Result<Receipt, SendError>) {
        let _ = (message, result);
    }

    /// Before the program is given a message, on the thread that asks for it: by
    /// [`Reader::next`](crate::Reader::next) and `next_batch`, as a stream, as a
    /// [`Delivery`](crate::Delivery), by [`Puller`](crate::Puller).
    fn before_receive(&self, message: &Delivered) {
        let _ = message;
    }

    /// After the program is done with it, once for each message it was given: when it asks for the
    /// next one, or drops the reader or the delivery.
    fn after_receive(&self, message: &Delivered, result: Received) {
        let _ = (message, result);
    }
}

/// What became of a message that the program was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// The program came back from it.
    Handled,
    /// The program panicked over it.
    Panicked,
}

/// The interceptors of a client, called in the order in which they were added.
#[derive(Clone, Default)]
pub struct Interceptors(Vec<Arc<dyn Interceptor>>);

impl Interceptors {
    /// Adds one behind the others.
    pub fn add(&mut self, interceptor: impl Interceptor + 'static) {
        self.0.push(Arc::new(interceptor));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn before_send(&self, guard: &Guard, message: &mut Message) {
        for interceptor in &self.0 {
            let mut changed = message.clone();
            let done = guard.call("before_send", || interceptor.before_send(&mut changed));
            if done.is_some() {
                *message = changed;
            }
        }
    }

    pub(crate) fn after_send(
        &self,
        guard: &Guard,
        message: &Message,
        result: &Result<Receipt, SendError>,
    ) {
        for interceptor in &self.0 {
            guard.call("after_send", || interceptor.after_send(message, result));
        }
    }

    pub(crate) fn before_receive(&self, guard: &Guard, message: &Delivered) {
        for interceptor in &self.0 {
            guard.call("before_receive", || interceptor.before_receive(message));
        }
    }

    pub(crate) fn after_receive(&self, guard: &Guard, message: &Delivered, result: Received) {
        for interceptor in &self.0 {
            guard.call("after_receive", || interceptor.after_receive(message, result));
        }
    }
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} interceptors", self.0.len())
    }
}

//! The receiving half of interceptors: what the program has in hand, and what became of it.

use crate::client::Client;
use crate::guard::Guard;
use crate::interceptor::{Interceptors, Received};
use crate::read::Delivered;

/// The interceptors of a client that has some.
#[derive(Debug, Clone)]
pub(crate) struct ReceiveHooks {
    interceptors: Interceptors,
    guard: Guard,
}

impl ReceiveHooks {
    pub(crate) fn of(client: &Client) -> Option<Self> {
        let interceptors = client.core.config.interceptors.clone();
        let guard = client.core.guard.clone();
        (!interceptors.is_empty()).then_some(Self { interceptors, guard })
    }

    /// The program is given a message.
    pub(crate) fn before(&self, message: &Delivered) {
        self.interceptors.before_receive(&self.guard, message);
    }

    /// The program is done with it.
    pub(crate) fn after(&self, message: &Delivered) {
        let panicked = std::thread::panicking();
        let result = if panicked { Received::Panicked } else { Received::Handled };
        self.interceptors.after_receive(&self.guard, message, result);
    }
}

/// Messages that the program was given and has not come back from.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    hooks: Option<ReceiveHooks>,
    messages: Vec<Delivered>,
}

impl InHand {
    pub(crate) fn new(hooks: Option<ReceiveHooks>) -> Self {
        Self { hooks, messages: Vec::new() }
    }

    /// The program is about to be given this one.
    pub(crate) fn give(&mut self, message: &Delivered) {
        if let Some(hooks) = &self.hooks {
            hooks.before(message);
            self.messages.push(message.clone());
        }
    }

    /// The program has come back: it is done with what it was given.
    pub(crate) fn done(&mut self) {
        if let Some(hooks) = &self.hooks {
            self.messages.drain(..).for_each(|message| hooks.after(&message));
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.done();
    }
}

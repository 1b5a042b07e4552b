//! The alarm of a connection: answers `Timeout` for requests whose time is up.
//!
//! Its task begins with the first such request and ends with the reader, on the connection's
//! thread. Whoever was asked answers later to nobody; what it has under way stays bounded by its
//! own inboxes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use grus_mailbox::{Clock, Inbox};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::connection::replies::{Outgoing, ReplyTo};
use crate::connection::timeouts::{Timed, Timeouts};

/// What is told to a client whose request was not done in time.
const LATE: &str = "not done within the time the request gave; it may still be done";

/// See the module documentation.
#[derive(Debug)]
pub struct Alarm {
    clock: Clock,
    writer: Inbox<Outgoing>,
    watched: Rc<Watched>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Watched {
    timeouts: RefCell<Timeouts>,
    /// The most urgent one is another now.
    changed: Notify,
}

impl Alarm {
    /// Watches nothing yet; late answers go to `writer`.
    #[must_use]
    pub fn new(clock: Clock, writer: Inbox<Outgoing>) -> Self {
        Self { clock, writer, watched: Rc::default(), task: None }
    }

    /// From now on `reply` is answered within `limit`, by whomever.
    pub fn watch(&mut self, reply: &mut ReplyTo, limit: Duration) -> Timed {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let timed = reply.timed(self.clock.monotonic_ms().saturating_add(limit_ms));
        if self.watched.timeouts.borrow_mut().add(timed.clone()) {
            self.watched.changed.notify_one();
        }
        if self.task.is_none() {
            let watched = Rc::clone(&self.watched);
            self.task =
                Some(tokio::task::spawn_local(ring(watched, self.clock, self.writer.clone())));
        }
        timed
    }

    /// Answers at once that time is up, saying why.
    pub fn expire(&self, timed: &Timed, text: &str) {
        expire(&self.writer, timed, text);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn ring(watched: Rc<Watched>, clock: Clock, writer: Inbox<Outgoing>) {
    loop {
        let next_ms = watched.timeouts.borrow_mut().next_ms();
        let Some(next_ms) = next_ms else {
            watched.changed.notified().await;
            continue;
        };
        let wait = Duration::from_millis(next_ms.saturating_sub(clock.monotonic_ms()));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = watched.changed.notified() => {}
        }
        let now_ms = clock.monotonic_ms();
        loop {
            let due = watched.timeouts.borrow_mut().take_due(now_ms);
            let Some(timed) = due else { break };
            expire(&writer, &timed, LATE);
        }
    }
}

fn expire(writer: &Inbox<Outgoing>, timed: &Timed, text: &str) {
    let Some(outgoing) = timed.expired(text) else { return };
    if writer.try_put(outgoing).is_err_and(|refused| refused.is_full()) {
        tracing::error!("a bug: more replies than the budget lets in requests");
    }
}

//! How a consumer says what it waits for: in the log, and to its program.

use grus_mailbox::{Credit, Dropped, Port, Receive, Room, Weigh};

use super::patience::Complaint;
use super::{ConsumerActor, Word};
use crate::router::AskOutlook;

/// What the router knows of brokers, for a complaint.
#[derive(Debug)]
pub(crate) struct Outlook {
    complaint: Complaint,
    brokers: Result<String, Dropped>,
}

impl Weigh for Outlook {}

impl ConsumerActor {
    /// Says what is waited for, once it is known what brokers there are.
    pub(super) fn complain(&self, complaint: Complaint) {
        let Some(own) = &self.own else { return };
        if !complaint.is_of_membership() {
            return self.say(&complaint.to_string());
        }
        let to = own.outlooks.clone();
        let answer = Port::call(move |brokers| {
            let _ = to.try_put(Outlook { complaint, brokers }); // stopped: nobody waits
        });
        // A router that has no room drops the port, which answers.
        let _ = self.parts.router.outlook.try_put(AskOutlook { answer });
    }

    pub(super) fn say(&self, line: &str) {
        let group = &self.parts.identity.group;
        tracing::warn!(%group, "{line}");
        (self.parts.on_word)(Word::Waiting(line));
    }
}

impl Receive<Outlook> for ConsumerActor {
    fn receive(&mut self, outlook: Outlook, _: Credit, room: &mut Room<'_, Self>) {
        let Outlook { complaint, brokers } = outlook;
        let line = brokers.map_or_else(|_| complaint.to_string(), |it| complaint.line(&it));
        if complaint.is_last {
            self.state.gave_up(line);
        } else {
            self.say(&line);
        }
        room.notify_drained();
    }
}

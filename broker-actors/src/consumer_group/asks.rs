//! What is asked of a group's coordinator, and how it is answered or put off.

use grus_log::Disk;
use grus_mailbox::{Credit, Tick};

use super::coordination::Beat;
use super::error::CoordinatorError;
use super::{ConsumerGroup, CoordinatorAsk, Waits, telling};

impl<D: Disk> ConsumerGroup<D> {
    pub(super) fn ask(&mut self, ask: CoordinatorAsk, credit: Credit, tick: Tick) {
        let now = (tick.monotonic_ms, tick.now);
        let Some(coordination) = &mut self.coordination else {
            return ask.fail(if self.is_unreadable {
                CoordinatorError::Unreadable
            } else {
                CoordinatorError::NotLeader
            });
        };
        match ask {
            CoordinatorAsk::Join { joining, reply } => {
                let ticket = self.next_ticket + 1;
                match coordination.join(joining, ticket, now) {
                    Ok(()) => drop(self.ticket(Waits::Join(reply, credit))),
                    Err(refusal) => reply.send(Err(refusal.into())),
                }
            }
            CoordinatorAsk::Heartbeat { member, known, holding, wait_ms, connection, reply } => {
                match coordination.heartbeat(member, (known, &holding), connection, now) {
                    Err(_) => reply.send(Err(CoordinatorError::NoMember)),
                    Ok(Beat::Park) if wait_ms > 0 => {
                        let longest_ms = coordination.heartbeat_ms();
                        let until_ms = tick.monotonic_ms + u64::from(wait_ms.min(longest_ms));
                        // One that waited before has nothing to wait for: the member has said more.
                        if let Some(before) = self.polls.park(member, until_ms, (reply, credit)) {
                            self.answer(member, before);
                        }
                    }
                    Ok(_) => self.answer(member, (reply, credit)),
                }
            }
            CoordinatorAsk::Assign { member, question, topics, reply } => {
                let taken =
                    coordination.answered(member, question, topics.as_deref(), tick.monotonic_ms);
                reply.send(taken.map_err(CoordinatorError::Answer));
            }
            CoordinatorAsk::Leave { member, reply } => {
                let ticket = self.next_ticket + 1;
                match coordination.leave(member, ticket) {
                    Ok(()) => drop(self.ticket(Waits::Leave(reply, credit))),
                    Err(_) => reply.send(Err(CoordinatorError::NoMember)),
                }
            }
            CoordinatorAsk::Orphaned { member, connection } => {
                coordination.orphaned(member, connection, tick.monotonic_ms);
            }
            CoordinatorAsk::Describe { reply } => {
                reply.send(Ok(telling::description(
                    &self.parts.name,
                    self.parts.group,
                    coordination,
                )));
            }
            CoordinatorAsk::MayGo { reply } => reply.send(if coordination.is_empty() {
                Ok(())
            } else {
                Err(CoordinatorError::NotEmpty { members: coordination.book().members().len() })
            }),
        }
    }
}

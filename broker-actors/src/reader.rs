//! Reader: brings batches into memory that are not there, so that a lagging consumer never stalls
//! the arbiter that producers live on.
//!
//! ```text
//! TopicQueue --ReadCold (reply port inside)--> [Reader] --Fetched--> Connection
//! ```
//!
//! * Owns: nothing; a read carries its slices of the mapping and its reply port.
//! * Lives on: its own arbiter, which the disk may hold up.
//! * Inbox: [`ReadCold`]; full means too many readers of old messages, which they are told.
//! * Talks to: whoever waits for the batches.
//! * Stops: with its shard.
//! * If it panics: it is rebuilt; the reader concerned asks again.

use grus_mailbox::{Credit, Port, Receive, Resident, Room, Weigh};

use crate::error::QueueError;
use crate::topic_queue::Fetched;

/// Cold reads that may wait.
pub const COLD_READS_MAX: u32 = 256;

const PAGE_BYTES: usize = 4096;

/// Brings the batches into memory, then answers with them.
#[derive(Debug)]
pub(crate) struct ReadCold {
    pub(crate) fetched: Fetched,
    pub(crate) reply: Port<Result<Fetched, QueueError>>,
    /// Of the queue's inbox of fetches.
    pub(crate) credit: Credit,
}

impl Weigh for ReadCold {}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Reader;

impl Resident for Reader {}

impl Receive<ReadCold> for Reader {
    fn receive(&mut self, msg: ReadCold, _credit: Credit, _room: &mut Room<'_, Self>) {
        let ReadCold { fetched, reply, credit } = msg;
        if !reply.is_closed() {
            for batch in &fetched.batches {
                touch(&batch.bytes);
            }
        }
        reply.send(Ok(fetched));
        drop(credit);
    }
}

/// Reads one byte of each page, which waits for the page to be there.
fn touch(bytes: &[u8]) {
    let mut sum = 0_u8;
    for at in (0..bytes.len()).step_by(PAGE_BYTES) {
        sum ^= bytes[at];
    }
    if let Some(last) = bytes.last() {
        sum ^= last;
    }
    std::hint::black_box(sum);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use grus_mailbox::reply::port;
    use grus_mailbox::{ActorSpec, Clock, FatalPort, Host, Place, Process};
    use grus_protocol::ids::{Offset, Term, TimestampMs};

    use super::*;
    use crate::topic_queue::FetchedBatch;

    #[actix::test]
    async fn batches_come_back_as_they_were_and_one_that_nobody_wants_does_no_harm() {
        let process = Process::new(Clock::system(), FatalPort::channel().0);
        let place = Place::here("reader", &process);
        let host = Host::spawn(&place, ActorSpec::new("Reader", "0"), || Reader);
        let inbox = host.inbox::<ReadCold>(COLD_READS_MAX);
        let batch = FetchedBatch {
            base_offset: Offset(3),
            count: 1,
            term: Term(1),
            stored: TimestampMs(9),
            bytes: Bytes::from(vec![7; 3 * PAGE_BYTES + 1]),
        };
        let end_offset = Offset(4);
        let fetched = Fetched { log_start: Offset(0), end_offset, batches: vec![batch] };
        let read =
            |reply| ReadCold { fetched: fetched.clone(), reply, credit: Credit::unbounded() };
        drop(inbox.put(read(port().0)).await);
        let (reply, answer) = port();
        inbox.put(read(reply)).await.unwrap();
        assert_eq!(answer.await.unwrap(), Ok(fetched.clone()));
        host.stop().await;
    }
}

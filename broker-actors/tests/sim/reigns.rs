//! Members that cease to lead: what they have taken is answered, and what others may know better is not
//! told any more.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use grus_broker::commands::TopicConfig;
use grus_broker::error::QueueError;
use grus_broker::topic_queue::{At, Fetch, Fetched, ListedOffset, QueueAsk, QueueHandle};
use grus_mailbox::reply::port;
use grus_protocol::ids::{Offset, Term};
use grus_protocol::message::TopicKind;

use crate::later::{key, send};
use crate::world::{World, simulate_test, topic};

const QUEUE: u64 = 1;
/// A topic that lies in memory alone.
const IN_MEMORY: u64 = 2;

/// Three members, one of which leads and has the queue open.
async fn three() -> (World, u64) {
    let mut world = World::of(&[1, 2, 3], 31);
    for node in 1..=3 {
        world.start(node).await.unwrap();
    }
    for _ in 0..600 {
        let leader = world.wait_leader().await;
        if world.open_topics(leader, &[topic(QUEUE, 0)]).await {
            return (world, leader);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not opened in a minute");
}

fn body(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

async fn fetch(queue: &QueueHandle, offset: u64, wait_ms: u32) -> Result<Fetched, QueueError> {
    let (reply, answer) = port();
    let (offset, last_term) = (Offset(offset), Term::UNKNOWN);
    let fetch = Fetch { offset, last_term, bytes_max: 1 << 20, wait_ms, reply };
    assert!(queue.fetch.try_put(fetch).is_ok());
    answer.await.expect("an answer")
}

async fn end_of(queue: &QueueHandle) -> Result<ListedOffset, QueueError> {
    let (reply, answer) = port();
    assert!(queue.ask.try_put(QueueAsk::ListOffset { at: At::Last, reply }).is_ok());
    answer.await.expect("an answer")
}

/// As after a SIGSTOP: what is asked comes before the shard has looked at the time.
#[test]
fn without_its_lease_a_leader_does_not_say_where_a_queue_ends() {
    simulate_test(async {
        let (world, leader) = three().await;
        let running = world.running(leader);
        let queue = running.handle.queue(key(QUEUE)).expect("it was opened");
        let sent = send(&queue, &[body(1)], &[]).await;
        assert!(matches!(sent.await, Ok(Ok(_))));
        let at_end = fetch(&queue, 1, 0).await.expect("it leads");
        assert_eq!((at_end.end_offset, at_end.batches.len()), (Offset(1), 0));
        assert_eq!(end_of(&queue).await.map(|listed| listed.offset), Ok(Offset(1)));

        world.cut_all();
        while !running.group.status().lease_left.is_zero() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(running.ground.leads.get(), "the shard has not looked yet");
        let not_leader = QueueError::NotLeader { leader: None };
        for offset in [1, 5] {
            let refused = fetch(&queue, offset, 0).await.expect_err("others may have stored more");
            assert_eq!(refused, not_leader, "offset {offset}");
        }
        assert_eq!(end_of(&queue).await.map(|listed| listed.offset), Err(not_leader));
        let there = fetch(&queue, 0, 0).await.expect("what was acknowledged can be read");
        assert_eq!(there.batches.len(), 1);
    });
}

#[test]
fn a_leader_that_stops_answers_what_its_queues_have_taken() {
    simulate_test(async {
        let (mut world, leader) = three().await;
        let queue = world.running(leader).handle.queue(key(QUEUE)).expect("it was opened");
        let mut stopping = Box::pin(world.stop(leader));
        let is_over = poll_fn(|context| Poll::Ready(stopping.as_mut().poll(context).is_ready()));
        assert!(!is_over.await, "the shard is told to stop");
        let mut receipts = Vec::new();
        for number in 0..1_000 {
            receipts.push(send(&queue, &[body(number)], &[]).await);
        }
        stopping.await;
        for (number, receipt) in receipts.into_iter().enumerate() {
            let stored = receipt.await.map(|stored| stored.map(|it| it.base_offset.0));
            assert_eq!(stored, Ok(Ok(number as u64)));
        }
    });
}

/// What was in memory went with its leader, and no offset of it comes back.
#[test]
fn a_temporary_queue_goes_on_empty_elsewhere_and_takes_nothing_without_a_lease() {
    simulate_test(async {
        let (mut world, leader) = three().await;
        let kind = TopicKind::Temporary.number();
        let in_memory = TopicConfig { kind, ..topic(IN_MEMORY, 0) };
        assert!(world.open_topics(leader, &[in_memory]).await, "nothing happens to its leader");
        let queue = world.running(leader).handle.queue(key(IN_MEMORY)).expect("it was opened");
        let first = send(&queue, &[body(1), body(2)], &[]).await.await;
        let first = first.expect("an answer").expect("it leads");
        assert_eq!(fetch(&queue, first.base_offset.0, 0).await.expect("it leads").batches.len(), 1);

        world.kill(leader).await;
        let queue = loop {
            let next = world.wait_leader().await;
            let opened = world.running(next).handle.queue(key(IN_MEMORY));
            if let Some(queue) = opened {
                break queue;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let listed = end_of(&queue).await.expect("it leads");
        assert_eq!(listed.log_start, listed.end_offset, "it is empty");
        assert!(listed.log_start > Offset(first.base_offset.0 + 1));
        let gone = fetch(&queue, first.base_offset.0, 0).await;
        assert!(matches!(gone, Err(QueueError::OffsetOutOfRange { .. })), "{gone:?}");
        let second = send(&queue, &[body(3)], &[]).await.await;
        let second = second.expect("an answer").expect("it leads");
        assert_eq!(second.base_offset, listed.log_start);

        let leads = world.leader().expect("one leads");
        world.cut_all();
        while !world.running(leads).group.status().lease_left.is_zero() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Whether the shard has looked at the time by then or not.
        let refused = send(&queue, &[body(4)], &[]).await.await;
        assert!(!matches!(refused, Ok(Ok(_))), "{refused:?}");
    });
}

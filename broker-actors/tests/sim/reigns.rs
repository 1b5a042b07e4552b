//! Members that cease to lead: what they have taken is answered, and what others may know better is not
//! told any more.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use grus_broker::error::QueueError;
use grus_broker::topic_queue::{At, Fetch, Fetched, ListedOffset, QueueAsk, QueueHandle};
use grus_mailbox::reply::port;
use grus_protocol::ids::{Offset, Term};

use crate::later::{key, send};
use crate::world::{World, simulate, topic};

const QUEUE: u64 = 1;

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
    simulate(async {
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
    simulate(async {
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

//! Members that cease to lead: what they have taken is answered, and what others may know better is not
//! told any more.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

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

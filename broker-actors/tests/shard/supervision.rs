//! A queue actor that panics: its producers see a short wait, its neighbours nothing.

use grus_broker::topic_queue::QueueAsk;
use grus_mailbox::Dropped;

use crate::bench::{Queue, batch, sim_bench, topic};

#[actix::test]
async fn a_panic_under_load_loses_no_receipt_and_the_queue_serves_on() {
    let bench = sim_bench().await;
    bench.open(topic(1, 2)).await.unwrap();
    let (queue, neighbour) = (bench.queue(1, 0), bench.queue(1, 1));
    let parked = queue.fetch(0, 0, 60_000).await;
    let parked_beside = neighbour.fetch(0, 0, 60_000).await;
    let mut answers = Vec::new();
    for round in 0..3_u8 {
        for number in 0..100_u8 {
            answers.push(queue.send(batch(&[&[round, number]])).await);
            neighbour.send(batch(&[&[round, number]])).await.await.unwrap().unwrap();
        }
        queue.ask.put(QueueAsk::Panic).await.unwrap();
    }
    let mut offsets = Vec::new();
    for answer in answers {
        offsets.push(answer.await.expect("the port travels with the batch").unwrap().base_offset.0);
    }
    assert_eq!(offsets, (0..300).collect::<Vec<_>>());
    assert_eq!(queue.bodies().await.len(), 300);
    assert_eq!(neighbour.bodies().await.len(), 300);
    // The first batch came before the first panic, so it may have answered the parked fetch.
    assert!(matches!(parked.await, Ok(Ok(_)) | Err(Dropped)));
    assert_eq!(parked_beside.await.unwrap().unwrap().batches.len(), 1);

    let restarts = |name: &str| {
        let actors = bench.places.process().census.snapshot();
        let actor = actors.into_iter().find(|actor| actor.name == name).unwrap();
        (actor.kind, actor.restarts)
    };
    assert_eq!(restarts("topic-1/0"), ("TopicQueue", 3));
    assert_eq!(restarts("topic-1/1"), ("TopicQueue", 0));
    bench.stop().await;
}

#[actix::test]
async fn fetches_parked_at_a_panic_lose_their_port_and_later_ones_wait_as_before() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let lost = queue.fetch(0, 0, 60_000).await;
    queue.ask.put(QueueAsk::Panic).await.unwrap();
    assert_eq!(lost.await, Err(Dropped));
    let parked = queue.fetch(0, 0, 60_000).await;
    queue.produce(batch(&[b"a"])).await.unwrap();
    assert_eq!(parked.await.unwrap().unwrap().batches.len(), 1);
    bench.stop().await;
}

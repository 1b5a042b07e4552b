//! Chooses the queue of each message by a function of its own.
//!
//! `cargo run -p grus-client --example queue_choice -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, Message, ProducerConfig, QueueChoice, QueueId};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut config = ProducerConfig::new(&topic)?;
    // Large messages keep to the last queue. Others: RoundRobin, Random, KeyHash, LeastBacklog.
    config.queue_choice =
        QueueChoice::own(
            |message: &Message, queues| {
                if message.body().len() > 100 { QueueId(queues - 1) } else { QueueId(0) }
            },
        );
    let producer = client.producer(config)?;
    for number in 0..count {
        let body = vec![b'x'; if number % 2 == 0 { 10 } else { 1_000 }];
        let receipt = producer.send(Message::new(body)).await?;
        println!("{} queue {} offset {}", receipt.id, receipt.queue, receipt.offset);
    }
    client.close().await;
    Ok(())
}

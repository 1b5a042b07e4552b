//! Sends messages of several customers: those of one customer stay in order, in one queue.
//!
//! `cargo run -p grus-client --example ordered -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, Message, ProducerConfig};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    let mut pending = Vec::new();
    for number in 0..count {
        let customer = format!("customer-{}", number % 3);
        let message = Message::new(format!("{customer}, step {}", number / 3)).order_key(customer);
        pending.push(producer.enqueue(message).await?); // many under way, order kept all the same
    }
    for receipt in pending {
        let receipt = receipt.await?;
        println!("{} queue {} offset {}", receipt.id, receipt.queue, receipt.offset);
    }
    client.close().await;
    Ok(())
}

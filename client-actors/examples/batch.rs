//! Sends messages as one batch: all of them in one queue, in order, without gaps, or none.
//!
//! `cargo run -p grus-client --example batch -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, Message, ProducerConfig};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    let messages = (0..count).map(|number| Message::new(format!("message {number}"))).collect();
    let receipt = producer.send_batch(messages).await?;
    for one in receipt.receipts() {
        println!("{} queue {} offset {}", one.id, one.queue, one.offset);
    }
    client.close().await;
    Ok(())
}

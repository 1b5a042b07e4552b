//! Sends one message after the other, each acknowledged before the next.
//!
//! `cargo run -p grus-client --example send_sync -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, Message, ProducerConfig};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    for number in 0..count {
        let message = Message::new(format!("message {number}")).key("greeting").tag("hello");
        let receipt = producer.send(message).await?;
        println!("{} queue {} offset {}", receipt.id, receipt.queue, receipt.offset);
    }
    client.close().await;
    Ok(())
}

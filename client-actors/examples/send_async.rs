//! Sends without waiting: a callback hears of each message once.
//!
//! `cargo run -p grus-client --example send_async -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, Message, ProducerConfig};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    for number in 0..count {
        let message = Message::new(format!("message {number}"));
        producer.send_async(message, move |result| match result {
            Ok(receipt) => println!("{} is at offset {}", receipt.id, receipt.offset),
            Err(error) => eprintln!("message {number} is not stored: {error}"),
        });
    }
    let flushed = producer.flush().await?;
    println!("{} stored, {} failed", flushed.stored, flushed.failed);
    client.close().await;
    Ok(())
}

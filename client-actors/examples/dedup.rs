//! Sends each payment twice, as a program would that was restarted half way: it is stored once.
//!
//! `cargo run -p grus-client --example dedup -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, Message, ProducerConfig};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    for _ in 0..2 {
        for number in 0..count {
            let message = Message::new("pay 10 EUR").dedup_key(format!("payment-{number}"));
            let receipt = producer.send(message).await?;
            let (offset, duplicate) = (receipt.offset, receipt.duplicate);
            println!("payment {number}: offset {offset}, duplicate {duplicate}");
        }
    }
    client.close().await;
    Ok(())
}

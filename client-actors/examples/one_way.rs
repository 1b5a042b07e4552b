//! Sends what may be lost when the worst comes: no waiting, no errors, not even without a broker.
//!
//! `cargo run -p grus-client --example one_way -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, Message, ProducerConfig};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::start(ClientConfig::new([address]))?; // waits for nobody
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    for number in 0..count {
        producer.send_one_way(Message::new(format!("reading {number}")));
    }
    let closed = producer.close().await?; // so that the program does not end before they left
    println!("{} stored, {} lost", closed.stored, closed.failed);
    client.close().await;
    Ok(())
}

//! Compresses each batch, and lets it grow for some milliseconds so that there is more to gain.
//!
//! `cargo run -p grus-client --example compressed -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;
use std::time::Duration;

use grus_client::{Client, ClientConfig, Compression, Message, ProducerConfig};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut config = ProducerConfig::new(&topic)?;
    config.compression = Compression::Zstd;
    config.linger = Duration::from_millis(20);
    let producer = client.producer(config)?;
    for number in 0..count {
        let body = format!("{{\"order\":{number},\"state\":\"created\",\"region\":\"eu-west\"}}");
        let _receipt_to_come = producer.enqueue(Message::new(body)).await?;
    }
    let flushed = producer.flush().await?;
    println!("{} stored, {} failed", flushed.stored, flushed.failed);
    client.close().await;
    Ok(())
}

//! Reads queue 0 twice: goes back to its first message while it reads.
//!
//! `cargo run -p grus-client --example seek -- greetings 127.0.0.1:6086 10`, the last one being how
//! many messages to read each time.

use std::error::Error;

use grus_client::{Client, ClientConfig, QueueId, Queues, ReaderConfig, StartAt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());
    let count: usize = arguments.next().map_or(Ok(10), |count| count.parse())?;

    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut config = ReaderConfig::new(&topic, StartAt::First)?;
    config.queues = Queues::Only(vec![QueueId(0)]);
    let mut reader = client.reader(config)?;
    for _ in 0..2 {
        for _ in 0..count {
            let message = reader.next().await?;
            println!("{}: {}", message.offset, String::from_utf8_lossy(message.body()));
        }
        // Also StartAt::Last, ::Offset and ::Time; nothing read before comes after it.
        reader.seek(QueueId(0), StartAt::First).await?;
    }
    client.close().await;
    Ok(())
}

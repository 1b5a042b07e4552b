//! Waits for the next messages of queue 0: the broker holds the question until there is one.
//!
//! `cargo run -p grus-client --example long_poll -- greetings 127.0.0.1:6086 10`, the last one being
//! after how many messages to end.

use std::error::Error;
use std::time::Duration;

use grus_client::{Client, ClientConfig, QueueId, StartAt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());
    let mut left: usize = arguments.next().map_or(Ok(usize::MAX), |count| count.parse())?;

    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut puller = client.puller(&topic)?;
    let queue = QueueId(0);
    let mut at = puller.locate(queue, StartAt::First).await?;
    while left > 0 {
        let pulled = puller.long_poll(queue, at, left, Duration::from_secs(15)).await?;
        for message in &pulled.messages {
            println!("{}: {}", message.offset, String::from_utf8_lossy(message.body()));
        }
        left -= pulled.messages.len();
        at = pulled.next;
    }
    client.close().await;
    Ok(())
}

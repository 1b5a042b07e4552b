//! Pulls the messages of queue 0 by explicit questions, thirty at a time, and ends where the queue ends.
//!
//! `cargo run -p grus-client --example pull -- greetings 127.0.0.1:6086`

use std::error::Error;

use grus_client::{Client, ClientConfig, QueueId, StartAt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());

    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut puller = client.puller(&topic)?;
    let queue = QueueId(0);
    let mut at = puller.locate(queue, StartAt::First).await?;
    loop {
        let pulled = puller.pull(queue, at, 30).await?;
        if pulled.messages.is_empty() {
            println!("no message at offset {}", pulled.next.offset);
            break;
        }
        for message in &pulled.messages {
            println!("{}: {}", message.offset, String::from_utf8_lossy(message.body()));
        }
        at = pulled.next; // keep it, and go on there another day
    }
    client.close().await;
    Ok(())
}

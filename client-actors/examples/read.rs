//! Prints a topic from its first message on, and waits for more: until it has read as many as it
//! is told, or is interrupted.
//!
//! `cargo run -p grus-client --example read -- greetings 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, ReaderConfig, StartAt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());

    let count = arguments.next().map_or(Ok(u64::MAX), |count| count.parse())?;

    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut reader = client.reader(ReaderConfig::new(&topic, StartAt::First)?)?;
    for _ in 0..count {
        let message = reader.next().await?;
        let body = String::from_utf8_lossy(message.body());
        println!("{}/{} {}: {body}", message.queue, message.offset, message.id());
    }
    client.close().await;
    Ok(())
}

//! Reads a topic as a `Stream`, with everything that streams can do.
//!
//! `cargo run -p grus-client --example stream -- greetings 127.0.0.1:6086 10`, the last one being
//! after how many messages to end.

use std::error::Error;

use futures_util::{StreamExt, TryStreamExt};
use grus_client::{Client, ClientConfig, ReaderConfig, StartAt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());
    let count: usize = arguments.next().map_or(Ok(usize::MAX), |count| count.parse())?;

    let client = Client::connect(ClientConfig::new([address])).await?;
    let reader = client.reader(ReaderConfig::new(&topic, StartAt::First)?)?;
    let mut bodies = reader.take(count).map_ok(|message| message.body_bytes());
    while let Some(body) = bodies.try_next().await? {
        println!("{}", String::from_utf8_lossy(&body));
    }
    client.close().await;
    Ok(())
}

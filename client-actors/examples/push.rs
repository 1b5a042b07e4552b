//! Has the messages of a topic sent as they come, and takes them batch by batch.
//!
//! `cargo run -p grus-client --example push -- greetings 127.0.0.1:6086 10`, the last one being after
//! how many messages to end.

use std::error::Error;

use grus_client::{Client, ClientConfig, ReadMode, ReaderConfig, StartAt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());
    let mut left: usize = arguments.next().map_or(Ok(usize::MAX), |count| count.parse())?;

    let client = Client::connect(ClientConfig::new([address])).await?;
    let mut config = ReaderConfig::new(&topic, StartAt::First)?;
    config.mode = ReadMode::Push; // the default; `Poll` asks the broker instead
    config.buffer_bytes_max = 1024 * 1024; // the credit: no more is on its way or in hand
    config.fetch_bytes_max = 256 * 1024;
    let mut reader = client.reader(config)?;
    while left > 0 {
        for message in reader.next_batch().await?.into_iter().take(left) {
            let body = String::from_utf8_lossy(message.body());
            println!("{}/{}: {body}", message.queue, message.offset);
            left -= 1;
        }
    }
    client.close().await;
    Ok(())
}

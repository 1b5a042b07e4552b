//! Sends messages for later: each is due a moment after the one before, and every third is taken
//! back before it is.
//!
//! `cargo run -p grus-client --example delayed -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;
use std::time::Duration;

use grus_client::{
    Client, ClientConfig, Message, ProducerConfig, ReaderConfig, ScheduledFilter, StartAt,
};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    let mut reader = client.reader(ReaderConfig::new(&topic, StartAt::First)?)?;
    // Half as many more than are to arrive, as every third is taken back.
    let mut waiting = Vec::new();
    for number in 0..count + count.div_ceil(2) {
        let delay = Duration::from_secs(2) + Duration::from_millis(20 * number);
        let receipt = producer.send(Message::new(format!("later {number}")).delay(delay)).await?;
        waiting.push(receipt.scheduled.ok_or("a message for later has a handle")?);
    }
    let filter = ScheduledFilter::topic(topic.as_str().try_into()?);
    println!("{} messages are scheduled", client.count_scheduled(&filter).await?);
    let thirds: Vec<_> = waiting.iter().skip(2).step_by(3).cloned().collect();
    let recalled = client.recall_all(&thirds).await?;
    println!("{} are taken back", recalled.iter().filter(|taken| **taken).count());
    for _ in 0..count {
        let message = reader.next().await?;
        println!("{}: {}", message.stored, String::from_utf8_lossy(message.body()));
    }
    client.close().await;
    Ok(())
}

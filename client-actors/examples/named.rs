//! A producer with a name: of two programs that run at once by mistake, the newer one stores and
//! the older one hears that it is shut out.
//!
//! `cargo run -p grus-client --example named -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use grus_client::{Client, ClientConfig, Message, ProducerConfig, SendError};

mod arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let earlier = client.producer(ProducerConfig::named(&topic, "billing")?)?;
    earlier.send(Message::new("from the earlier life")).await?;
    let later = client.producer(ProducerConfig::named(&topic, "billing")?)?;
    for number in 1..count {
        later.send(Message::new(format!("message {number}"))).await?;
    }
    match earlier.send(Message::new("from a ghost")).await {
        Err(SendError::Fenced(reason)) => println!("the earlier life is shut out: {reason}"),
        other => return Err(format!("it should be shut out: {other:?}").into()),
    }
    client.close().await;
    Ok(())
}

//! Gives every message a trace id before it is sent, and reports how each one ended.
//!
//! `cargo run -p grus-client --example interceptor -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use grus_client::{Client, ClientConfig, Interceptor, Message, ProducerConfig, Receipt, SendError};

mod arguments;

#[derive(Default)]
struct Trace {
    next: AtomicU64,
}

impl Interceptor for Trace {
    fn before_send(&self, message: &mut Message) {
        let trace = format!("trace-{}", self.next.fetch_add(1, Ordering::Relaxed));
        *message = std::mem::take(message).header("trace", trace);
    }

    fn after_send(&self, _: &Message, result: &Result<Receipt, SendError>) {
        match result {
            Ok(receipt) => println!("{} is stored", receipt.id),
            Err(error) => println!("not stored: {error}"),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let mut config = ClientConfig::new([address]);
    config.interceptors.add(Trace::default());
    let client = Client::connect(config).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    for number in 0..count {
        producer.send(Message::new(format!("message {number}"))).await?;
    }
    client.close().await;
    Ok(())
}

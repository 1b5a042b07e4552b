//! Sends from an actor of the program's own: client and actor share the actix system.
//!
//! * Owns: a producer, and how many orders are booked.
//! * Lives on: the arbiter of `main`. The client's own actors live on one beside it.
//! * Inbox: `Book`, in a plain actix mailbox; the producer bounds what is under way.
//! * Talks to: the broker, by way of its producer.
//! * Stops: with the program. If it panics: so does the program's request.
//!
//! `cargo run -p grus-client --example inside_actix -- TOPIC 127.0.0.1:6086 10`

use std::error::Error;

use actix::{Actor, ActorFutureExt, Context, Handler, Message, ResponseActFuture, WrapFuture};
use grus_client::{Client, ClientConfig, Offset, Producer, ProducerConfig, SendError};

mod arguments;

/// Asks for an order to be booked.
#[derive(Message)]
#[rtype(result = "Result<Offset, SendError>")]
struct Book(u64);

struct Orders {
    producer: Producer,
    booked: u64,
}

impl Actor for Orders {
    type Context = Context<Self>;
}

impl Handler<Book> for Orders {
    type Result = ResponseActFuture<Self, Result<Offset, SendError>>;

    fn handle(&mut self, order: Book, _: &mut Context<Self>) -> Self::Result {
        let producer = self.producer.clone();
        let message = grus_client::Message::new(format!("order {}", order.0));
        let sending = async move { producer.send(message).await }.into_actor(self);
        Box::pin(sending.map(|result, orders, _| {
            orders.booked += u64::from(result.is_ok());
            result.map(|receipt| receipt.offset)
        }))
    }
}

#[actix::main]
#[expect(
    clippy::disallowed_methods,
    reason = "how a program asks its own actors is its own affair"
)]
async fn main() -> Result<(), Box<dyn Error>> {
    let (topic, address, count) = arguments::read();
    let client = Client::connect(ClientConfig::new([address])).await?;
    let producer = client.producer(ProducerConfig::new(&topic)?)?;
    let orders = Orders { producer, booked: 0 }.start();
    for number in 0..count {
        println!("order {number} is at offset {}", orders.send(Book(number)).await??);
    }
    client.close().await;
    Ok(())
}

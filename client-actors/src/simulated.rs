//! A producer's and a consumer's logic alone, for a simulation that has brokers, ways to them and time of its own:
//! what [`Producer`](crate::Producer) and [`Consumer`](crate::Consumer) run, without their actors, their clock and
//! their connections. They are told what happens, and polled for what to do. There with the feature `simulation`,
//! and changed whenever those are.

mod consumer;
mod producer;

pub use consumer::{ConsumerStep, GivenMessage, GivenVerdict, SimulatedConsumer};
pub use producer::{ProducerStep, SentBatch, SimulatedProducer, StoredAt};

//! TopicQueue: one queue, as producers and readers meet it.

pub mod fetch_plan;
pub mod messages;
pub mod parking;
pub mod search;

pub use messages::{
    ASKS_MAX, At, FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX, FETCHES_MAX, Fetch, Fetched, FetchedBatch,
    ListedOffset, OVERLOADED_RETRY_MS, PRODUCE_BYTES_MAX, Produce, QueueAsk, QueueHandle,
    QueueStatus, Receipt,
};

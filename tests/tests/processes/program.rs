//! What every test needs that is a program with the client library in it.

use std::time::Duration;

use grus_client::{Client, ClientConfig, Reader, ReaderConfig, StartAt};
use grus_tests::broker::Home;

/// Longest that a broker may take to be there, on a machine that is busy with other tests.
const CONNECT_WAIT_MAX: Duration = Duration::from_mins(1);

/// Longest that a program may run: one that waits for ever ends with its test's name.
const RUN_MAX: Duration = Duration::from_mins(10);

/// Runs a program on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let bounded = async { tokio::time::timeout(RUN_MAX, work).await };
    runtime.expect("a runtime").block_on(bounded).expect("a program that ends")
}

/// A client that has found its broker.
pub(crate) async fn connect(home: &Home) -> Client {
    let mut config = ClientConfig::new([home.listen.to_string()]);
    config.connect_wait_max = Some(CONNECT_WAIT_MAX);
    Client::connect(config).await.expect("a broker")
}

/// A client that may still be looking for its broker.
pub(crate) fn client(home: &Home) -> Client {
    Client::start(ClientConfig::new([home.listen.to_string()])).expect("a client")
}

/// A reader of all queues of a topic, from the first message on.
pub(crate) fn reader(client: &Client, topic: &str) -> Reader {
    client.reader(ReaderConfig::new(topic, StartAt::First).expect("a name")).expect("a reader")
}

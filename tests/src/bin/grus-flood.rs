//! A producer that sends for `SECONDS` to a broker at `ADDRESS` that is not there: what does not fit is refused,
//! and its memory stays as it is. A process of its own, so that nothing else is measured with it.

use std::time::Duration;

use grus_client::{Client, ClientConfig, Message, ProducerConfig, SendError};
use grus_tests::usage;
use grus_tests::watch::Watch;

/// Most bytes of messages that wait for a broker.
const PENDING_BYTES_MAX: u32 = 8 * 1024 * 1024;

fn main() {
    let mut words = std::env::args().skip(1);
    let address = words.next().expect("ADDRESS SECONDS");
    let seconds = words.next().and_then(|word| word.parse().ok()).expect("ADDRESS SECONDS");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::start(ClientConfig::new([address])).expect("a client");
        let mut config = ProducerConfig::new("t").expect("a name");
        config.pending_bytes_max = PENDING_BYTES_MAX;
        (config.send_timeout, config.retries) = (Duration::from_millis(500), 0);
        let producer = client.producer(config).expect("a producer");
        let memory_kib = || usage::anonymous_memory_kib(std::process::id());
        let watch = Watch::start();
        let (mut full, mut taken, mut filled_kib) = (0_u64, 0_u64, 0);
        while watch.elapsed() < Duration::from_secs(seconds) {
            for _ in 0..100 {
                match producer.try_enqueue(Message::new(vec![b'x'; 1_000])) {
                    Ok(pending) => {
                        drop(pending);
                        taken += 1;
                    }
                    Err(SendError::Full { pending_bytes_max }) => {
                        assert_eq!(pending_bytes_max, PENDING_BYTES_MAX);
                        full += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            if taken > 30_000 && filled_kib == 0 {
                filled_kib = memory_kib(); // filled some times over: messages time out meanwhile
            }
            tokio::task::yield_now().await;
        }
        let now_kib = memory_kib();
        println!(
            "{seconds} s: {taken} taken, {full} refused, {filled_kib} KiB, then {now_kib} KiB"
        );
        assert!(full > 0 && filled_kib > 0, "it fills up");
        assert!(now_kib < filled_kib + 8 * 1024, "{filled_kib} KiB grew to {now_kib} KiB");
    });
}

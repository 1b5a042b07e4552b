//! Compressed batches through the tool and a broker, as scenario S40 has it.

use std::fmt::Write as _;

use grus_tests::broker::Home;

use crate::{create, read_all};

/// Lines that compress well, each by itself already: how many come into a batch depends on how fast
/// the broker answers. And some that do not.
fn lines() -> Vec<String> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..2_000)
        .map(|number| {
            if number % 10 > 0 {
                let order =
                    format!("{{\"order\":{number},\"state\":\"created\",\"region\":\"eu-west\"}}");
                return order.repeat(10);
            }
            (0..8).fold(String::new(), |mut line, _| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                write!(line, "{state:016x}").expect("a string takes text");
                line
            })
        })
        .collect()
}

/// Bytes that the queues of a topic have in the log.
fn stored_bytes(home: &Home, topic: &str) -> u64 {
    let described = home.grus(&["topic", "describe", topic, "--json"]).ok().json();
    let queues = described[0]["queue_list"].as_array().expect("a list of queues").clone();
    queues.iter().map(|queue| queue["bytes"].as_u64().expect("a number")).sum()
}

#[test]
fn s40_bodies_come_back_as_they_went_in_and_take_less_room() {
    let home = Home::new();
    let broker = home.start();
    let lines = lines();
    let input = lines.join("\n") + "\n";
    for how in ["none", "lz4", "zstd"] {
        create(&home, how, 1);
        home.grus_fed(&["produce", how, "--compression", how], input.as_bytes()).ok();
    }
    let plain = stored_bytes(&home, "none");
    for how in ["lz4", "zstd"] {
        let compressed = stored_bytes(&home, how);
        assert!(compressed * 2 < plain, "{how}: {compressed} of {plain} bytes");
    }
    broker.kill();
    let _broker = home.start();
    for how in ["none", "lz4", "zstd"] {
        let read: Vec<_> = read_all(&home, how).into_iter().filter_map(|one| one.body).collect();
        assert!(read == lines, "{how}: bodies differ");
    }
}

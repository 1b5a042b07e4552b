//! What the examples are told: `TOPIC ADDRESS COUNT`, each with a default.

/// Topic, address of a broker, number of messages.
pub fn read() -> (String, String, u64) {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6086".to_owned());
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(10);
    (topic, address, count)
}

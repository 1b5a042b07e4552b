//! All of a message, for people and as JSON. Plain values: no I/O.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use grus_client::FoundMessage;
use grus_protocol::batch::Record;
use serde_json::{Map, Value, json};

use crate::message::{headers_json, value_json};
use crate::units;

/// Longest body that is shown to people; JSON has all of it.
const SHOWN_BYTES_MAX: usize = 64 * 1024;

/// The JSON object of a message: what `consume --json` has, and what else it carries. What it does
/// not have is left out, but for `key` and `tag`, which are null as there.
pub fn to_json(message: &FoundMessage) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("topic", message.topic.as_str().into());
    put("topic_id", message.topic_id.0.into());
    put("queue", message.queue.0.into());
    put("offset", message.offset.0.into());
    put("term", message.term.0.into());
    put("stored", units::rfc3339(message.stored.0).into());
    if let Some(by) = message.sent_by {
        let sent_by = json!({"id": by.producer.0, "epoch": by.epoch.0, "sequence": by.sequence.0});
        put("producer", sent_by);
    }
    object.extend(record_json(message.record()));
    Value::Object(object)
}

/// The fields of what a message carries.
pub fn record_json(record: &Record) -> Map<String, Value> {
    let keys: Vec<Value> = record.keys().map(value_json).collect();
    let headers: Vec<_> = record.headers().collect();
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("id", record.id().to_string().into());
    put("key", keys.first().cloned().into());
    if keys.len() > 1 {
        put("keys", keys.into());
    }
    put("tag", record.tag().into());
    put("headers", headers_json(&headers));
    put("born", units::rfc3339(record.born().0).into());
    put("priority", record.priority().into());
    for (name, value) in more(record) {
        put(name, value);
    }
    match std::str::from_utf8(record.body()) {
        Ok(text) => put("body", text.into()),
        Err(_) => put("body_base64", STANDARD.encode(record.body()).into()),
    }
    object
}

/// What few messages carry.
fn more(record: &Record) -> Vec<(&'static str, Value)> {
    let time = |ms: u64| Value::from(units::rfc3339(ms));
    let fields = [
        ("order_key", record.order_key().map(value_json)),
        ("deliver_at", record.deliver_at().map(|due| time(due.0))),
        ("delay_ms", record.delay_ms().map(Value::from)),
        ("ttl_ms", record.ttl_ms().map(Value::from)),
        ("dedup_key", record.dedup_key().map(value_json)),
        ("lane", record.lane().map(Value::from)),
        ("retry_count", Some(record.retry_count()).filter(|count| *count > 0).map(Value::from)),
        (
            "origin",
            record.origin().map(
                |from| json!({"topic": from.topic, "queue": from.queue.0, "offset": from.offset.0}),
            ),
        ),
        ("tombstone", record.is_tombstone().then(|| true.into())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The lines for people: one for each field, then the body.
pub fn to_lines(message: &FoundMessage) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<9} {value}"));
    line("topic", format!("{} (id {})", message.topic, message.topic_id.0));
    line("queue", message.queue.to_string());
    line("offset", message.offset.to_string());
    line("stored", format!("{}, term {}", units::rfc3339(message.stored.0), message.term.0));
    line(
        "producer",
        message.sent_by.map_or("none".to_owned(), |by| {
            format!("{}, epoch {}, sequence {}", by.producer.0, by.epoch.0, by.sequence.0)
        }),
    );
    lines.extend(record_lines(message.record()));
    lines
}

/// The lines of what a message carries; its body is the last one.
pub fn record_lines(record: &Record) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<9} {value}"));
    line("id", record.id().to_string());
    for key in record.keys() {
        line("key", shown(key));
    }
    if let Some(tag) = record.tag() {
        line("tag", tag.to_owned());
    }
    for (name, value) in record.headers() {
        line("header", format!("{name} = {}", shown(value)));
    }
    line("born", units::rfc3339(record.born().0));
    line("priority", record.priority().to_string());
    for (name, value) in more(record) {
        line(&name.replace('_', " "), value.as_str().map_or(value.to_string(), ToOwned::to_owned));
    }
    let body = record.body();
    let is_text = std::str::from_utf8(body).is_ok();
    let form = if is_text { "" } else { ", in base64" };
    line("body", format!("{} bytes{form}", body.len()));
    let cut = body.len().min(SHOWN_BYTES_MAX);
    lines.push(if is_text {
        String::from_utf8_lossy(&body[..cut]).into_owned()
    } else {
        STANDARD.encode(&body[..cut])
    });
    if cut < body.len() {
        lines.push(format!("... {} bytes more; --json shows all", body.len() - cut));
    }
    lines
}

/// Bytes as text, or in base64 when they are none.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{} (base64)", STANDARD.encode(bytes)),
    }
}

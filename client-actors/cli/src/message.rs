//! A message as the commands print it. Plain values: no I/O.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::lines::Line;
use crate::units;

/// Header of a last line that had no line feed.
pub const LINE_END: &str = "grus-line-end";
/// Its value.
pub const LINE_END_NONE: &str = "none";

/// A header: its name, and its value, which may be any bytes.
pub type Header<'a> = (&'a str, &'a [u8]);

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Queue within the topic.
    pub queue: u32,
    /// Offset within the queue.
    pub offset: u64,
    /// Id, given by the sender.
    pub id: String,
    /// Keys, which may be any bytes.
    pub keys: Vec<&'a [u8]>,
    /// Tag.
    pub tag: Option<&'a str>,
    /// Headers, in order; a name may repeat.
    pub headers: Vec<Header<'a>>,
    /// When the sender made it, in milliseconds since 1970.
    pub born_ms: u64,
    /// When the broker stored it, in milliseconds since 1970.
    pub stored_ms: u64,
    /// Body.
    pub body: &'a [u8],
}

/// The JSON object of a message.
#[derive(Debug, Serialize)]
struct ReadJson<'a> {
    topic: &'a str,
    queue: u32,
    offset: u64,
    id: &'a str,
    key: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Value>>,
    tag: Option<&'a str>,
    headers: Value,
    born: String,
    stored: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl Read<'_> {
    /// Adds the message as `consume` prints it: the body and, unless the sender's last line had none,
    /// a line feed.
    pub fn write_plain(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.body);
        if self.is_terminated() {
            out.push(b'\n');
        }
    }

    /// Adds the message as one line of JSON. A body that is UTF-8 stands in `body`, any other in
    /// `body_base64`; a key or a header's value that is not UTF-8 is `{"base64": ...}`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let text = std::str::from_utf8(self.body).ok();
        let keys: Vec<Value> = self.keys.iter().map(|key| value_json(key)).collect();
        let json = ReadJson {
            topic: self.topic,
            queue: self.queue,
            offset: self.offset,
            id: &self.id,
            key: keys.first().cloned(),
            keys: (keys.len() > 1).then_some(keys),
            tag: self.tag,
            headers: headers_json(&self.headers),
            born: units::rfc3339(self.born_ms),
            stored: units::rfc3339(self.stored_ms),
            body: text,
            body_base64: text.is_none().then(|| STANDARD.encode(self.body)),
        };
        push_json(&json, out);
    }

    /// Whether a line feed followed the body where it was read from.
    fn is_terminated(&self) -> bool {
        !self
            .headers
            .iter()
            .any(|(name, value)| *name == LINE_END && *value == LINE_END_NONE.as_bytes())
    }
}

/// The header that says that a line was not terminated, if it was not.
pub fn line_end_header(line: &Line) -> Option<Header<'static>> {
    (!line.terminated).then_some((LINE_END, LINE_END_NONE.as_bytes()))
}

/// The bytes that `consume --json` printed one object about: the inverse of [`Read::write_json`] with
/// regard to [`Read::write_plain`].
///
/// # Errors
/// One line that says what is wrong with the object.
pub fn plain_from_json(object: &Value) -> Result<Vec<u8>, String> {
    let mut body = match (object.get("body"), object.get("body_base64")) {
        (Some(Value::String(text)), None) => text.clone().into_bytes(),
        (None, Some(Value::String(text))) => {
            STANDARD.decode(text).map_err(|error| format!("body_base64: {error}"))?
        }
        _ => return Err("an object without a body".to_owned()),
    };
    let open = object.get("headers").and_then(|headers| headers.get(LINE_END));
    if open.and_then(Value::as_str) != Some(LINE_END_NONE) {
        body.push(b'\n');
    }
    Ok(body)
}

/// Adds `value` as one line.
pub fn push_json(value: &impl Serialize, out: &mut Vec<u8>) {
    // Writing into a Vec fails only if a map had keys that are not strings, and none has.
    serde_json::to_writer(&mut *out, value).expect("plain values serialise");
    out.push(b'\n');
}

/// Headers as an object; a name that repeats has an array.
pub(crate) fn headers_json(headers: &[Header<'_>]) -> Value {
    let mut object = Map::new();
    for (name, value) in headers {
        let value = value_json(value);
        match object.get_mut(*name) {
            None => {
                object.insert((*name).to_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object)
}

pub(crate) fn value_json(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => Value::from(text),
        Err(_) => serde_json::json!({ "base64": STANDARD.encode(value) }),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(body: &'static [u8]) -> Read<'static> {
        Read {
            topic: "t",
            queue: 2,
            offset: 17,
            id: "0193".to_owned(),
            keys: vec![],
            tag: None,
            headers: vec![],
            born_ms: 1_000,
            stored_ms: 2_000,
            body,
        }
    }

    fn json(message: &Read<'_>) -> Value {
        let mut out = Vec::new();
        message.write_json(&mut out);
        assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1), "one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn plain_and_json_say_the_same_bytes() {
        let bodies: [&[u8]; 6] =
            [b"", b"text", b"cr\r", b"nul\0", b"\xff\xfe", b"quote \" \\ \x1b"];
        for body in bodies {
            for terminated in [true, false] {
                let mut message = read(body);
                let line = Line { number: 1, body: Bytes::new(), terminated };
                message.headers.extend(line_end_header(&line));
                let mut plain = Vec::new();
                message.write_plain(&mut plain);
                assert_eq!(plain.ends_with(b"\n"), terminated);
                assert_eq!(plain_from_json(&json(&message)), Ok(plain));
            }
        }
    }

    #[test]
    fn json_has_the_fields_that_are_documented() {
        let mut message = read(b"hello");
        message.keys = vec![b"k"];
        message.tag = Some("red");
        message.headers =
            vec![("a", &b"1"[..]), ("b", &b"\xff"[..]), ("a", &b"2"[..]), ("a", &b"3"[..])];
        let expected = serde_json::json!({
            "topic": "t", "queue": 2, "offset": 17, "id": "0193", "key": "k", "tag": "red",
            "headers": { "a": ["1", "2", "3"], "b": { "base64": "/w==" } },
            "born": "1970-01-01T00:00:01.000Z", "stored": "1970-01-01T00:00:02.000Z",
            "body": "hello",
        });
        assert_eq!(json(&message), expected);
        message.keys.push(b"l");
        assert_eq!(json(&message)["keys"], serde_json::json!(["k", "l"]));
        assert_eq!(json(&read(b"\xff"))["body_base64"], "/w==");
        assert!(json(&read(b"x")).get("key").unwrap().is_null());
    }

    #[test]
    fn an_object_without_a_body_is_refused() {
        for object in
            ["{}", r#"{"body": 1}"#, r#"{"body_base64": "?"}"#, r#"{"body":"","body_base64":""}"#]
        {
            assert!(plain_from_json(&serde_json::from_str(object).unwrap()).is_err(), "{object}");
        }
    }
}

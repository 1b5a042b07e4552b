//! The third process: `grus consume --json`, and what its lines add up to.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::message::plain_from_json;

/// What was read, in sums that can be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Sums {
    /// Messages.
    pub messages: u64,
    /// SHA-256 of the text they make.
    pub text: String,
    /// SHA-256 of their offsets and ids, in order.
    pub ids: String,
}

/// Adds up messages in the order of their offsets.
#[derive(Default)]
pub struct Summing {
    messages: u64,
    text: Sha256,
    ids: Sha256,
}

impl Summing {
    /// Adds the next message's offset and id.
    pub fn id(&mut self, offset: u64, id: &str) {
        self.messages += 1;
        self.ids.update(format!("{offset} {id}\n"));
    }

    /// Adds the next piece of text.
    pub fn text(&mut self, text: &[u8]) {
        self.text.update(text);
    }

    /// The sums.
    pub fn finish(self) -> Sums {
        let Self { messages, text, ids } = self;
        Sums { messages, text: hex(&text.finalize()), ids: hex(&ids.finalize()) }
    }
}

/// Reads `messages` messages of `topic` from another process.
///
/// # Errors
/// Told: what the process said, or an object that is not a message.
pub fn read_back(broker: SocketAddr, topic: &str, messages: u64) -> Result<Sums, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::because("grus consume", error);
    let exe = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut command = Command::new(exe);
    command.args(["consume", topic, "--json", "--from", "first", "--idle-exit", "3s"]);
    command.args(["--bootstrap", &broker.to_string(), "--max", &messages.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let out = child.stdout.take().expect("standard output is a pipe");
    let mut sums = Summing::default();
    for line in BufReader::with_capacity(1 << 18, out).lines() {
        let line = line.map_err(|error| failed(&error))?;
        let object: Value = serde_json::from_str(&line).map_err(|error| failed(&error))?;
        let text = plain_from_json(&object).map_err(|error| failed(&error))?;
        let (Some(offset), Some(id)) = (object["offset"].as_u64(), object["id"].as_str()) else {
            return Err(failed(&"an object without offset or id"));
        };
        sums.id(offset, id);
        sums.text(&text);
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    if status.success() { Ok(sums.finish()) } else { Err(failed(&status)) }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes all
        text
    })
}

#[test]
fn sums_differ_by_text_id_and_order() {
    let sums = |messages: &[(u64, &str, &str)]| {
        let mut summing = Summing::default();
        for (offset, id, text) in messages {
            summing.id(*offset, id);
            summing.text(text.as_bytes());
        }
        summing.finish()
    };
    let whole = sums(&[(0, "a", "x\n"), (1, "b", "y\n")]);
    assert_eq!(whole, sums(&[(0, "a", "x\ny"), (1, "b", "\n")]));
    assert_ne!(whole.text, sums(&[(0, "a", "y\n"), (1, "b", "x\n")]).text);
    assert_ne!(whole.ids, sums(&[(0, "b", "x\n"), (1, "a", "y\n")]).ids);
    assert_ne!(whole.ids, sums(&[(0, "a", "x\n"), (2, "b", "y\n")]).ids);
    assert_eq!(hex(&[0, 255]), "00ff");
}

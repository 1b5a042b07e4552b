//! Reads what strace wrote about a broker, and judges whether receipts waited for their syncs.
//!
//! The trace is made with [`STRACE`]. One tracer sees all threads stop, so the order of its lines is
//! an order of events: a call that another thread interrupts has two lines, `<unfinished ...>`
//! where it began and `resumed` where it ended.

use std::collections::BTreeMap;

/// The command line of strace, up to the file it writes to.
pub const STRACE: [&str; 8] = [
    "strace",
    "-f",
    "-yy",
    "-xx",
    "-s512",
    "--seccomp-bpf",
    "-etrace=fdatasync,fsync,msync,write,writev,sendto,sendmsg,read,readv,recvfrom,recvmsg",
    "-o",
];

/// Opcode of Produce, and where a frame's fixed head has what is looked at (docs/PROTOCOL.md).
const PRODUCE: u16 = 10;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const HEAD_BYTES: usize = 24;

/// A system call: the lines of the trace on which it began and ended, and what it was about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    name: String,
    began: usize,
    ended: usize,
    /// What the descriptor is: a path, or `TCP:[...]`.
    on: String,
    /// The first bytes that were carried.
    bytes: Vec<u8>,
    succeeded: bool,
}

/// What a trace showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Receipts that left.
    pub receipts: usize,
    /// Syncs that returned.
    pub syncs: usize,
    /// Receipts that left before a sync that began after their request had returned, each in words.
    pub early: Vec<String>,
}

/// Judges a trace of a broker with one message in flight at a time. Only syncs of files whose path
/// contains `folder` count.
pub fn judge(trace: &str, folder: &str) -> Verdict {
    let calls = calls(trace);
    let synced =
        |call: &&Call| call.name.ends_with("sync") && call.on.contains(folder) && call.succeeded;
    let syncs: Vec<&Call> = calls.iter().filter(synced).collect();
    let mut verdict = Verdict { syncs: syncs.len(), ..Verdict::default() };
    let mut asked: BTreeMap<(String, u64), usize> = BTreeMap::new();
    let frames = calls.iter().flat_map(|call| frames(call).map(move |frame| (call, frame)));
    for (call, (kind, opcode, correlation)) in frames {
        if opcode != PRODUCE {
            continue;
        }
        let reads = call.name.starts_with("re");
        if reads && kind == REQUEST {
            asked.insert((call.on.clone(), correlation), call.ended);
        }
        if reads || kind != REPLY {
            continue;
        }
        verdict.receipts += 1;
        let left = call.began;
        let Some(came) = asked.remove(&(call.on.clone(), correlation)) else {
            verdict.early.push(format!("line {left}: a receipt without a request"));
            continue;
        };
        if !syncs.iter().any(|sync| sync.began > came && sync.ended < left) {
            verdict.early.push(format!("line {left}: no sync since its request on line {came}"));
        }
    }
    verdict
}

/// Kind, opcode and correlation of each frame that a call on a socket carries, as far as the trace
/// has its bytes: one may come right behind another, as behind a Ping.
fn frames(call: &Call) -> impl Iterator<Item = (u8, u16, u64)> {
    let is_socket = call.on.starts_with("TCP") || call.on.starts_with("socket");
    let mut rest = if is_socket { &call.bytes[..] } else { &[] };
    std::iter::from_fn(move || {
        let head = rest.get(..HEAD_BYTES)?;
        let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
        let opcode = u16::from_le_bytes([head[8], head[9]]);
        let correlation = u64::from_le_bytes(head[12..20].try_into().ok()?);
        rest = rest.get(4 + length.max(HEAD_BYTES - 4)..).unwrap_or_default();
        Some((head[5], opcode, correlation))
    })
}

/// The calls of a trace in the order in which they ended.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for (line, number) in trace.lines().zip(1..) {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(first) = text.strip_suffix("<unfinished ...>") {
            open.insert(thread, (number, first.to_owned()));
        } else if text.starts_with("<... ") {
            let Some((began, first)) = open.remove(thread) else { continue };
            let rest = text.split_once("resumed>").map_or("", |(_, rest)| rest);
            calls.extend(call(&format!("{first}{rest}"), began, number));
        } else {
            calls.extend(call(text, number, number));
        }
    }
    calls
}

fn call(text: &str, began: usize, ended: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let result = rest.rsplit_once(" = ").map_or("", |(_, result)| result);
    let on = rest.split_once('<').map_or("", |(_, on)| on);
    let (on, carried) = close(on);
    Some(Call {
        name: name.to_owned(),
        began,
        ended,
        on: String::from_utf8_lossy(&unescape(on)).into_owned(),
        bytes: quoted(carried),
        succeeded: !result.starts_with('-') && !result.is_empty(),
    })
}

/// Splits at the `>` that ends a descriptor's description; an arrow inside it (`->`) does not.
fn close(text: &str) -> (&str, &str) {
    let mut from = 0;
    while let Some(at) = text[from..].find('>').map(|at| from + at) {
        if at == 0 || text.as_bytes()[at - 1] != b'-' {
            return (&text[..at], &text[at + 1..]);
        }
        from = at + 1;
    }
    (text, "")
}

/// The bytes of all quoted strings (the pieces of a gathered write), joined.
fn quoted(text: &str) -> Vec<u8> {
    text.split('"').skip(1).step_by(2).flat_map(unescape).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hex = rest.strip_prefix("\\x").and_then(|hex| hex.get(..2));
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = &rest[4..];
        } else {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(first.encode_utf8(&mut buffer).as_bytes());
            rest = &rest[first.len_utf8()..];
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: &str = "9<TCP:[127.0.0.1:6086->127.0.0.1:5000]>";

    fn frame(kind: u8, opcode: u8, correlation: u8) -> String {
        let mut head = [0_u8; HEAD_BYTES];
        (head[5], head[8], head[12]) = (kind, opcode, correlation);
        head.iter().fold(String::new(), |text, byte| format!("{text}\\x{byte:02x}"))
    }

    fn came(correlation: u8) -> String {
        format!(
            "1 recvfrom({SOCKET}, \"{}\"..., 65536, 0, NULL, NULL) = 90\n",
            frame(1, 10, correlation)
        )
    }

    fn left(correlation: u8) -> String {
        let text = frame(2, 10, correlation);
        let (first, second) = text.split_at(24);
        format!(
            "1 writev({SOCKET}, [{{iov_base=\"{first}\", iov_len=6}}, {{iov_base=\"{second}\"}}], 2) = 24\n"
        )
    }

    const SYNC: &str = "2 fdatasync(7</d/shards/0/a.log>) = 0\n";

    fn early(trace: &str) -> usize {
        judge(trace, "/shards/").early.len()
    }

    #[test]
    fn a_receipt_after_its_sync_is_right() {
        let trace = [came(1), SYNC.to_owned(), left(1), came(2), SYNC.to_owned(), left(2)].concat();
        assert_eq!(judge(&trace, "/shards/"), Verdict { receipts: 2, syncs: 2, early: vec![] });
    }

    #[test]
    fn a_receipt_before_its_sync_is_found() {
        assert_eq!(early(&[came(1), left(1), SYNC.to_owned()].concat()), 1);
        assert_eq!(
            early(&[SYNC.to_owned(), came(1), left(1)].concat()),
            1,
            "an older sync is none"
        );
        let failed = SYNC.replace("= 0", "= -1 EIO (Input/output error)");
        assert_eq!(early(&[came(1), failed, left(1)].concat()), 1);
        let other = SYNC.replace("shards", "registry");
        assert_eq!(early(&[came(1), other, left(1)].concat()), 1);
        assert_eq!(early(&left(1)), 1, "no request");
    }

    #[test]
    fn a_sync_counts_when_it_has_returned() {
        let began = "2 fdatasync(7</d/shards/0/a.log> <unfinished ...>\n";
        let ended = "2 <... fdatasync resumed>) = 0\n";
        let between = [came(1), began.to_owned(), left(1), ended.to_owned()].concat();
        assert_eq!(early(&between), 1, "it left while the sync was under way");
        let after = [came(1), began.to_owned(), ended.to_owned(), left(1)].concat();
        assert_eq!(early(&after), 0);
        let older = [began.to_owned(), came(1), ended.to_owned(), left(1)].concat();
        assert_eq!(early(&older), 1, "the sync began before the request came");
    }

    #[test]
    fn other_frames_and_escaped_paths_are_read() {
        let hello = format!("1 write({SOCKET}, \"{}\", 24) = 24\n", frame(2, 1, 1));
        assert_eq!(judge(&hello, "/shards/").receipts, 0);
        let path = "\\x2f\\x73\\x68\\x61\\x72\\x64\\x73\\x2f"; // "/shards/"
        let sync = format!("2 fdatasync(7<{path}>) = 0\n");
        assert_eq!(early(&[came(1), sync, left(1)].concat()), 0);
    }

    #[test]
    fn a_request_right_behind_another_frame_is_seen() {
        let ping = frame(1, 1, 7).replacen("\\x00", "\\x16", 1); // two bytes of header
        let both = format!("{ping}\\x91\\x00{}", frame(1, 10, 1));
        let came = format!("1 recvfrom({SOCKET}, \"{both}\"..., 65536, 0, NULL, NULL) = 90\n");
        let trace = [came, SYNC.to_owned(), left(1)].concat();
        assert_eq!(judge(&trace, "/shards/"), Verdict { receipts: 1, syncs: 1, early: vec![] });
    }
}

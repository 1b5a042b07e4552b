//! How a broker starts, refuses to start, and ends.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use grus_tests::broker::Home;
use grus_tests::program::{self, Done};
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;

use crate::{create, numbered, read_all};

/// The last line of a broker that refused to start, which must have exit code 1.
pub(crate) fn refusal(done: &Done) -> String {
    assert_eq!(done.status.code(), Some(1), "{}", done.err);
    let last = done.err.lines().last().unwrap_or_default();
    assert!(last.starts_with("grus: "), "the last line says why: {}", done.err);
    last.to_owned()
}

#[test]
fn s1_a_broker_is_ready_within_a_second() {
    // The best of some: other tests keep the machine busy.
    let mut took = Vec::new();
    for _ in 0..20 {
        let home = Home::new();
        let (strain, watch) = (Strain::watch(), Watch::start());
        let broker = home.start();
        let (elapsed, lost) = (watch.elapsed(), strain.lost());
        let (status, body) = broker.get("/health");
        assert_eq!(status, 200, "{body}");
        took.push(elapsed.saturating_sub(lost));
        if took.last() < Some(&Duration::from_secs(1)) {
            println!("{elapsed:?}");
            return;
        }
    }
    panic!("{took:?}");
}

#[test]
fn s1_without_settings_it_listens_where_the_documents_say() {
    let printed = program::run(program::grus(&["broker", "--print-config"]), b"").ok().text();
    for address in ["127.0.0.1:6086", "127.0.0.1:7654"] {
        assert!(printed.contains(address), "{address} in {printed}");
    }
}

#[test]
fn a_refused_setting_ends_with_code_2_and_names_key_and_place() {
    let home = Home::new();
    let file = home.data.with_extension("toml");
    fs::write(&file, "[topic]\nqueues = 8\nqueue_count = 4\n").expect("a file");
    let path = file.display().to_string();
    let with_file = program::grus(&["broker", "--config", &path]);
    let mut variable = program::grus(&["broker"]);
    variable.env("GRUS__LISTEN__ADRESS", "127.0.0.1:1");
    let mut out_of_range = program::grus(&["broker"]);
    out_of_range.env("GRUS__TOPIC__QUEUES", "0");
    let argument = program::grus(&["broker", "--listen", "nowhere"]);
    for (command, named) in [
        (with_file, format!("`topic.queue_count` ({path}:3)")),
        (variable, "`listen.adress` (environment GRUS__LISTEN__ADRESS)".into()),
        (out_of_range, "`topic.queues` (environment GRUS__TOPIC__QUEUES): 0 is not".into()),
        (argument, "`listen.address` (command line): `nowhere` is not host:port".into()),
    ] {
        let done = program::run(command, b"");
        assert_eq!(done.status.code(), Some(2), "{}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{}", done.err);
        assert!(done.err.contains(&named), "{named} in {}", done.err);
    }
}

#[test]
fn s1_a_taken_port_is_named() {
    for http in [false, true] {
        let home = Home::new();
        let port = if http { home.http } else { home.listen };
        let taken = TcpListener::bind(port).expect("a free port");
        let line = refusal(&home.run_to_end());
        assert!(line.contains(&port.port().to_string()), "{line}");
        drop(taken);
        home.start().kill(); // and nothing is left behind
    }
}

#[test]
fn the_same_folder_twice_is_refused_with_folder_and_process() {
    let home = Home::new();
    let first = home.start();
    let second = Home::at(&home.data);
    let line = refusal(&second.run_to_end());
    assert!(line.contains(&home.data.display().to_string()), "{line}");
    assert!(line.contains(&first.process.pid().to_string()), "{line}");
    assert_eq!(first.get("/health").0, 200, "the first serves on");
    first.kill();
    second.start().kill(); // a lock whose owner was killed is no lock
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let home = Home::new();
    let broker = home.start();
    home.grus_fed(&["produce", "t"], b"precious\n").ok();
    broker.end(Signal::TERM);
    let format = home.data.join("FORMAT");
    let current = fs::read_to_string(&format).expect("a format file");
    let newer: String = current.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_ne!(newer, current, "the file holds a number");
    fs::write(&format, &newer).expect("a writable file");
    let before = contents(&home.data);
    let line = refusal(&home.run_to_end());
    assert!(line.to_lowercase().contains("format"), "{line}");
    assert_eq!(contents(&home.data), before, "nothing was touched");
    fs::write(&format, &current).expect("a writable file");
    let _broker = home.start();
    assert_eq!(read_all(&home, "t")[0].body.as_deref(), Some("precious"));
}

/// Every file below `folder` with a sum of its bytes.
fn contents(folder: &Path) -> BTreeMap<String, (usize, u64)> {
    let mut found = BTreeMap::new();
    let mut rooms = vec![folder.to_owned()];
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(&room).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                rooms.push(path);
                continue;
            }
            let bytes = fs::read(&path).expect("a readable file");
            let step =
                |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step); // FNV-1a
            found.insert(path.display().to_string(), (bytes.len(), sum));
        }
    }
    found
}

#[test]
fn sigterm_and_ctrl_c_end_it_cleanly() {
    let home = Home::new();
    for (round, signal) in [Signal::TERM, Signal::INT, Signal::TERM].into_iter().enumerate() {
        let broker = home.start();
        if round == 0 {
            create(&home, "t", 2);
        }
        home.grus_fed(&["produce", "t"], numbered(&format!("round {round}"), 500).as_bytes()).ok();
        broker.end(signal);
    }
    let _broker = home.start();
    assert_eq!(read_all(&home, "t").len(), 1_500);
}

#[test]
fn it_ends_cleanly_with_clients_connected_and_waiting() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    let mut reader = home.grus_running(&["consume", "t", "--from", "first"]);
    home.grus_fed(&["produce", "t"], b"hello\n").ok();
    assert_eq!(reader.next_line(PATIENCE).as_deref(), Some(&b"hello"[..]));
    broker.end(Signal::TERM);
    // The reader waits for the broker to come back, and goes on.
    let _broker = home.start();
    home.grus_fed(&["produce", "t"], b"again\n").ok();
    assert_eq!(reader.next_line(PATIENCE).as_deref(), Some(&b"again"[..]));
    reader.signal(Signal::INT);
    assert_eq!(reader.wait(PATIENCE).code(), Some(0), "Ctrl-C ends a reader well");
}

#[test]
fn http_answers_only_its_own_name() {
    let home = Home::new();
    let broker = home.start();
    for path in ["/health", "/actors", "/metrics", "/queue/list"] {
        assert_eq!(broker.get(path).0, 200, "{path}");
    }
    let (status, _) =
        grus_tests::http::get_as(home.http, "evil.example", "/health").expect("an answer");
    assert!((400..500).contains(&status), "a foreign Host gets {status}");
}

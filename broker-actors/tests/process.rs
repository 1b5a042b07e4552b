//! grus-broker as a process: what it says and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

fn broker(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grus-broker"));
    command
        .args(["--listen", "127.0.0.1:0", "--http", "off", "--data"])
        .arg(folder.join("data"))
        .env("GRUS__BROKER__CORE_ARBITERS", "1")
        // On a machine that is busy with other tests no stop is given up.
        .env("GRUS__BROKER__SHUTDOWN_TIMEOUT", "2m")
        .env("GRUS__LOG__FIRST_SEGMENT_BYTES", "1MiB")
        .env("GRUS__LOG__SEGMENT_BYTES", "1MiB")
        .stderr(Stdio::piped())
        .stdin(Stdio::null());
    command
}

/// Starts a broker and waits for its ready line.
fn start(folder: &Path) -> (Child, String, BufReader<ChildStderr>) {
    let mut child = broker(folder).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(" ready ") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it was ready");
    }
    (child, line, lines)
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let start = line.find(name).unwrap_or_else(|| panic!("no {name} in {line}")) + name.len();
    line[start..].split_whitespace().next().unwrap()
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn it_says_where_it_listens_and_stops_with_0_at_either_signal() {
    let folder = tempfile::tempdir().unwrap();
    for stop in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let (mut child, line, lines) = start(folder.path());
        assert!(!line.contains('\u{1b}'), "no colours in a file: {line:?}");
        assert_eq!(field(&line, "pid="), child.id().to_string());
        let address = field(&line, "listen=");
        std::net::TcpStream::connect(address).unwrap();
        signal(&child, stop);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let rest: Vec<_> = lines.lines().map_while(Result::ok).collect();
        assert!(rest.iter().all(|line| !line.contains(" WARN ")), "{rest:?}");
    }
}

#[test]
fn one_killed_leaves_its_folder_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _, _lines) = start(folder.path());
    let second = broker(folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&format!("process {}", first.id())), "{text}");
    first.kill().unwrap();
    first.wait().unwrap();
    let (mut third, _, _lines) = start(folder.path());
    signal(&third, rustix::process::Signal::TERM);
    assert_eq!(third.wait().unwrap().code(), Some(0));
}

#[test]
fn a_taken_port_a_wrong_key_and_a_wrong_argument_end_it_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut port = broker(folder.path());
    port.args(["--listen", &address]);
    let mut key = broker(folder.path());
    key.env("GRUS__LISTEN__ADRESS", "x");
    let mut argument = broker(folder.path());
    argument.arg("--bogus");
    for (mut command, code, word) in [
        (port, 1, address.as_str()),
        (key, 2, "`listen.adress` (environment GRUS__LISTEN__ADRESS)"),
        (argument, 2, "--bogus"),
    ] {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn print_config_says_every_value_and_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let output = broker(folder.path()).arg("--print-config").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("http.address").ends_with("# command line"));
    assert!(line("log.segment_bytes").contains("\"1 MiB\""));
    assert!(line("log.segment_bytes").ends_with("# environment GRUS__LOG__SEGMENT_BYTES"));
    assert!(line("topic.queues").ends_with("# default"));
    assert!(!folder.path().join("data").exists(), "nothing was started");
}

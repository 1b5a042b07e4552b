//! `grus` run with arguments, to its end.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest that a run may take before it counts as hanging.
const RUN_LIMIT: Duration = Duration::from_mins(5);

/// The binary under test: `GRUS_BIN`, or the one that cargo built beside the tests.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("GRUS_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("the path of this test");
    let built =
        test.parent().and_then(|deps| deps.parent()).expect("a test stands in target/…/deps");
    let binary = built.join("grus-under-test");
    assert!(binary.exists(), "{} is not built", binary.display());
    binary
}

/// A command of the binary under test, without anything of the caller's that could change it.
pub fn grus(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("GRUS_BOOTSTRAP").env_remove("RUST_LOG");
    command
}

/// The same, told where the broker is.
pub fn grus_at(broker: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = grus(arguments);
    command.env("GRUS_BOOTSTRAP", broker.to_string());
    command
}

/// A run that is over.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Done {
    /// Itself, if it ended with exit code 0.
    ///
    /// # Panics
    /// When it did not.
    #[expect(clippy::return_self_not_must_use, reason = "run for its effect, or for what it says")]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{:?}: {}", self.status, self.err);
        self
    }

    /// Its standard error, if it failed as a command may fail: exit code 1 and one line.
    ///
    /// # Panics
    /// When it did not.
    pub fn refused(self) -> String {
        assert_eq!(self.status.code(), Some(1), "out: {} err: {}", self.text(), self.err);
        let lines: Vec<&str> = self.err.lines().collect();
        assert_eq!(lines.len(), 1, "one clear line: {lines:?}");
        lines[0].to_owned()
    }

    /// The last line of its standard error, if it failed as a daemon may fail: exit code 1, after
    /// whatever it had logged.
    ///
    /// # Panics
    /// When it did not.
    pub fn refused_last(self) -> String {
        assert_eq!(self.status.code(), Some(1), "out: {} err: {}", self.text(), self.err);
        self.err.lines().last().unwrap_or_default().to_owned()
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Standard output as JSON, one value a line.
    pub fn json(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        self.text().lines().map(parse).collect()
    }
}

/// Runs `command` to its end with `input` on its standard input.
///
/// # Panics
/// When it cannot be started, or hangs.
pub fn run(mut command: Command, input: &[u8]) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let pid = Pid::from_child(&child);
    let mut pipe = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_vec();
    let feeder = thread::spawn(move || {
        let _ = pipe.write_all(&input); // it may end without reading all
    });
    let (over, done) = channel();
    thread::spawn(move || over.send(child.wait_with_output()));
    let output = match done.recv_timeout(RUN_LIMIT) {
        Ok(output) => output.expect("its output can be read"),
        Err(RecvTimeoutError::Timeout) => {
            let _ = kill_process(pid, Signal::KILL);
            panic!("{shown} hangs: {:?}", done.recv());
        }
        Err(RecvTimeoutError::Disconnected) => panic!("{shown}: its waiter is gone"),
    };
    feeder.join().expect("the feeder ends");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Done { status: output.status, out: output.stdout, err }
}

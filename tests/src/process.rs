//! A child process whose printed lines are events, and whose log is shown when a test fails.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::strain::Strain;
use crate::watch::{PATIENCE, Watch};

/// Longest that an orderly end may take on a machine that has time for it.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Lines of the log that are kept to be shown.
const LOG_LINES_MAX: usize = 2_000;

/// Something a child did.
#[derive(Debug)]
enum Event {
    /// It wrote a line to standard output, without its line feed.
    Out(Vec<u8>),
    /// It wrote a line to standard error.
    Err(Vec<u8>),
    /// It ended, and both its outputs are closed.
    Ended(ExitStatus),
}

/// See the module documentation. Dropped, it is killed.
pub struct Process {
    name: String,
    pid: Pid,
    input: Option<ChildStdin>,
    events: Receiver<Event>,
    log: Vec<String>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with all three standard streams as pipes.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let pid = Pid::from_child(&child);
        let input = child.stdin.take();
        let events = listen(child);
        Self { name: name.to_owned(), pid, input, events, log: Vec::new(), status: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Its standard input; a second call finds it taken.
    pub fn take_input(&mut self) -> ChildStdin {
        self.input.take().expect("the standard input is still here")
    }

    /// Sends it a signal. One that has ended already gets none. When it is told to stand still it does so on return:
    /// until then a thread that waits for its disk would have let the others answer.
    pub fn signal(&mut self, signal: Signal) {
        if self.status.is_some() {
            return;
        }
        let _ = kill_process(self.pid, signal); // it may be ending right now
        if signal == Signal::STOP {
            let seen = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = waitid(WaitId::Pid(self.pid), seen); // or it has been waited for already
        }
    }

    /// Waits for the ready line, and checks that it names all `addresses`.
    pub fn wait_ready(&mut self, addresses: &[SocketAddr]) {
        let ready = |line: &str| line.split_whitespace().any(|word| word == "ready");
        let line = self.wait_for("ready line", PATIENCE, ready);
        for address in addresses {
            let is_named = line.contains(&address.to_string());
            assert!(is_named, "the ready line does not name {address}: {line}");
        }
    }

    /// Asks it to end by `signal`; it must end with exit code 0 in less than 5 s of a machine that has time
    /// for it.
    pub fn end(&mut self, signal: Signal) {
        let (strain, watch) = (Strain::watch(), Watch::start());
        self.signal(signal);
        let status = self.wait(PATIENCE);
        let (took, allowed) = (watch.elapsed(), strain.allowed());
        let shown = (status.code(), status.signal());
        assert_eq!(shown, (Some(0), None), "an orderly end\n{}", self.log());
        assert!(took < END_LIMIT + allowed, "{took:?}, {allowed:?} of it allowed\n{}", self.log());
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(PATIENCE);
    }

    /// The next line of its standard output; `None` when it ended, or wrote none within `limit`.
    pub fn next_line(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let watch = Watch::start();
        while self.status.is_none() {
            match self.take(watch.left(limit)) {
                Some(Event::Out(line)) => return Some(line),
                Some(_) => {}
                None => return None,
            }
        }
        None
    }

    /// Waits for a line on either output for which `wanted` holds, and returns it.
    ///
    /// # Panics
    /// When it ends, or `limit` passes, first.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let watch = Watch::start();
        while self.status.is_none() {
            match self.take(watch.left(limit)) {
                Some(Event::Out(line) | Event::Err(line)) => {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if wanted(&line) {
                        return line;
                    }
                }
                Some(Event::Ended(_)) => {}
                None => panic!("{}: no {what} within {limit:?}", self.name),
            }
        }
        panic!("{}: ended ({:?}) before {what}\n{}", self.name, self.status, self.log());
    }

    /// Waits until it has ended; its status.
    ///
    /// # Panics
    /// When `limit` passes first.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let watch = Watch::start();
        loop {
            if let Some(status) = self.status {
                return status;
            }
            assert!(
                self.take(watch.left(limit)).is_some(),
                "{}: still running after {limit:?}",
                self.name
            );
        }
    }

    /// Its status, if it has ended as far as is known.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        while self.status.is_none() && self.take(Duration::ZERO).is_some() {}
        self.status
    }

    /// What it has printed lately, as text.
    pub fn log(&self) -> String {
        self.log.join("\n")
    }

    fn take(&mut self, limit: Duration) -> Option<Event> {
        let event = match self.events.recv_timeout(limit) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => panic!("{}: its listener is gone", self.name),
        };
        match &event {
            Event::Out(line) => self.note("|", line),
            Event::Err(line) => self.note("!", line),
            Event::Ended(status) => self.status = Some(*status),
        }
        Some(event)
    }

    fn note(&mut self, mark: &str, line: &[u8]) {
        if self.log.len() >= LOG_LINES_MAX {
            self.log.drain(..LOG_LINES_MAX / 2);
        }
        let mut text = format!("{mark} ");
        let _ = write!(text, "{}", String::from_utf8_lossy(&line[..line.len().min(400)]));
        self.log.push(text);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        while self.status.is_none() && self.take(PATIENCE).is_some() {}
        if thread::panicking() {
            let from = self.log.len().saturating_sub(60);
            let status = self.status.map(|status| (status.code(), status.signal()));
            println!(
                "-- {} (pid {}) {status:?}:\n{}",
                self.name,
                self.pid(),
                self.log[from..].join("\n")
            );
        }
    }
}

/// Turns what the child does into events: both outputs to their ends, then its status.
fn listen(mut child: Child) -> Receiver<Event> {
    let (events, receiver) = channel();
    let out = child.stdout.take().expect("standard output is a pipe");
    let err = child.stderr.take().expect("standard error is a pipe");
    let to_out = events.clone();
    let out = thread::spawn(move || each_line(out, |line| to_out.send(Event::Out(line)).is_ok()));
    let to_err = events.clone();
    let err = thread::spawn(move || each_line(err, |line| to_err.send(Event::Err(line)).is_ok()));
    thread::spawn(move || {
        let status = child.wait().expect("the child can be waited for");
        let _ = (out.join(), err.join());
        let _ = events.send(Event::Ended(status)); // nobody may be left to hear it
    });
    receiver
}

fn each_line(from: impl Read, mut take: impl FnMut(Vec<u8>) -> bool) {
    let mut reader = BufReader::with_capacity(1 << 16, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if !take(line.clone()) {
            return;
        }
    }
}

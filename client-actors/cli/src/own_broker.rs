//! A broker of the command's own: a second process, on free ports, in a folder of its own.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot};

use crate::failure::Failure;

/// Longest that a start may take.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Longest that an orderly end may take.
const END_LIMIT: Duration = Duration::from_mins(1);

/// Where the broker lives, so that it can be started there twice.
#[derive(Debug, Clone)]
pub struct Place {
    /// The data folder.
    pub data: PathBuf,
    /// What it logs goes here.
    pub log: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
}

impl Place {
    /// In `folder`, on free ports.
    ///
    /// # Errors
    /// Told, when no port is free.
    pub fn in_folder(folder: &Path) -> Result<Self, Failure> {
        let listen = free_port(None)?;
        let http = free_port(Some(listen))?;
        Ok(Self { data: folder.join("data"), log: folder.join("broker.log"), listen, http })
    }

    /// GETs `path` from the broker's HTTP side: the body.
    ///
    /// # Errors
    /// Told.
    pub fn get(&self, path: &str) -> Result<String, Failure> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.http)?;
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            let host = self.http;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| Failure::because(path, error))?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(Failure::because(path, "it did not answer 200")),
        }
    }
}

/// A folder that was not there before, in `base` or where the system keeps temporary ones.
///
/// # Errors
/// Told, when none can be made.
pub fn new_folder(base: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    let base = base.map_or_else(std::env::temp_dir, Path::to_owned);
    let failed = |error: &dyn std::fmt::Display| Failure::because(base.display(), error);
    fs::create_dir_all(&base).map_err(|error| failed(&error))?;
    for number in 0..1_000 {
        let folder = base.join(format!("{name}-{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Err(failed(&"no new folder can be made in it"))
}

/// A port below the range that the kernel gives to clients: while the broker is down, a client that tries
/// to reconnect to a port of that range may be given the same port for its own end, and then talks to itself.
fn free_port(taken: Option<SocketAddr>) -> Result<SocketAddr, Failure> {
    for _ in 0..1_000 {
        let random = RandomState::new().build_hasher().finish() % 20_000;
        let port = u16::try_from(10_000 + random).expect("below 30,000");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if Some(address) != taken && is_free(address) {
            return Ok(address);
        }
    }
    Err(Failure::Told("no free port on 127.0.0.1".to_owned()))
}

/// Whether nobody has the port: also nobody who would let others listen there (SO_REUSEADDR), as a
/// listener of std would be let.
fn is_free(address: SocketAddr) -> bool {
    TcpSocket::new_v4().is_ok_and(|socket| socket.bind(address).is_ok())
}

/// A running broker. Dropped, it is killed.
#[derive(Debug)]
pub struct Broker {
    pid: Pid,
    ended: Option<oneshot::Receiver<ExitStatus>>,
}

impl Broker {
    /// Starts a broker and waits for its ready line.
    ///
    /// # Errors
    /// Told, with the last line it logged.
    pub async fn start(place: &Place) -> Result<Self, Failure> {
        let exe = std::env::current_exe().map_err(|error| Failure::because("own path", error))?;
        let mut command = Command::new(exe);
        command.arg("broker").arg("--data").arg(&place.data);
        command.args(["--listen", &place.listen.to_string(), "--http", &place.http.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| Failure::because("cannot start", error))?;
        let pid = Pid::from_child(&child);
        let lines = listen(&mut child, &place.log)?;
        let (end, ended) = oneshot::channel();
        thread::spawn(move || {
            if let Ok(status) = child.wait() {
                let _ = end.send(status); // nobody may wait for it
            }
        });
        let broker = Self { pid, ended: Some(ended) };
        match tokio::time::timeout(READY_LIMIT, ready(lines)).await {
            Ok(Ok(())) => Ok(broker),
            Ok(Err(last)) => Err(Failure::because("the broker did not start", last)),
            Err(_) => Err(Failure::Told("the broker was not ready in time".to_owned())),
        }
    }

    /// A new one in `folder` on free ports; on others, should somebody else have taken one meanwhile.
    ///
    /// # Errors
    /// Told, as by [`Broker::start`].
    pub async fn start_in(folder: &Path) -> Result<(Place, Self), Failure> {
        let mut left = 3;
        loop {
            left -= 1;
            let place = Place::in_folder(folder)?;
            match Self::start(&place).await {
                Ok(broker) => return Ok((place, broker)),
                Err(failure) if left == 0 => return Err(failure),
                Err(_) => {}
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// Told, when it does not go.
    pub async fn kill(mut self) -> Result<ExitStatus, Failure> {
        self.signal(Signal::KILL).await
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// Told, when it does not end, or not with exit code 0.
    pub async fn end(mut self) -> Result<(), Failure> {
        let status = self.signal(Signal::TERM).await?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::because("the broker did not end well", status))
    }

    async fn signal(&mut self, signal: Signal) -> Result<ExitStatus, Failure> {
        kill_process(self.pid, signal).map_err(|error| Failure::because("cannot signal", error))?;
        let ended = self.ended.as_mut().expect("it is waited for once");
        let status = tokio::time::timeout(END_LIMIT, ended).await;
        let late =
            || Failure::Told(format!("the broker has not ended {END_LIMIT:?} after {signal:?}"));
        let status = status.map_err(|_| late())?.map_err(|_| late())?;
        self.ended = None;
        Ok(status)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.ended.is_some() {
            let _ = kill_process(self.pid, Signal::KILL); // it may have ended by itself
        }
    }
}

/// The lines it logs, which also go to a file.
fn listen(child: &mut Child, log: &Path) -> Result<mpsc::UnboundedReceiver<String>, Failure> {
    let opened = OpenOptions::new().create(true).append(true).open(log);
    let mut log = opened.map_err(|error| Failure::because(log.display(), error))?;
    let from = child.stderr.take().expect("standard error is a pipe");
    let (to, lines) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            let _ = writeln!(log, "{line}"); // a log that cannot be kept stops nothing
            let _ = to.send(line); // nobody listens once it is ready
        }
    });
    Ok(lines)
}

/// Waits for the ready line; the last line when it ends without one.
async fn ready(mut lines: mpsc::UnboundedReceiver<String>) -> Result<(), String> {
    let mut last = "it logged nothing".to_owned();
    while let Some(line) = lines.recv().await {
        if line.split_whitespace().any(|word| word == "ready") {
            return Ok(());
        }
        last = line;
    }
    Err(last)
}

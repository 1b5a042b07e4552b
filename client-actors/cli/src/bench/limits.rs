//! What this machine can do at most, measured in the same run as what Grus does on it: loopback
//! TCP between two processes, a round trip between them, writing and syncing a file.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Serialize;

use super::stopwatch::Stopwatch;
use crate::failure::Failure;

/// One write to a socket.
const CHUNK_BYTES: usize = 256 * 1024;
/// The peer swallows what comes.
const SINK: u8 = b's';
/// The peer sends back what comes, 64 bytes at a time.
const ECHO: u8 = b'e';
const ECHO_BYTES: usize = 64;
/// Size of the file that is written and synced. Allocated and written before anything is timed.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Size of a new file that is written.
const NEW_FILE_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// Size of each file that is written at a pace: that of a segment.
const PACED_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// The most batches that are written at once when the pace was not kept.
const PACED_BATCHES_MAX: u32 = 40;
/// It is written so many times as long as other figures take: the first pages are often of memory
/// that was in use a moment ago, and say nothing of the rest.
const NEW_FILE_TIMES: u32 = 5;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Limits {
    /// Loopback TCP between two processes, one connection, 256 KiB writes.
    pub loopback_mb_per_s: f64,
    /// Median of a 64-byte round trip between two processes.
    pub round_trip_us_p50: f64,
    /// Medians of one write and one fdatasync of so many bytes, in a file that is already allocated.
    pub write_and_sync: Vec<WriteAndSync>,
    /// What a log does at best: a file whose pages are not in memory yet.
    pub new_file: NewFile,
}

/// Rates of [`Limits::new_file`]: allocated first, then written from its begin to its end in pieces of 1 MiB.
#[derive(Debug, Clone, Serialize)]
pub struct NewFile {
    /// Without a sync.
    pub written_mb_per_s: f64,
    /// With an fdatasync behind each piece.
    pub synced_mb_per_s: f64,
}

/// One size of [`Limits::write_and_sync`].
#[derive(Debug, Clone, Serialize)]
pub struct WriteAndSync {
    /// Size of the write.
    pub bytes: usize,
    /// Median time of write and fdatasync together.
    pub us_p50: f64,
    /// The rate that follows from the median.
    pub mb_per_s: f64,
}

/// Measures this machine, with files in `folder`, spending about `each` on every figure.
///
/// # Errors
/// When the second process cannot be started or the folder cannot be written.
pub fn measure(folder: &Path, each: Duration) -> Result<Limits, Failure> {
    let told = |error: std::io::Error| Failure::because("cannot measure the limits", error);
    let peer = Peer::start().map_err(told)?;
    let loopback_mb_per_s = loopback(peer.port, each).map_err(told)?;
    let round_trip_us_p50 = round_trip(peer.port, each).map_err(told)?;
    drop(peer);
    let path = folder.join(format!("grus-limits-{}", std::process::id()));
    let synced = write_and_sync(&path, each);
    let _ = std::fs::remove_file(&path); // a left-over file is no reason to hide the figures
    let write_and_sync = synced.map_err(told)?;
    let mut rates = [0.0; 2];
    for (rate, is_synced) in rates.iter_mut().zip([false, true]) {
        let written = new_file(&path, each, is_synced);
        let _ = std::fs::remove_file(&path); // as above
        *rate = written.map_err(told)?;
    }
    let [written_mb_per_s, synced_mb_per_s] = rates;
    let new_file = NewFile { written_mb_per_s, synced_mb_per_s };
    Ok(Limits { loopback_mb_per_s, round_trip_us_p50, write_and_sync, new_file })
}

/// The second process: listens on a free loopback port, says which on standard output, and serves
/// one connection after the other until standard input closes.
///
/// # Errors
/// When it cannot listen.
pub fn serve_as_peer() -> Result<(), Failure> {
    let told = |error: std::io::Error| Failure::because("cannot serve as the peer", error);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(told)?;
    println!("{}", listener.local_addr().map_err(told)?.port());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).map_err(told)?;
    Ok(())
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    if kind[0] == ECHO {
        loop {
            stream.read_exact(&mut buffer[..ECHO_BYTES])?;
            stream.write_all(&buffer[..ECHO_BYTES])?;
        }
    }
    let mut taken: u64 = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&taken.to_le_bytes()),
            bytes => taken += bytes as u64,
        }
    }
}

struct Peer {
    process: Child,
    port: u16,
}

impl Peer {
    fn start() -> std::io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["bench", "peer"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let port = line.trim().parse().map_err(|_| std::io::ErrorKind::InvalidData)?;
        Ok(Self { process, port })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.stdin.take()); // it ends when its standard input does
        let _ = self.process.wait();
    }
}

fn connect(port: u16, kind: u8) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

fn loopback(port: u16, each: Duration) -> std::io::Result<f64> {
    let mut stream = connect(port, SINK)?;
    let chunk = vec![7; CHUNK_BYTES];
    let mut sent: u64 = 0;
    let watch = Stopwatch::start();
    while watch.elapsed() < each {
        stream.write_all(&chunk)?;
        sent += chunk.len() as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut taken = [0; 8];
    stream.read_exact(&mut taken)?;
    let seconds = watch.elapsed().as_secs_f64();
    if u64::from_le_bytes(taken) != sent {
        return Err(std::io::Error::other("the peer did not take all that was sent"));
    }
    Ok(megabytes(sent) / seconds)
}

fn round_trip(port: u16, each: Duration) -> std::io::Result<f64> {
    let mut stream = connect(port, ECHO)?;
    let mut bytes = [7; ECHO_BYTES];
    let mut times = Vec::new();
    let watch = Stopwatch::start();
    while watch.elapsed() < each {
        let one = Stopwatch::start();
        stream.write_all(&bytes)?;
        stream.read_exact(&mut bytes)?;
        times.push(one.elapsed());
    }
    Ok(median_us(&mut times))
}

fn write_and_sync(path: &Path, each: Duration) -> std::io::Result<Vec<WriteAndSync>> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let block = vec![0xA5; 1024 * 1024];
    for at in (0..FILE_BYTES).step_by(block.len()) {
        file.write_all_at(&block, at)?;
    }
    file.sync_all()?;
    [4 * 1024, 64 * 1024, 1024 * 1024]
        .into_iter()
        .map(|bytes| synced_writes(&file, &block[..bytes], each))
        .collect()
}

/// MB/s into a file that is allocated and has never been written, until the time is up or it is full.
fn new_file(path: &Path, each: Duration, is_synced: bool) -> std::io::Result<f64> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, NEW_FILE_BYTES)?;
    let block = vec![0xA5; 1024 * 1024];
    let mut at = 0;
    let watch = Stopwatch::start();
    while at < NEW_FILE_BYTES && watch.elapsed() < each * NEW_FILE_TIMES {
        file.write_all_at(&block, at)?;
        if is_synced {
            file.sync_data()?;
        }
        at += block.len() as u64;
    }
    Ok(megabytes(at) / watch.elapsed().as_secs_f64())
}

/// How long batches of which one is due each `every` wait until they are synced, in a plain program: it writes what
/// is due into files allocated before, one after the other, and syncs behind each write. In milliseconds, the 99th
/// percentile: what a log on this disk cannot do better than.
///
/// # Errors
/// When the folder cannot be written.
pub fn paced_p99_ms(
    folder: &Path,
    batch_bytes: usize,
    every: Duration,
    time: Duration,
) -> Result<f64, Failure> {
    let path = folder.join(format!("grus-paced-{}", std::process::id()));
    let waits = paced(&path, batch_bytes, every, time);
    let _ = std::fs::remove_file(&path); // a left-over file is no reason to hide the figures
    let mut waits = waits.map_err(|error| Failure::because("cannot measure the limits", error))?;
    waits.sort_unstable();
    Ok(waits.get(waits.len() * 99 / 100).map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3))
}

fn paced(
    path: &Path,
    batch_bytes: usize,
    every: Duration,
    time: Duration,
) -> std::io::Result<Vec<Duration>> {
    let block = vec![0xA5; batch_bytes * PACED_BATCHES_MAX as usize];
    let (mut file, mut at, mut done) = (paced_file(path)?, 0, 0_u32);
    let mut waits = Vec::new();
    let watch = Stopwatch::start();
    while watch.elapsed() < time {
        let next = every * (done + 1);
        while let Some(early) = next.checked_sub(watch.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(early); // nobody wakes it; it may wake by itself
        }
        let due = watch.elapsed().as_nanos() / every.as_nanos().max(1);
        let due = u32::try_from(due).unwrap_or(u32::MAX).saturating_sub(done);
        let batches = due.clamp(1, PACED_BATCHES_MAX);
        let bytes = &block[..batch_bytes * batches as usize];
        if at + bytes.len() as u64 > PACED_FILE_BYTES {
            (file, at) = (paced_file(path)?, 0);
        }
        file.write_all_at(bytes, at)?;
        file.sync_data()?;
        let synced = watch.elapsed();
        let dues = (done + 1..=done + batches).map(|number| every * number);
        waits.extend(dues.map(|due| synced.saturating_sub(due)));
        at += bytes.len() as u64;
        done += batches;
    }
    Ok(waits)
}

/// The next file of [`paced`], in place of the one before: as a log that gives up what is old.
fn paced_file(path: &Path) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, PACED_FILE_BYTES)?;
    file.sync_all()?;
    Ok(file)
}

fn synced_writes(file: &File, block: &[u8], each: Duration) -> std::io::Result<WriteAndSync> {
    let mut times = Vec::new();
    let mut at = 0;
    let watch = Stopwatch::start();
    while watch.elapsed() < each {
        let one = Stopwatch::start();
        file.write_all_at(block, at)?;
        file.sync_data()?;
        times.push(one.elapsed());
        at = (at + block.len() as u64) % FILE_BYTES;
    }
    let us_p50 = median_us(&mut times);
    Ok(WriteAndSync { bytes: block.len(), us_p50, mb_per_s: block.len() as f64 / us_p50 })
}

/// Bytes as decimal megabytes.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn median_us(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_that_is_not_kept_counts_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let time = Duration::from_millis(50);
        // More than any disk takes: the wait grows with each batch.
        let p99 = paced_p99_ms(folder.path(), 1024 * 1024, Duration::from_nanos(1), time).unwrap();
        assert!(p99 > 1.0, "{p99} ms");
        let kept = paced_p99_ms(folder.path(), 64, Duration::from_millis(5), time).unwrap();
        assert!(kept.is_finite());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}

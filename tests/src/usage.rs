//! What a process has used, from /proc.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Clock ticks a second; 100 on every Linux that Rust runs on (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// Processor time used so far, in milliseconds (proc(5), stat fields 14 and 15).
pub fn cpu_ms(pid: u32) -> u64 {
    let text = read(pid, "stat");
    let after_name = text.rsplit_once(')').expect("a name in brackets").1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number of ticks");
    (ticks(11) + ticks(12)) * 1_000 / TICKS_PER_SECOND
}

/// Bytes that reached the storage layer, and calls that write, so far (proc(5), io).
pub fn writes(pid: u32) -> (u64, u64) {
    let text = read(pid, "io");
    (field(&text, "write_bytes:"), field(&text, "syscw:"))
}

/// Bytes that were written so far, by whomever, to the device on which `path` lies; nothing where
/// that is no block device. (What [`writes`] says of a file that is mapped is far more: a page of a
/// large folio that is dirtied counts as all of it.)
pub fn device_writes(path: &Path) -> Option<u64> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

/// Greatest resident memory so far, in KiB (proc(5), status).
pub fn peak_memory_kib(pid: u32) -> u64 {
    field(&read(pid, "status"), "VmHWM:")
}

/// Resident memory now, in KiB (proc(5), status).
pub fn memory_kib(pid: u32) -> u64 {
    field(&read(pid, "status"), "VmRSS:")
}

/// Resident memory now that is no file's, in KiB (proc(5), status).
pub fn anonymous_memory_kib(pid: u32) -> u64 {
    field(&read(pid, "status"), "RssAnon:")
}

/// Files, sockets and whatever else it has open now (proc(5), fd).
pub fn descriptors(pid: u32) -> usize {
    let path = format!("/proc/{pid}/fd");
    fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}")).count()
}

/// Stretches of its memory now (proc(5), maps), of which a process may have 65,530 by default.
pub fn maps(pid: u32) -> usize {
    read(pid, "maps").lines().count()
}

/// What the files in a folder take of the disk, in bytes.
pub fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a readable folder");
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => disk_bytes(&entry.path()),
        Ok(facts) => facts.blocks() * 512,
        Err(_) => 0, // it went meanwhile
    };
    entries.map(|entry| size(entry.expect("a readable folder"))).sum()
}

/// What the system says of a process's memory, for a person.
pub fn memory_text(pid: u32) -> String {
    read(pid, "smaps_rollup")
}

fn read(pid: u32, what: &str) -> String {
    let path = format!("/proc/{pid}/{what}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn a_process_sees_its_own_usage() {
    let own = std::process::id();
    assert!(peak_memory_kib(own) > 0);
    assert!(descriptors(own) > 0 && maps(own) > 0);
    let _ = (cpu_ms(own), writes(own));
}

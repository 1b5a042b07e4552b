//! Memory that is touched before it is needed, so that a load does not measure where pages come from.

use std::hint::black_box;

use crate::failure::Failure;

/// One page, or less than one.
const PAGE_BYTES: usize = 4096;

/// Has the kernel give so much memory, and gives it back. What it has just had from this process it
/// hands out next, to the page cache too; where a hypervisor takes free memory away, that lasts some seconds.
pub fn touch(bytes: u64) {
    let mut memory = vec![0_u8; usize::try_from(bytes).unwrap_or(0)];
    for page in memory.chunks_mut(PAGE_BYTES) {
        page[0] = 1;
    }
    black_box(&memory);
}

/// Whether so much can be touched: at most three quarters of what is available now.
///
/// # Errors
/// Told: how much there is.
pub fn check(bytes: u64) -> Result<(), Failure> {
    if bytes == 0 {
        return Ok(());
    }
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).map_err(|error| Failure::because(path, error))?;
    let available = available_bytes(&text)
        .ok_or_else(|| Failure::Told(format!("{path} names no MemAvailable")))?;
    if bytes > available / 4 * 3 {
        let why = format!(
            "--warm-memory is at most three quarters of what is available: {} MiB",
            available / 4 * 3 / (1 << 20)
        );
        return Err(Failure::Told(why));
    }
    Ok(())
}

fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_touched_than_there_is() {
        assert!(check(0).is_ok());
        assert!(check(1 << 20).is_ok());
        let refused = check(1 << 50).unwrap_err().line(false).unwrap();
        assert!(refused.contains("--warm-memory"), "{refused}");
        touch(0);
        touch(1 << 20);
    }

    #[test]
    fn what_is_available_is_read_in_bytes() {
        let text = "MemTotal:  100 kB\nMemAvailable:   23 kB\n";
        assert_eq!(available_bytes(text), Some(23 * 1024));
        assert_eq!(available_bytes("MemTotal: 100 kB\n"), None);
    }
}

//! How many connections there may be, and what a failed accept means. Pure.

use std::io;

/// Descriptors that connections leave to the log, the registry and HTTP.
const RESERVED_MAX: u64 = 512;

/// Most connections with so many descriptors to be had: as configured, unless that many sockets
/// would leave too few for the files of the log.
#[must_use]
pub fn connections_within(configured: u32, descriptors: Option<u64>) -> u32 {
    let Some(descriptors) = descriptors else { return configured };
    // Half of them where there are few: better fewer connections than a log that cannot grow.
    let reserved = RESERVED_MAX.min(descriptors.div_ceil(2));
    let room = u32::try_from(descriptors - reserved).unwrap_or(u32::MAX);
    configured.min(room.max(1))
}

/// Whether an accept failed for a reason that lies with the connection, not with this process
/// (accept(2), "Error handling").
#[must_use]
pub fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_descriptors_whatever_is_configured() {
        assert_eq!(connections_within(10_000, Some(20_000)), 10_000);
        assert_eq!(connections_within(10_000, Some(10_200)), 9_688);
        assert_eq!(connections_within(10_000, Some(1_024)), 512);
        assert_eq!(connections_within(10_000, Some(256)), 128);
        assert_eq!(connections_within(10_000, Some(0)), 1);
        assert_eq!(connections_within(100, Some(1_024)), 100);
        assert_eq!(connections_within(10_000, None), 10_000, "without limit");
        assert_eq!(connections_within(u32::MAX, Some(u64::MAX)), u32::MAX);
    }
}

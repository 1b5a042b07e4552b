//! Whether the other side of a connection is still there. No clock.

/// What to do about a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// Nothing.
    Fine,
    /// Ask for a sign of life.
    Ping,
    /// Give the connection up.
    Dead,
}

/// Watches the bytes that arrive.
#[derive(Debug)]
pub(crate) struct Liveness {
    silence_ms_max: u64,
    bytes: u64,
    heard_ms: u64,
    pinged_ms: Option<u64>,
}

impl Liveness {
    /// A connection that was opened now. After `silence_ms_max` without a byte it is asked for a
    /// sign of life; after as long again without one it is dead.
    pub(crate) fn new(silence_ms_max: u64, now_ms: u64) -> Self {
        Self { silence_ms_max, bytes: 0, heard_ms: now_ms, pinged_ms: None }
    }

    /// `bytes` have arrived in all.
    pub(crate) fn tick(&mut self, bytes: u64, now_ms: u64) -> Pulse {
        if bytes != self.bytes {
            self.bytes = bytes;
            self.heard_ms = now_ms;
            self.pinged_ms = None;
        }
        match self.pinged_ms {
            // Counted from the ping, not from the last byte: this process may have been stopped.
            Some(pinged_ms) if now_ms.saturating_sub(pinged_ms) >= self.silence_ms_max => {
                Pulse::Dead
            }
            None if now_ms.saturating_sub(self.heard_ms) >= self.silence_ms_max => {
                self.pinged_ms = Some(now_ms);
                Pulse::Ping
            }
            _ => Pulse::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_asked_about_once_and_then_given_up() {
        let mut liveness = Liveness::new(100, 0);
        assert_eq!(liveness.tick(10, 50), Pulse::Fine);
        assert_eq!(liveness.tick(10, 149), Pulse::Fine);
        assert_eq!(liveness.tick(10, 150), Pulse::Ping);
        assert_eq!(liveness.tick(10, 249), Pulse::Fine);
        assert_eq!(liveness.tick(10, 250), Pulse::Dead);
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let mut liveness = Liveness::new(100, 0);
        assert_eq!(liveness.tick(0, 100), Pulse::Ping);
        assert_eq!(liveness.tick(1, 199), Pulse::Fine);
        assert_eq!(liveness.tick(1, 299), Pulse::Ping);
    }

    #[test]
    fn a_process_that_was_stopped_for_long_asks_before_it_gives_up() {
        let mut liveness = Liveness::new(100, 0);
        assert_eq!(liveness.tick(0, 1_000_000), Pulse::Ping);
        assert_eq!(liveness.tick(0, 1_000_020), Pulse::Fine);
    }
}

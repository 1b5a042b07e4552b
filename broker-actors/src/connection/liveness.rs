//! When a connection has been silent, or stuck, for too long. Pure: time is told.

/// The deadlines of one connection, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the first request.
    pub hello_ms: u64,
    /// Between whole requests.
    pub idle_ms: u64,
    /// Without a byte taken by the peer while some wait for it.
    pub write_ms: u64,
}

/// What the two halves of a connection have done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Whole frames that arrived.
    pub frames_read: u64,
    /// Bytes the peer has taken.
    pub bytes_written: u64,
    /// Whether bytes wait for the peer.
    pub output_waits: bool,
    /// Whether Hello was accepted.
    pub greeted: bool,
}

/// Why a connection is closed from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// No Hello in time.
    Hello,
    /// No whole request in time.
    Idle,
    /// The peer takes nothing of its replies.
    PeerNotReading,
}

impl Overdue {
    /// What happened, in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Hello => "no hello in time",
            Self::Idle => "idle for too long",
            Self::PeerNotReading => "peer does not read its replies",
        }
    }
}

/// Watches one connection from tick to tick.
#[derive(Debug)]
pub struct Liveness {
    deadlines: Deadlines,
    opened_ms: u64,
    last: Pulse,
    frame_seen_ms: u64,
    write_seen_ms: u64,
}

impl Liveness {
    /// A connection opened at `now_ms` (monotonic).
    #[must_use]
    pub fn new(deadlines: Deadlines, now_ms: u64) -> Self {
        Self {
            deadlines,
            opened_ms: now_ms,
            last: Pulse::default(),
            frame_seen_ms: now_ms,
            write_seen_ms: now_ms,
        }
    }

    /// Looks at the connection at `now_ms`; says why it must be closed, if it must. The verdict is
    /// late by one tick at most.
    pub fn tick(&mut self, now_ms: u64, pulse: Pulse) -> Option<Overdue> {
        if pulse.frames_read != self.last.frames_read {
            self.frame_seen_ms = now_ms;
        }
        let moved = pulse.bytes_written != self.last.bytes_written;
        if moved || !pulse.output_waits {
            self.write_seen_ms = now_ms;
        }
        self.last = pulse;
        if now_ms - self.write_seen_ms >= self.deadlines.write_ms {
            return Some(Overdue::PeerNotReading);
        }
        if !pulse.greeted && now_ms - self.opened_ms >= self.deadlines.hello_ms {
            return Some(Overdue::Hello);
        }
        (self.quiet_ms(now_ms) >= self.deadlines.idle_ms).then_some(Overdue::Idle)
    }

    /// How long no whole frame has arrived.
    #[must_use]
    pub fn quiet_ms(&self, now_ms: u64) -> u64 {
        now_ms - self.frame_seen_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines = Deadlines { hello_ms: 10, idle_ms: 100, write_ms: 30 };
    const GREETED: Pulse =
        Pulse { frames_read: 1, bytes_written: 0, output_waits: false, greeted: true };

    #[test]
    fn a_peer_that_says_nothing_is_closed_by_the_hello_deadline() {
        let mut liveness = Liveness::new(DEADLINES, 1_000);
        assert_eq!(liveness.tick(1_009, Pulse::default()), None);
        assert_eq!(liveness.tick(1_010, Pulse::default()), Some(Overdue::Hello));
    }

    #[test]
    fn whole_frames_alone_keep_a_connection_open() {
        let mut liveness = Liveness::new(DEADLINES, 0);
        assert_eq!(liveness.tick(5, GREETED), None);
        assert_eq!(liveness.tick(104, GREETED), None);
        assert_eq!(liveness.tick(104, Pulse { frames_read: 2, ..GREETED }), None);
        assert_eq!(liveness.tick(203, Pulse { frames_read: 2, ..GREETED }), None);
        assert_eq!(
            liveness.tick(204, Pulse { frames_read: 2, ..GREETED }),
            Some(Overdue::Idle),
            "100 ms after the last whole frame"
        );
    }

    #[test]
    fn a_peer_that_takes_a_little_is_slow_and_one_that_takes_nothing_is_cut_off() {
        let mut liveness = Liveness::new(DEADLINES, 0);
        let mut pulse = Pulse { output_waits: true, ..GREETED };
        assert_eq!(liveness.tick(10, pulse), None);
        pulse.bytes_written = 1;
        assert_eq!(liveness.tick(29, pulse), None);
        assert_eq!(liveness.tick(58, pulse), None);
        assert_eq!(liveness.tick(59, pulse), Some(Overdue::PeerNotReading));
    }
}

//! When a connection has been silent, or stuck, for too long. Pure: time is told.

/// Bytes by which a frame must grow within [`Deadlines::frame_ms`].
pub const FRAME_STEP_BYTES: u64 = 64 << 10;

/// The deadlines of one connection, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the first request.
    pub hello_ms: u64,
    /// Between whole requests.
    pub idle_ms: u64,
    /// For a frame that has begun to come on by [`FRAME_STEP_BYTES`], or to its end.
    pub frame_ms: u64,
    /// Without a byte taken by the peer while some wait for it.
    pub write_ms: u64,
}

/// What the two halves of a connection have done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Whole frames that arrived.
    pub frames_read: u64,
    /// Bytes of the next one, while the rest of it is waited for; 0 when none has begun, or when
    /// it is this side that does not read.
    pub partial_bytes: u64,
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
    /// A frame has begun and does not come on.
    Frame,
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
            Self::Frame => "half a frame, and no more of it in time",
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
    /// Bytes of a frame that has begun, and when it had so many.
    partial: Option<(u64, u64)>,
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
            partial: None,
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
        let is_stuck = self.is_stuck(now_ms, pulse);
        self.last = pulse;
        if now_ms.saturating_sub(self.write_seen_ms) >= self.deadlines.write_ms {
            return Some(Overdue::PeerNotReading);
        }
        if !pulse.greeted && now_ms.saturating_sub(self.opened_ms) >= self.deadlines.hello_ms {
            return Some(Overdue::Hello);
        }
        if is_stuck {
            return Some(Overdue::Frame);
        }
        (self.quiet_ms(now_ms) >= self.deadlines.idle_ms).then_some(Overdue::Idle)
    }

    /// Whether a frame has begun and does not come on.
    fn is_stuck(&mut self, now_ms: u64, pulse: Pulse) -> bool {
        let is_another = pulse.frames_read != self.last.frames_read;
        match self.partial {
            _ if pulse.partial_bytes == 0 => self.partial = None,
            Some((bytes, since_ms))
                if !is_another && pulse.partial_bytes < bytes + FRAME_STEP_BYTES =>
            {
                return now_ms.saturating_sub(since_ms) >= self.deadlines.frame_ms;
            }
            _ => self.partial = Some((pulse.partial_bytes, now_ms)),
        }
        false
    }

    /// How long no whole frame has arrived.
    #[must_use]
    pub fn quiet_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.frame_seen_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: Deadlines =
        Deadlines { hello_ms: 10, idle_ms: 100, frame_ms: 20, write_ms: 30 };
    const GREETED: Pulse = Pulse {
        frames_read: 1,
        partial_bytes: 0,
        bytes_written: 0,
        output_waits: false,
        greeted: true,
    };

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
    fn a_frame_that_drips_is_given_up_and_one_that_comes_on_is_not() {
        let mut liveness = Liveness::new(DEADLINES, 0);
        let with = |partial_bytes| Pulse { partial_bytes, ..GREETED };
        assert_eq!(liveness.tick(5, with(1)), None);
        assert_eq!(liveness.tick(24, with(15)), None);
        assert_eq!(liveness.tick(25, with(16)), Some(Overdue::Frame), "a byte at a time");

        let mut liveness = Liveness::new(DEADLINES, 0);
        for round in 1..5 {
            let pulse = with(round * FRAME_STEP_BYTES);
            assert_eq!(liveness.tick(round * 19, pulse), None, "slow, but it comes on");
        }
        assert_eq!(liveness.tick(95, with(4 * FRAME_STEP_BYTES)), None);
        assert_eq!(liveness.tick(96, with(4 * FRAME_STEP_BYTES)), Some(Overdue::Frame));
    }

    #[test]
    fn a_frame_is_not_overdue_while_this_side_does_not_read_and_each_has_its_own_time() {
        let mut liveness = Liveness::new(DEADLINES, 0);
        let with = |frames_read, partial_bytes| Pulse { frames_read, partial_bytes, ..GREETED };
        assert_eq!(liveness.tick(5, with(1, 9)), None);
        assert_eq!(liveness.tick(20, with(1, 0)), None, "its queue has no room");
        assert_eq!(liveness.tick(30, with(1, 9)), None, "counted anew");
        assert_eq!(liveness.tick(49, with(2, 9)), None, "the next one");
        assert_eq!(liveness.tick(68, with(2, 9)), None);
        assert_eq!(liveness.tick(69, with(2, 9)), Some(Overdue::Frame));
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

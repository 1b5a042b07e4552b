//! What a log is opened with.

pub use grus_protocol::ids::Durability;

/// Settings of one log. [`LogConfig::default`] states the defaults.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// When an entry counts as safe. Default `Persisted`.
    pub durability: Durability,
    /// Largest segment in bytes. Default 256 MiB, at least 64 KiB.
    pub segment_bytes: u32,
    /// Segments of an empty log in bytes; they grow with the log. Default 16 MiB.
    pub first_segment_bytes: u32,
    /// Largest payload of one entry in bytes. Default 8 MiB and 64 KiB, at most three quarters of
    /// `first_segment_bytes` (it is lowered to that).
    pub entry_bytes_max: usize,
    /// `Replicated` only: a sync is started when this much has been written since the last one.
    /// Default 8 MiB.
    pub unsynced_bytes_max: u64,
    /// The operator accepts that the damaged entries named in the report are lost: they read as
    /// [`crate::EntryKind::Lost`] from now on. Those, and none that is found damaged later. Default false.
    pub accept_loss: bool,
    /// This log is known to have held entries: one that is found to hold none has lost them with its
    /// folder, and counts as one whose kernel was lost ([`crate::Recovered::volatile`]) until it is healed.
    /// Default false.
    pub was_written: bool,
    /// Remember what is appended for an index of ids and keys ([`crate::FindIndex`]), which must be
    /// fed by [`crate::Log::find_feed`] then. Default false.
    pub find_index: bool,
    /// An ordering rule to leave out, to see that a test notices.
    #[cfg(feature = "fault-switches")]
    pub without: Option<crate::switches::OrderRule>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Persisted,
            segment_bytes: 256 * 1024 * 1024,
            first_segment_bytes: 16 * 1024 * 1024,
            entry_bytes_max: 8 * 1024 * 1024 + 64 * 1024,
            unsynced_bytes_max: 8 * 1024 * 1024,
            accept_loss: false,
            was_written: false,
            find_index: false,
            #[cfg(feature = "fault-switches")]
            without: None,
        }
    }
}

impl LogConfig {
    /// The settings as a log will use them: each within its bounds.
    #[must_use]
    pub fn checked(mut self) -> Self {
        let page = 64 * 1024;
        self.segment_bytes = self.segment_bytes.clamp(page, 1 << 31).next_multiple_of(4096);
        self.first_segment_bytes =
            self.first_segment_bytes.clamp(page, self.segment_bytes).next_multiple_of(4096);
        let most = self.first_segment_bytes as usize / 4 * 3;
        self.entry_bytes_max = self.entry_bytes_max.min(most);
        self
    }

    #[cfg(feature = "fault-switches")]
    pub(crate) fn skips(&self, rule: crate::switches::OrderRule) -> bool {
        self.without == Some(rule)
    }

    #[cfg(not(feature = "fault-switches"))]
    #[expect(clippy::unused_self, reason = "without the feature no rule can be taken away")]
    pub(crate) const fn skips(&self, _: crate::switches::OrderRule) -> bool {
        false
    }

    /// Size of the next segment of a log that holds `log_bytes`.
    pub(crate) fn next_segment_bytes(&self, log_bytes: u64) -> u32 {
        let wanted = u32::try_from(log_bytes / 4).unwrap_or(u32::MAX).min(1 << 31);
        let wanted = if wanted == 0 { 0 } else { 1 << wanted.ilog2() };
        wanted.clamp(self.first_segment_bytes, self.segment_bytes)
    }
}

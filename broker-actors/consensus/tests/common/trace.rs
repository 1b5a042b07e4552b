//! What happened, in order: compared between two runs of one seed, printed when one fails.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::time::Instant;

/// A trace shared by everything in one simulation.
#[derive(Clone)]
pub struct Trace {
    start: Instant,
    lines: Rc<RefCell<Vec<String>>>,
}

impl Trace {
    pub fn new() -> Self {
        Self { start: Instant::now(), lines: Rc::default() }
    }

    /// Adds a line with the simulated time.
    pub fn line(&self, text: impl AsRef<str>) {
        let ms = self.start.elapsed().as_millis();
        let line = format!("{ms:>7} {}", text.as_ref());
        if std::env::var_os("GRUS_SIM_TRACE").is_some() {
            eprintln!("{line}");
        }
        self.lines.borrow_mut().push(line);
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// The last lines, for a failure.
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lines.borrow();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

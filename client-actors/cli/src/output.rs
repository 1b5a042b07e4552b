//! Standard output: gathered, written in large pieces, and ended quietly when its reader leaves.

use std::io::{self, Write};

use crate::failure::Failure;

/// Gathered bytes are written at the latest when they reach this many.
const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// A place that text goes to.
#[derive(Debug)]
pub struct Output<W: Write> {
    to: W,
    gathered: Vec<u8>,
}

impl Output<io::Stdout> {
    /// Standard output. Not locked: another part of the process may wait on it.
    pub fn standard() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Output<W> {
    /// Output to any writer.
    pub fn new(to: W) -> Self {
        Self { to, gathered: Vec::with_capacity(GATHERED_BYTES_MAX) }
    }

    /// Lets `add` append to what is gathered.
    ///
    /// # Errors
    /// As [`Output::flush`].
    pub fn add(&mut self, add: impl FnOnce(&mut Vec<u8>)) -> Result<(), Failure> {
        add(&mut self.gathered);
        if self.gathered.len() >= GATHERED_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Adds one line of text.
    ///
    /// # Errors
    /// As [`Output::flush`].
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.add(|out| {
            out.extend_from_slice(text.as_bytes());
            out.push(b'\n');
        })
    }

    /// Writes out what is gathered. Call it whenever nothing more is at hand.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] when the reader has left; told otherwise.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let written = self.to.write_all(&self.gathered).and_then(|()| self.to.flush());
        self.gathered.clear();
        written.map_err(|error| Failure::output(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pipe {
        taken: usize,
        room: usize,
        writes: usize,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.taken >= self.room {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.taken += bytes.len();
            self.writes += 1;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn small_lines_are_written_together() {
        let mut out = Output::new(Pipe { taken: 0, room: usize::MAX, writes: 0 });
        for _ in 0..100_000 {
            out.line("1234567").unwrap();
        }
        out.flush().unwrap();
        assert_eq!(out.to.taken, 800_000);
        assert!(out.to.writes <= 4, "{} writes", out.to.writes);
    }

    #[test]
    fn a_closed_pipe_ends_it_and_memory_stays_bounded() {
        let mut out = Output::new(Pipe { taken: 0, room: 1, writes: 0 });
        let mut ended = 0;
        for _ in 0..100_000 {
            ended += usize::from(matches!(out.line("12345678"), Err(Failure::OutputClosed)));
            assert!(out.gathered.len() <= GATHERED_BYTES_MAX + 9);
        }
        assert!(ended > 0);
    }
}

//! Cuts a stream of bytes into lines. Plain state: no I/O.
//!
//! A line is what stands before a line feed (0x0A), and nothing else is removed from it: carriage
//! returns, NUL and bytes that are not UTF-8 stay. What follows the last line feed, if anything
//! does, is a line that is not terminated. docs/adr/0001 says why.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the input, from 1.
    pub number: u64,
    /// Its bytes without the line feed.
    pub body: Bytes,
    /// Whether a line feed followed.
    pub terminated: bool,
}

/// A line is longer than may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is longer than the limit of {line_bytes_max} bytes")]
pub struct LineTooLong {
    /// The line's number, from 1.
    pub number: u64,
    /// The most bytes of a line.
    pub line_bytes_max: usize,
}

/// See the module documentation. Holds at most one line and one chunk.
#[derive(Debug)]
pub struct LineSplitter {
    line_bytes_max: usize,
    begun: BytesMut,
    next_number: u64,
}

impl LineSplitter {
    /// Lines are at most `line_bytes_max` bytes long, without their line feed.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, begun: BytesMut::new(), next_number: 1 }
    }

    /// Takes the next bytes and adds the lines they complete to `lines`.
    ///
    /// # Errors
    /// [`LineTooLong`]; the lines before it are in `lines`.
    pub fn push(
        &mut self,
        mut chunk: Bytes,
        lines: &mut VecDeque<Line>,
    ) -> Result<(), LineTooLong> {
        while let Some(at) = chunk.iter().position(|byte| *byte == b'\n') {
            let part = chunk.split_to(at);
            let _feed = chunk.split_to(1);
            self.check(part.len())?;
            let body = if self.begun.is_empty() {
                part
            } else {
                self.begun.extend_from_slice(&part);
                self.begun.split().freeze()
            };
            lines.push_back(self.line(body, true));
        }
        self.check(chunk.len())?;
        self.begun.extend_from_slice(&chunk);
        Ok(())
    }

    /// Ends the input: the last line, if it had no line feed.
    pub fn finish(mut self) -> Option<Line> {
        if self.begun.is_empty() {
            return None;
        }
        let body = self.begun.split().freeze();
        Some(self.line(body, false))
    }

    fn check(&self, more: usize) -> Result<(), LineTooLong> {
        if self.begun.len() + more > self.line_bytes_max {
            let (number, line_bytes_max) = (self.next_number, self.line_bytes_max);
            return Err(LineTooLong { number, line_bytes_max });
        }
        Ok(())
    }

    fn line(&mut self, body: Bytes, terminated: bool) -> Line {
        let number = self.next_number;
        self.next_number += 1;
        Line { number, body, terminated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits `input` in chunks of `chunk_bytes` and joins the lines again.
    fn there_and_back(input: &[u8], chunk_bytes: usize) -> (Vec<Line>, Vec<u8>) {
        let mut splitter = LineSplitter::new(1_000);
        let mut lines = VecDeque::new();
        for chunk in input.chunks(chunk_bytes) {
            splitter.push(Bytes::copy_from_slice(chunk), &mut lines).unwrap();
        }
        lines.extend(splitter.finish());
        let mut joined = Vec::new();
        for line in &lines {
            joined.extend_from_slice(&line.body);
            if line.terminated {
                joined.push(b'\n');
            }
        }
        (lines.into(), joined)
    }

    #[test]
    fn odd_bytes_come_out_as_they_went_in() {
        let inputs: [&[u8]; 9] = [
            b"",
            b"\n",
            b"\n\n\n",
            b"one",
            b"one\n",
            b"one\r\ntwo\r\n\r\n",
            b"nul \0 here\n\0\n",
            b"\xff\xfe\n\xc3(\nlast \x80",
            b"\r",
        ];
        for input in inputs {
            for chunk_bytes in [1, 2, 3, 1_000] {
                let (lines, joined) = there_and_back(input, chunk_bytes);
                assert_eq!(joined, input, "in chunks of {chunk_bytes}");
                assert!(lines.iter().zip(1..).all(|(line, number)| line.number == number));
                let open = lines.iter().filter(|line| !line.terminated).count();
                assert_eq!(open, usize::from(!input.is_empty() && !input.ends_with(b"\n")));
            }
        }
        assert_eq!(there_and_back(b"", 1).0.len(), 0, "an empty file is no message");
        assert_eq!(there_and_back(b"\n", 1).0.len(), 1, "an empty line is a message");
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_those_before_it_are_there() {
        for chunk_bytes in [1, 4, 100] {
            let mut splitter = LineSplitter::new(3);
            let mut lines = VecDeque::new();
            let mut pushed = Ok(());
            for chunk in b"abc\n\nabcd\nx\n".chunks(chunk_bytes) {
                pushed = splitter.push(Bytes::copy_from_slice(chunk), &mut lines);
                if pushed.is_err() {
                    break;
                }
            }
            assert_eq!(pushed, Err(LineTooLong { number: 3, line_bytes_max: 3 }));
            assert_eq!(lines.len(), 2);
        }
        let mut splitter = LineSplitter::new(3);
        let endless = Bytes::from_static(b"abcd");
        let error = splitter.push(endless, &mut VecDeque::new()).unwrap_err();
        assert_eq!(error.to_string(), "line 1 is longer than the limit of 3 bytes");
    }

    #[test]
    fn whole_lines_are_not_copied() {
        let chunk = Bytes::from_static(b"one\ntwo\n");
        let mut lines = VecDeque::new();
        LineSplitter::new(10).push(chunk.clone(), &mut lines).unwrap();
        assert_eq!(lines[1].body.as_ptr(), chunk[4..].as_ptr());
    }
}

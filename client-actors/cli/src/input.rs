//! Reads lines on a thread of its own, so that a slow disk or terminal holds nobody up.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread;

use bytes::BytesMut;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::failure::Failure;
use crate::lines::{Line, LineSplitter};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks of lines that wait to be sent.
const CHUNKS_MAX: usize = 4;

/// Lines as they are read; the last item may be the failure that ended it.
pub type Lines = Receiver<Result<VecDeque<Line>, Failure>>;

/// Opens `file`, or standard input, and reads it line by line.
///
/// # Errors
/// Told, when the file cannot be opened.
pub fn lines(file: Option<&Path>, line_bytes_max: usize) -> Result<Lines, Failure> {
    let (name, from): (String, Box<dyn Read + Send>) = match file {
        None => ("standard input".to_owned(), Box::new(io::stdin())),
        Some(path) => {
            let name = path.display().to_string();
            let opened = File::open(path).map_err(|error| Failure::because(&name, error))?;
            (name, Box::new(opened))
        }
    };
    let (sender, lines) = channel(CHUNKS_MAX);
    thread::spawn(move || {
        if let Err(failure) = read(&name, from, LineSplitter::new(line_bytes_max), &sender) {
            let _ = sender.blocking_send(Err(failure)); // the command may be over
        }
    });
    Ok(lines)
}

fn read(
    name: &str,
    mut from: impl Read,
    mut splitter: LineSplitter,
    to: &Sender<Result<VecDeque<Line>, Failure>>,
) -> Result<(), Failure> {
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
        let length = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::because(name, error)),
        };
        chunk.truncate(length);
        let mut lines = VecDeque::new();
        let pushed = splitter.push(chunk.freeze(), &mut lines);
        if !lines.is_empty() && to.blocking_send(Ok(lines)).is_err() {
            return Ok(()); // the command is over
        }
        pushed.map_err(|error| Failure::Told(format!("{name}: {error}")))?;
    }
    if let Some(last) = splitter.finish() {
        let _ = to.blocking_send(Ok(VecDeque::from([last]))); // the command may be over
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn collect(text: &[u8], line_bytes_max: usize) -> (Vec<u64>, Option<String>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let mut lines = lines(Some(file.path()), line_bytes_max).unwrap();
        let (mut numbers, mut failure) = (Vec::new(), None);
        while let Some(item) = lines.blocking_recv() {
            match item {
                Ok(lines) => numbers.extend(lines.iter().map(|line| line.number)),
                Err(told) => failure = told.line(false),
            }
        }
        (numbers, failure)
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let text = b"line\n".repeat(200_000);
        let (numbers, failure) = collect(&text, 10);
        assert_eq!((numbers.len(), failure), (200_000, None));
        assert_eq!(collect(b"a\nb", 10), (vec![1, 2], None));
    }

    #[test]
    fn a_long_line_ends_it_after_those_before() {
        let (numbers, failure) = collect(b"a\nb\ntoo long\nc\n", 3);
        assert_eq!(numbers, [1, 2]);
        assert!(failure.unwrap().ends_with("line 3 is longer than the limit of 3 bytes"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let line = lines(Some(Path::new("/no/such/file")), 3).unwrap_err().line(false).unwrap();
        assert!(line.starts_with("grus: /no/such/file: "), "{line}");
    }
}

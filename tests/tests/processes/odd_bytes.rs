//! A file comes out as it went in, whatever is in it, and however large it is.

use std::io::{BufWriter, Write};
use std::process::Command;
use std::thread;

use grus_tests::broker::Home;
use grus_tests::program::{self, binary};
use grus_tests::random::Random;
use grus_tests::usage;
use grus_tests::watch::PATIENCE;

use crate::{create, numbered};

/// Through `produce` and `consume` by way of `topic`, plain.
fn through(home: &Home, topic: &str, input: &[u8]) -> Vec<u8> {
    home.grus_fed(&["produce", topic], input).ok();
    let lines = input.split_inclusive(|byte| *byte == b'\n').count().to_string();
    home.grus(&["consume", topic, "--from", "first", "--max", &lines]).ok().out
}

#[test]
fn odd_bytes_are_kept() {
    let home = Home::new();
    let _broker = home.start();
    let mut random = Random::seeded("odd bytes");
    let noise: Vec<u8> = (0..100_000).map(|_| (random.next_u64() & 0xff) as u8).collect();
    let inputs: [&[u8]; 8] = [
        b"",
        b"\n\n\n",
        b"no line feed at the end",
        b"windows\r\n\r\nlines\r\n",
        b"nul \0 and \0\n\0\n",
        b"\xff\xfe not utf-8 \x80\n\xc3\x28",
        b"\r",
        &noise,
    ];
    for (at, input) in inputs.iter().enumerate() {
        let came = through(&home, &format!("t{at}"), input);
        assert!(came == *input, "input {at}: {} bytes in, {} out", input.len(), came.len());
    }
}

#[test]
fn json_keeps_them_too() {
    let home = Home::new();
    let _broker = home.start();
    home.grus_fed(&["produce", "t"], b"text\nnul \0\n\xff\n\nlast").ok();
    let read = home.grus(&["consume", "t", "--from", "first", "--max", "5", "--json"]).ok().json();
    let said: Vec<_> =
        read.iter().map(|object| (&object["body"], &object["body_base64"])).collect();
    assert_eq!(said[0], (&"text".into(), &serde_json::Value::Null));
    assert_eq!(said[1].0, "nul \0");
    assert_eq!(said[2], (&serde_json::Value::Null, &"/w==".into()));
    assert_eq!(said[3].0, "");
    assert_eq!(read[4]["headers"]["grus-line-end"], "none");
}

#[test]
fn a_reader_of_the_output_may_leave() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "one", 1);
    home.grus_fed(&["produce", "one"], b"only\n").ok();
    create(&home, "many", 1);
    home.grus_fed(&["produce", "many"], numbered("line", 50_000).as_bytes()).ok();
    for (topic, first) in [("one", "only\n"), ("many", "line 1\n")] {
        // With one message the pipe closes while the reader waits; with many, while it writes.
        let line =
            format!("\"$0\" consume {topic} --from first | head -1; exit ${{PIPESTATUS[0]}}");
        let mut command = Command::new("bash");
        command.args(["-c", &line]).arg(binary());
        command.env("GRUS_BOOTSTRAP", home.listen.to_string());
        let done = program::run(command, b"").ok();
        assert_eq!((done.text().as_str(), done.err.as_str()), (first, ""), "{topic}");
    }
}

/// 64 MiB, or what `GRUS_TEST_FILE_MIB` says.
fn file_mib() -> usize {
    std::env::var("GRUS_TEST_FILE_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(64)
}

#[test]
fn a_large_file_passes_in_flat_memory() {
    const PEAK_KIB_MAX: u64 = 200 * 1024;
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    let (line_bytes, lines) = (1_023, file_mib() * 1_024);

    let mut sender = home.grus_running(&["produce", "t", "--json", "--timeout", "60s"]);
    let mut input = BufWriter::new(sender.take_input());
    let writer = thread::spawn(move || {
        for number in 0..lines {
            writeln!(input, "{number:0>line_bytes$}").expect("an open pipe");
        }
        input.into_inner().expect("an open pipe")
    });
    for number in 0..lines {
        let receipt = sender.next_line(PATIENCE);
        assert!(receipt.is_some(), "receipt {number}: {}", sender.log());
    }
    let open = writer.join().expect("the writer ends");
    let peak = usage::peak_memory_kib(sender.pid());
    drop(open); // until now the sender waited for more
    assert!(sender.wait(PATIENCE).success());
    assert!(peak < PEAK_KIB_MAX, "produce took {peak} KiB");

    let mut reader = home.grus_running(&["consume", "t", "--from", "first"]);
    for number in 0..lines {
        let line = reader.next_line(PATIENCE).expect("a message");
        assert!(line == format!("{number:0>line_bytes$}").as_bytes(), "line {number} differs");
    }
    let peak = usage::peak_memory_kib(reader.pid());
    assert!(peak < PEAK_KIB_MAX, "consume took {peak} KiB");
}

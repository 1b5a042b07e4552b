//! The built-in text: enough lines to kill a broker in the middle of, and every odd byte a file may have.

/// Lines of the text.
pub const LINES: u32 = 20_000;

const WORDS: [&str; 16] = [
    "crane", "marsh", "reed", "wing", "north", "dawn", "flock", "river", "dance", "call", "frost",
    "nest", "feather", "mist", "grain", "sky",
];

/// The text. It holds empty lines, CRLF, NUL, bytes that are not UTF-8, and its last line has no line feed.
pub fn builtin() -> Vec<u8> {
    let mut text = Vec::with_capacity(LINES as usize * 64);
    for line in 1..LINES {
        match line % 1_000 {
            1 => {}
            2 => text.extend_from_slice(b"this line ends as on Windows\r"),
            3 => text.extend_from_slice(b"a NUL \0 in the middle"),
            4 => text.extend_from_slice(b"not UTF-8: \xff\xfe\x80"),
            _ => text.extend_from_slice(words(line).as_bytes()),
        }
        text.push(b'\n');
    }
    text.extend_from_slice(b"the last line has no line feed");
    text
}

fn words(line: u32) -> String {
    let mut text = format!("{line:05}");
    for turn in 0..8 {
        let at = (line.wrapping_mul(2_654_435_761) >> (turn * 3)) as usize % WORDS.len();
        text.push(' ');
        text.push_str(WORDS[at]);
    }
    text
}

#[test]
fn the_text_has_what_it_promises() {
    let text = builtin();
    assert_eq!(text.split(|byte| *byte == b'\n').count(), LINES as usize);
    assert!(std::str::from_utf8(&text).is_err() && text.contains(&0));
    assert!(
        text.windows(2).any(|pair| pair == b"\n\n") && text.windows(2).any(|pair| pair == b"\r\n")
    );
    assert_ne!(text.last(), Some(&b'\n'));
}

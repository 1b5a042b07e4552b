//! A source file with its comments and literals blanked out, so that rules see code alone.

/// One file of the repository.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// The file as it stands.
    pub text: String,
    /// The same, with comments and the contents of literals turned into spaces; lines stay.
    pub code: String,
}

impl Source {
    /// Takes a file apart.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    /// Whether the file holds tests only (it stands in a `tests` or `benches` folder).
    pub fn is_test(&self) -> bool {
        self.path.split('/').rev().skip(1).any(|folder| folder == "tests" || folder == "benches")
    }

    /// The lines of code (numbered from 1) in which `word` stands as a whole word.
    pub fn lines_with<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let found = move |line: &str| has_word(line, word);
        self.code.lines().zip(1..).filter(move |(line, _)| found(line)).map(|(_, number)| number)
    }
}

/// Whether `word` stands in `line` with no letter, digit or underscore against either end of it.
pub fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open = word.starts_with(part) && before.is_some_and(part);
        let closed = word.ends_with(part) && after.is_some_and(part);
        !open && !closed
    })
}

fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest, code.chars().next_back());
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[length..];
    }
    code
}

/// The length in bytes of the comment or literal that `rest` begins with; 0 when it is code.
fn skipped(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest);
    }
    if rest.starts_with('r') && !in_word {
        return raw(rest);
    }
    if rest.starts_with('\'') { character(rest) } else { 0 }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
    if rest.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = 2 + hashes;
    rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
}

/// A character literal; 0 when the quote begins a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            let from = 3.min(rest.len());
            rest.get(from..).and_then(|tail| tail.find('\'')).map_or(0, |at| from + at + 1)
        }
        Some((_, _)) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[test]
fn comments_and_literals_are_not_code() {
    let source = Source::new(
        "a/src/x.rs",
        "let a = 'x'; // write!()\n/* print!( /* deep */ ) */ let b: &'a str = \"write!(\\\" \";\n\
         let c = r#\"print!(\" \"#; let d = '\\''; write!();\n",
    );
    assert_eq!(source.lines_with("print!").count(), 0);
    assert_eq!(source.lines_with("write!").collect::<Vec<_>>(), [3]);
    assert_eq!(source.code.lines().count(), source.text.lines().count());
}

#[test]
fn a_word_is_whole() {
    assert!(has_word("use tokio::sync;", "tokio"));
    assert!(!has_word("let tokio_like = 1;", "tokio"));
    assert!(!has_word("let atokio = 1;", "tokio"));
    assert!(has_word("x.do_send(y)", ".do_send("));
}

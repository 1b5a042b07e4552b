//! Histories: what the clients of a cluster asked for and were told while things went wrong, one line of JSON
//! each, in the order of their times. docs/TESTING.md "Histories" describes the format; [`judge`] says
//! what may not be in one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Map, Value, json};

use crate::watch::Watch;

pub mod judge;

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is asked for.
    Invoke,
    /// It is done.
    Ok,
    /// It is not done, and will not be.
    Fail,
    /// It may be done, or not; or it is said for the reader of the history.
    Info,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A producer sends a message.
    Send,
    /// A member of the group is handed a message.
    Take,
    /// The member says that it is done with it.
    Ack,
    /// A reader that reads all along reads a message.
    Read,
    /// The one who reads everything at the end reads a message.
    Scan,
    /// A broker is seen to lead a shard in a term.
    Reign,
    /// Something goes wrong, or is right again.
    Fault,
}

const KINDS: [(Kind, &str); 4] =
    [(Kind::Invoke, "invoke"), (Kind::Ok, "ok"), (Kind::Fail, "fail"), (Kind::Info, "info")];
const ACTS: [(Act, &str); 7] = [
    (Act::Send, "send"),
    (Act::Take, "take"),
    (Act::Ack, "ack"),
    (Act::Read, "read"),
    (Act::Scan, "scan"),
    (Act::Reign, "reign"),
    (Act::Fault, "fault"),
];

fn name_of<T: PartialEq>(all: &[(T, &'static str)], wanted: &T) -> &'static str {
    all.iter().find(|(one, _)| one == wanted).map_or("", |(_, name)| *name)
}

fn named<T: Copy>(all: &[(T, &'static str)], name: Option<&str>) -> Option<T> {
    all.iter().find(|(_, known)| Some(*known) == name).map(|(one, _)| *one)
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Microseconds since the history began.
    pub time_us: u64,
    /// Who asked, or was told.
    pub process: String,
    /// What became of it.
    pub kind: Kind,
    /// What it is.
    pub act: Act,
    /// The message, by its value: no two have the same.
    pub value: Option<String>,
    /// The message's key.
    pub key: Option<String>,
    /// Its queue; of a reign the shard.
    pub queue: Option<u64>,
    /// Its offset; of a reign the term.
    pub offset: Option<u64>,
    /// More, for people; of a reign the broker.
    pub note: Option<String>,
}

impl Event {
    /// One with nothing more to it.
    pub fn new(process: &str, kind: Kind, act: Act) -> Self {
        let process = process.to_owned();
        let (time_us, value, key) = (0, None, None);
        Self { time_us, process, kind, act, value, key, queue: None, offset: None, note: None }
    }

    /// The same about a message.
    #[must_use]
    pub fn of(mut self, value: &str) -> Self {
        self.value = Some(value.to_owned());
        self
    }

    /// The same of a message with a key.
    #[must_use]
    pub fn keyed(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// The same with a place.
    #[must_use]
    pub fn at(mut self, queue: u64, offset: u64) -> Self {
        (self.queue, self.offset) = (Some(queue), Some(offset));
        self
    }

    /// The same with something for people.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Its line, without the line feed.
    pub fn line(&self) -> String {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                fields.insert(name.to_owned(), value);
            }
        };
        put("time_us", json!(self.time_us));
        put("process", json!(self.process));
        put("type", json!(name_of(&KINDS, &self.kind)));
        put("f", json!(name_of(&ACTS, &self.act)));
        put("value", json!(self.value));
        put("key", json!(self.key));
        put("queue", json!(self.queue));
        put("offset", json!(self.offset));
        put("note", json!(self.note));
        Value::Object(fields).to_string()
    }

    /// The event of a line; none when it is not one.
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| fields[name].as_str().map(str::to_owned);
        Some(Self {
            time_us: fields["time_us"].as_u64()?,
            process: text("process")?,
            kind: named(&KINDS, fields["type"].as_str())?,
            act: named(&ACTS, fields["f"].as_str())?,
            value: text("value"),
            key: text("key"),
            queue: fields["queue"].as_u64(),
            offset: fields["offset"].as_u64(),
            note: text("note"),
        })
    }
}

/// The events of a file that was kept.
///
/// # Errors
/// What reading it says; a line that is no event is `InvalidData`.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        let event = Event::parse(&line);
        events.push(event.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, line))?);
    }
    Ok(events)
}

/// Where events are told. Each who tells some has one of their own.
#[derive(Debug, Clone)]
pub struct Scribe {
    began: Watch,
    events: Sender<Event>,
}

impl Scribe {
    /// One, and where its events come out. They end when all clones are gone.
    pub fn new() -> (Self, Receiver<Event>) {
        let (events, told) = channel();
        (Self { began: Watch::start(), events }, told)
    }

    /// This happened now.
    pub fn tell(&self, mut event: Event) {
        event.time_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let _ = self.events.send(event); // nobody keeps the history any more
    }
}

/// Writes what is told to a file, and hands it back in the order of its times.
///
/// # Errors
/// What writing says.
pub fn keep(told: &Receiver<Event>, path: Option<&Path>) -> io::Result<Vec<Event>> {
    let mut file = path.map(File::create).transpose()?.map(BufWriter::new);
    let mut events = Vec::new();
    for event in told {
        if let Some(file) = &mut file {
            writeln!(file, "{}", event.line())?;
        }
        events.push(event);
    }
    if let Some(file) = &mut file {
        file.flush()?;
    }
    // Two threads may tell theirs the other way round.
    events.sort_by_key(|event| event.time_us);
    Ok(events)
}

#[test]
fn a_line_is_read_as_it_was_written() {
    let mut event = Event::new("producer-1", Kind::Ok, Act::Send).of("1-17").keyed("k").at(2, 40);
    event.time_us = 7;
    let line = r#"{"f":"send","key":"k","offset":40,"process":"producer-1","queue":2,"time_us":7,"type":"ok","value":"1-17"}"#;
    assert_eq!(event.line(), line);
    assert_eq!(Event::parse(line).as_ref(), Some(&event));
    for (kind, _) in KINDS {
        for (act, _) in ACTS {
            let event = Event::new("nemesis", kind, act).note("kill -9 of 2");
            assert_eq!(Event::parse(&event.line()), Some(event));
        }
    }
    for bad in ["", "{}", r#"{"time_us":1,"process":"p","type":"ok","f":"sing"}"#] {
        assert_eq!(Event::parse(bad), None);
    }
}

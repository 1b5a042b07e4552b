//! What a member of a broadcast group has settled, as its file has it. Pure.
//!
//! ```text
//! grus-progress 2
//! group billing
//! member 7c9e6679f7425d4a
//! since 1732290000000
//! queue orders 9755802606416216011 0 1180 1182-1190 1195-1196
//! end 0f3a52c1d4e6b789
//! ```
//!
//! When the member first began, by a broker's clock; version 1, which is read, too, has no such line. A line for
//! each queue: topic, its incarnation, number of the queue, the floor (all before it is
//! settled), and what is settled above it: from an offset to the one behind. The last line has XXH3-64
//! of all bytes before it, so a file that was cut or changed is none.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use grus_protocol::message::{OffsetRange, QueuePlace};
use grus_protocol::{GroupName, InstanceName, Offset, QueueId, TimestampMs, TopicId, TopicName};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::offsets::OffsetSet;

const HEAD: &str = "grus-progress 2";
/// The head of a file that does not say when its member began.
const HEAD_WITHOUT_TIME: &str = "grus-progress 1";

/// Why a file is not a member's progress.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ProgressFileError {
    #[error("it is damaged, or no file of progress: {0}")]
    Damaged(&'static str),
    #[error("it is of another version than 1 and 2: a newer program wrote it")]
    Version,
    #[error("it belongs to the group {0}")]
    OtherGroup(String),
    #[error("it belongs to the member {0}")]
    OtherMember(String),
}

/// What is settled in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueDone {
    pub(crate) topic: TopicName,
    /// All before it is settled.
    pub(crate) floor: Offset,
    /// What is settled above it.
    pub(crate) above: OffsetSet,
}

impl QueueDone {
    /// Settles a range.
    pub(crate) fn settle(&mut self, range: OffsetRange) {
        let from = range.from.max(self.floor);
        self.above.insert(OffsetRange { from, to: range.to.max(from) });
        self.rise();
    }

    /// All before `floor` is settled, or not there.
    pub(crate) fn rise_to(&mut self, floor: Offset) {
        if floor > self.floor {
            self.settle(OffsetRange { from: self.floor, to: floor });
        }
    }

    fn rise(&mut self) {
        loop {
            let first = self.above.ranges().next();
            let Some(first) = first.filter(|one| one.from <= self.floor) else { return };
            self.floor = self.floor.max(first.to);
            self.above.take(1);
        }
    }
}

/// What a member has settled, by queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnProgress {
    pub(crate) group: GroupName,
    pub(crate) member: InstanceName,
    /// When the member first began, by the clock of a broker; none: nobody has said.
    pub(crate) since: Option<TimestampMs>,
    pub(crate) queues: BTreeMap<QueuePlace, QueueDone>,
}

impl OwnProgress {
    /// That of one who begins.
    pub(crate) fn new(group: GroupName, member: InstanceName) -> Self {
        Self { group, member, since: None, queues: BTreeMap::new() }
    }

    /// The file.
    pub(crate) fn encode(&self) -> String {
        let head = if self.since.is_some() { HEAD } else { HEAD_WITHOUT_TIME };
        let mut text = format!("{head}\ngroup {}\nmember {}\n", self.group, self.member);
        if let Some(since) = self.since {
            let _ = writeln!(text, "since {}", since.0);
        }
        for (place, done) in &self.queues {
            let QueueDone { topic, floor, above } = done;
            let QueuePlace { topic_id, queue } = place;
            // Writing into a text does not fail.
            let _ = write!(text, "queue {topic} {topic_id} {queue} {floor}");
            for range in above.ranges() {
                let _ = write!(text, " {}-{}", range.from, range.to);
            }
            text.push('\n');
        }
        let hash = xxh3_64(text.as_bytes());
        let _ = writeln!(text, "end {hash:016x}");
        text
    }

    /// Reads a file of this group, and of this member if it has a name already.
    pub(crate) fn decode(
        text: &[u8],
        group: &GroupName,
        member: Option<&InstanceName>,
    ) -> Result<Self, ProgressFileError> {
        let damaged = ProgressFileError::Damaged;
        let text = std::str::from_utf8(text).map_err(|_| damaged("it is not text"))?;
        let head = text.lines().next().unwrap_or_default();
        if head != HEAD && head != HEAD_WITHOUT_TIME {
            let is_other = head.starts_with("grus-progress ");
            return Err(if is_other { ProgressFileError::Version } else { damaged("its head") });
        }
        let (body, end) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once("\nend "))
            .ok_or_else(|| damaged("its end is missing"))?;
        let body = &text[..=body.len()];
        if end != format!("{:016x}", xxh3_64(body.as_bytes())) {
            return Err(damaged("its bytes are not those that were written"));
        }
        let mut lines = body.lines().skip(1);
        let mut value = |name| lines.next().and_then(|line| line.strip_prefix(name));
        let of_group = value("group ").ok_or_else(|| damaged("its group"))?;
        let of_member = value("member ").ok_or_else(|| damaged("its member"))?;
        let since = match head {
            HEAD => {
                let since = value("since ").and_then(|since| since.parse().ok());
                Some(TimestampMs(since.ok_or_else(|| damaged("since when it is"))?))
            }
            _ => None,
        };
        if of_group != group.as_str() {
            return Err(ProgressFileError::OtherGroup(of_group.to_owned()));
        }
        if member.is_some_and(|member| member.as_str() != of_member) {
            return Err(ProgressFileError::OtherMember(of_member.to_owned()));
        }
        let of_member = InstanceName::try_from(of_member).map_err(|_| damaged("its member"))?;
        let mut progress = Self { since, ..Self::new(group.clone(), of_member) };
        for line in lines {
            let (place, done) = queue_of(line).ok_or_else(|| damaged("the line of a queue"))?;
            progress.queues.insert(place, done);
        }
        Ok(progress)
    }
}

fn queue_of(line: &str) -> Option<(QueuePlace, QueueDone)> {
    let mut words = line.strip_prefix("queue ")?.split(' ');
    let topic = TopicName::parse_any(words.next()?).ok()?;
    let topic_id = TopicId(words.next()?.parse().ok()?);
    let queue = QueueId(words.next()?.parse().ok()?);
    let floor = Offset(words.next()?.parse().ok()?);
    let mut done = QueueDone { topic, floor, above: OffsetSet::default() };
    for word in words {
        let (from, to) = word.split_once('-')?;
        let (from, to) = (Offset(from.parse().ok()?), Offset(to.parse().ok()?));
        if from <= floor || to <= from {
            return None;
        }
        done.above.insert(OffsetRange { from, to });
    }
    Some((QueuePlace { topic_id, queue }, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::try_from(name).unwrap()
    }

    fn member(name: &str) -> InstanceName {
        InstanceName::try_from(name).unwrap()
    }

    fn range(from: u64, to: u64) -> OffsetRange {
        OffsetRange { from: Offset(from), to: Offset(to) }
    }

    fn progress() -> OwnProgress {
        let mut progress = OwnProgress::new(group("g"), member("one"));
        for queue in 0..2 {
            let topic = TopicName::try_from("t").unwrap();
            let floor = Offset(u64::from(queue) * 10);
            let mut done = QueueDone { topic, floor, above: OffsetSet::default() };
            done.settle(range(15, 17));
            done.settle(range(20, 21));
            let place = QueuePlace { topic_id: TopicId(u64::MAX), queue: QueueId(queue) };
            progress.queues.insert(place, done);
        }
        progress
    }

    #[test]
    fn a_file_reads_back_and_a_changed_or_cut_one_is_refused() {
        let progress = progress();
        let text = progress.encode();
        assert!(text.starts_with("grus-progress 1\ngroup g\nmember one\nqueue t 1844"), "{text}");
        assert!(text.contains(" 1 10 15-17 20-21\nend "), "{text}");
        let read = |bytes: &[u8]| OwnProgress::decode(bytes, &group("g"), None);
        assert_eq!(read(text.as_bytes()), Ok(progress.clone()));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "byte {at}");
            assert!(read(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
        let begun = OwnProgress { since: Some(TimestampMs(77)), ..progress };
        let text = begun.encode();
        let head = "grus-progress 2\ngroup g\nmember one\nsince 77\nqueue t ";
        assert!(text.starts_with(head), "{text}");
        assert_eq!(read(text.as_bytes()), Ok(begun));
        let empty = OwnProgress::new(group("g"), member("one"));
        assert_eq!(read(empty.encode().as_bytes()), Ok(empty));
    }

    #[test]
    fn a_file_of_another_group_member_or_version_says_so() {
        let text = progress().encode();
        let read = |name, own: Option<&str>| {
            let own = own.map(member);
            OwnProgress::decode(text.as_bytes(), &group(name), own.as_ref()).map(drop)
        };
        assert_eq!(read("g", Some("one")), Ok(()));
        assert_eq!(read("h", None), Err(ProgressFileError::OtherGroup("g".into())));
        assert_eq!(read("g", Some("two")), Err(ProgressFileError::OtherMember("one".into())));
        let newer = text.replace("grus-progress 1", "grus-progress 3");
        let refused = OwnProgress::decode(newer.as_bytes(), &group("g"), None);
        assert_eq!(refused, Err(ProgressFileError::Version));
    }

    #[test]
    fn the_floor_rises_over_what_is_settled_and_never_falls() {
        let topic = TopicName::try_from("t").unwrap();
        let mut done = QueueDone { topic, floor: Offset(5), above: OffsetSet::default() };
        done.settle(range(7, 9));
        done.settle(range(0, 6));
        assert_eq!((done.floor, done.above.is_empty()), (Offset(6), false));
        done.settle(range(6, 7));
        assert_eq!((done.floor, done.above.is_empty()), (Offset(9), true));
        done.settle(range(12, 14));
        done.rise_to(Offset(11));
        assert_eq!(done.floor, Offset(11));
        done.rise_to(Offset(12));
        done.rise_to(Offset(3));
        assert_eq!((done.floor, done.above.is_empty()), (Offset(14), true));
    }
}

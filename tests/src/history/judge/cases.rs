//! Each kind of wrong in a history written by hand, and one that is sound.

use super::{Verdict, Wrong, judge};
use crate::history::{Act, Event, Kind};

/// A history, told line by line.
#[derive(Default)]
struct Tale(Vec<Event>);

impl Tale {
    fn tell(mut self, event: Event) -> Self {
        self.0.push(Event { time_us: self.0.len() as u64, ..event });
        self
    }

    /// `p` sends a message of key `k`, and is told where it is.
    fn stored(self, value: &str, queue: u64, offset: u64) -> Self {
        self.stored_of("k", value, queue, offset)
    }

    fn stored_of(self, key: &str, value: &str, queue: u64, offset: u64) -> Self {
        let told = Event::new("p", Kind::Ok, Act::Send).of(value).at(queue, offset);
        self.sends_of(key, value).tell(told)
    }

    fn sends_of(self, key: &str, value: &str) -> Self {
        self.tell(Event::new("p", Kind::Invoke, Act::Send).of(value).keyed(key))
    }

    fn hears(self, kind: Kind, value: &str) -> Self {
        self.tell(Event::new("p", kind, Act::Send).of(value))
    }

    fn takes(self, who: &str, value: &str, queue: u64, offset: u64) -> Self {
        self.tell(Event::new(who, Kind::Ok, Act::Take).of(value).at(queue, offset))
    }

    fn acks(self, who: &str, value: &str) -> Self {
        self.tell(Event::new(who, Kind::Invoke, Act::Ack).of(value))
            .tell(Event::new(who, Kind::Ok, Act::Ack).of(value))
    }

    fn reads(self, who: &str, value: &str, queue: u64, offset: u64) -> Self {
        self.tell(Event::new(who, Kind::Ok, Act::Read).of(value).at(queue, offset))
    }

    fn there(self, value: &str, queue: u64, offset: u64) -> Self {
        self.tell(Event::new("last", Kind::Ok, Act::Scan).of(value).at(queue, offset))
    }

    fn leads(self, broker: &str, shard: u64, term: u64) -> Self {
        self.tell(Event::new("watcher", Kind::Info, Act::Reign).at(shard, term).note(broker))
    }

    fn judged(&self) -> Verdict {
        judge(&self.0)
    }

    /// It shows this, once, and nothing else.
    fn shows(&self, wrong: Wrong) {
        let verdict = self.judged();
        let shown: Vec<_> =
            verdict.wrongs.iter().map(|(what, (count, _))| (*what, *count)).collect();
        assert_eq!(shown, [(wrong, 1)], "{verdict}");
    }
}

/// Two messages stored and there.
fn two() -> Tale {
    Tale::default().stored("a", 0, 0).stored("b", 0, 1)
}

#[test]
fn a_sound_history_is_sound() {
    let tale = two()
        .sends_of("k", "c")
        .hears(Kind::Fail, "c")
        .sends_of("k", "d")
        .hears(Kind::Info, "d")
        .sends_of("k", "e")
        .tell(Event::new("nemesis", Kind::Invoke, Act::Fault).note("kill -9 of 1"))
        .takes("m", "a", 0, 0)
        .takes("n", "a", 0, 0)
        .acks("n", "a")
        .takes("n", "b", 0, 1)
        .reads("r", "a", 0, 0)
        .reads("r", "b", 0, 1)
        .leads("1", 7, 3)
        .leads("1", 7, 3)
        .leads("2", 7, 4)
        .leads("2", 8, 3)
        .there("a", 0, 0)
        .there("b", 0, 1)
        .there("d", 0, 2); // nobody knew
    let verdict = tale.judged();
    assert!(verdict.is_sound(), "{verdict}");
    let counts = verdict.counts;
    assert_eq!((counts.sent, counts.stored, counts.refused, counts.unknown), (5, 2, 1, 2));
    assert_eq!((counts.there, counts.taken, counts.acked, counts.read), (3, 3, 1, 2));
    assert_eq!((counts.reigns, counts.faults), (3, 1));
}

#[test]
fn an_acknowledged_message_that_is_not_there_is_lost() {
    two().there("a", 0, 0).shows(Wrong::Lost);
}

#[test]
fn what_nobody_sent_is_a_phantom() {
    two().there("a", 0, 0).there("b", 0, 1).there("x", 0, 2).shows(Wrong::Phantom);
}

#[test]
fn what_is_said_not_to_be_stored_and_is_there_is_a_phantom() {
    let refused = two().sends_of("k", "c").hears(Kind::Fail, "c");
    refused.there("a", 0, 0).there("b", 0, 1).there("c", 0, 2).shows(Wrong::Phantom);
}

#[test]
fn one_message_at_two_places_is_there_twice() {
    two().there("a", 0, 0).there("b", 0, 1).there("b", 0, 2).shows(Wrong::Twice);
}

#[test]
fn a_message_is_where_its_receipt_says() {
    two().there("a", 0, 0).there("b", 0, 2).shows(Wrong::Moved);
}

#[test]
fn one_place_holds_one_message() {
    let tale = two().sends_of("k", "c").there("a", 0, 0).there("b", 0, 1);
    tale.reads("r", "a", 0, 0).reads("r", "c", 0, 1).shows(Wrong::Differs);
}

#[test]
fn what_was_seen_stays() {
    let tale = two().sends_of("k", "c").there("a", 0, 0).there("b", 0, 1);
    tale.takes("m", "a", 0, 0).takes("m", "b", 0, 1).takes("m", "c", 0, 2).shows(Wrong::Vanished);
}

#[test]
fn messages_of_a_key_keep_their_order() {
    let tale = Tale::default().sends_of("k", "a").sends_of("k", "b");
    tale.there("b", 0, 0).there("a", 0, 1).shows(Wrong::Order);
    let others = Tale::default().sends_of("k", "a").sends_of("l", "b");
    assert!(others.there("b", 0, 0).there("a", 0, 1).judged().is_sound(), "two keys, no order");
}

#[test]
fn a_key_has_one_queue() {
    Tale::default()
        .stored("a", 0, 0)
        .stored("b", 1, 0)
        .there("a", 0, 0)
        .there("b", 1, 0)
        .shows(Wrong::Strayed);
}

#[test]
fn a_reader_leaves_nothing_out_and_never_goes_back() {
    let there = || two().there("a", 0, 0).there("b", 0, 1);
    there().reads("r", "b", 0, 1).shows(Wrong::Skipped);
    there().reads("r", "a", 0, 0).reads("r", "a", 0, 0).shows(Wrong::Skipped);
}

#[test]
fn the_group_gets_what_was_acknowledged() {
    two().there("a", 0, 0).there("b", 0, 1).takes("m", "a", 0, 0).shows(Wrong::Undelivered);
}

#[test]
fn what_the_group_is_done_with_does_not_come_again() {
    let there = || Tale::default().stored("a", 0, 0).there("a", 0, 0).takes("m", "a", 0, 0);
    there().acks("m", "a").takes("n", "a", 0, 0).shows(Wrong::Again);
    let unknown = there().tell(Event::new("m", Kind::Info, Act::Ack).of("a"));
    assert!(unknown.takes("n", "a", 0, 0).judged().is_sound(), "it was not told so");
}

#[test]
fn a_term_has_one_leader() {
    Tale::default().leads("1", 7, 3).leads("2", 7, 3).shows(Wrong::TwoLeaders);
}

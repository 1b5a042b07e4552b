//! Many members and queues at once.

use grus_protocol::ids::MemberId;

use super::super::super::book::Book;
use super::super::super::field::tests::{GROUP, group};
use super::super::super::records::encode;
use super::super::Coordination;
use super::Desk;

#[test]
fn a_crowd_and_its_queues_come_in_changes_that_a_small_log_takes() {
    const ITEM_BYTES_MAX: usize = 16 * 1024;
    let mut desk = Desk::new(3_000);
    desk.coordination =
        Coordination::new((group(), GROUP), Book::default(), 0).within(ITEM_BYTES_MAX);
    desk.tell_routes();
    let write = |desk: &mut Desk| {
        let mut changes = 0;
        for _ in 0..300 {
            while let Some(change) = desk.coordination.next_change(desk.now_ms) {
                let records =
                    change.members_set.iter().map(|(_, record)| encode(record).len() + 12);
                let gone = change.members_gone.len() * 8;
                let bytes = records.sum::<usize>() + gone + change.grants.len() * 28;
                assert!(bytes < ITEM_BYTES_MAX * 3 / 4, "{bytes} bytes");
                changes += 1;
                desk.coordination.applied(desk.now_ms);
            }
            desk.now_ms += 10;
        }
        changes
    };
    for session in 1..=600 {
        let now = desk.now();
        desk.coordination.join(Desk::joining(session), session, now).unwrap();
    }
    assert!(write(&mut desk) > 10, "in parts");
    let book = desk.coordination.book();
    assert_eq!((book.members().len(), book.grants().len()), (600, 3_000));
    let all: Vec<MemberId> = book.members().keys().copied().collect();
    for member in all {
        desk.coordination.leave(member, 1).unwrap();
    }
    write(&mut desk);
    let book = desk.coordination.book();
    assert_eq!((book.members().len(), book.grants().len()), (0, 0));
}

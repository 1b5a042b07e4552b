//! The recovery decision table of docs/STORAGE.md, line by line.

use super::*;

const HEAD: u32 = SEGMENT_HEAD_BYTES;

fn header(sequence: u64, term: u64, index: u64, previous_term: u64) -> EntryHeader {
    EntryHeader {
        kind: EntryKind::Normal as u8,
        previous_kind: EntryKind::Normal as u8,
        sequence,
        // With its header 100 bytes, padded to 104.
        length: 36,
        payload_crc: 0,
        id: EntryId { term, index },
        previous_term,
        mark: Place::default(),
    }
}

fn whole(nth: u32, header: EntryHeader) -> Found {
    let offset = HEAD + nth * 104;
    Found::Entry { offset, header, payload_whole: true, looks_unwritten: false }
}

fn broken(nth: u32, header: EntryHeader, looks_unwritten: bool) -> Found {
    let offset = HEAD + nth * 104;
    Found::Entry { offset, header, payload_whole: false, looks_unwritten }
}

fn unknown(from: u32, until: u32, looks_unwritten: bool) -> Found {
    Found::Unknown { from: HEAD + from * 104, until: HEAD + until * 104, looks_unwritten }
}

fn scanned(sequence: u64, found: Vec<Found>) -> Source {
    Source::Scanned(SegmentScan {
        sequence,
        found,
        close: None,
        mark: Place::default(),
        head_damaged: false,
        recycled: false,
    })
}

fn marked(sequence: u64, nth: u32, last: EntryId) -> Evidence {
    let place = Place { sequence, offset: HEAD + nth * 104 };
    Evidence { mark: Some(Mark { place, last, cuts: 0 }), ..Evidence::default() }
}

fn entry(term: u64, index: u64) -> EntryId {
    EntryId { term, index }
}

/// Indexes kept, and those of them that are damaged.
fn stands(outcome: &Outcome) -> (Vec<u64>, Vec<u64>) {
    let indexes = |kept: &Kept| {
        let first = kept.table.first_index().unwrap_or(1);
        first..=kept.table.last_index().unwrap_or(0)
    };
    let all = outcome.kept.iter().flat_map(indexes).collect();
    let damaged = outcome.kept.iter().flat_map(|kept| kept.table.damaged.keys().copied()).collect();
    (all, damaged)
}

#[test]
fn a_bad_end_above_the_mark_is_torn_and_goes() {
    let found = vec![whole(0, header(1, 1, 0, 0)), broken(1, header(1, 1, 1, 1), false)];
    let outcome = walk(vec![scanned(1, found)], marked(1, 1, entry(1, 0)));
    assert_eq!(stands(&outcome), (vec![0], vec![]));
    assert_eq!(outcome.torn.unwrap().offset, HEAD + 104);
}

#[test]
fn the_same_end_below_the_mark_is_damage_and_stays() {
    let found = vec![whole(0, header(1, 1, 0, 0)), broken(1, header(1, 1, 1, 1), true)];
    let outcome = walk(vec![scanned(1, found)], marked(1, 2, entry(1, 1)));
    assert_eq!(stands(&outcome), (vec![0, 1], vec![1]));
    assert_eq!(outcome.torn, None);
    assert_eq!(outcome.damage[0].first_index, 1);
}

#[test]
fn a_later_header_vouches_for_a_bad_entry_before_it() {
    let voucher =
        EntryHeader { mark: Place { sequence: 1, offset: HEAD + 208 }, ..header(1, 1, 2, 1) };
    let bad = broken(1, header(1, 1, 1, 1), true);
    let found = vec![whole(0, header(1, 1, 0, 0)), bad, whole(2, voucher)];
    let mut source = scanned(1, found);
    let Source::Scanned(scan) = &mut source else { unreachable!() };
    scan.mark = voucher.mark;
    let outcome = walk(vec![source], Evidence::default());
    assert_eq!(stands(&outcome), (vec![0, 1, 2], vec![1]));
}

#[test]
fn above_the_mark_a_missing_sector_is_torn_and_a_turned_bit_is_damage() {
    let source = |looks_unwritten, recycled| {
        let bad = broken(1, header(1, 1, 1, 1), looks_unwritten);
        let mut source =
            scanned(1, vec![whole(0, header(1, 1, 0, 0)), bad, whole(2, header(1, 1, 2, 1))]);
        let Source::Scanned(scan) = &mut source else { unreachable!() };
        scan.recycled = recycled;
        source
    };
    let after_cut = Evidence::default;
    assert!(walk(vec![source(true, false)], after_cut()).torn.is_some());
    assert!(walk(vec![source(false, false)], after_cut()).torn.is_none());
    assert!(walk(vec![source(false, true)], after_cut()).torn.is_some(), "may be an older life");
    let after_kill = Evidence { kernel_survived: true, ..after_cut() };
    assert!(walk(vec![source(true, true)], after_kill).torn.is_none(), "kills lose no sectors");
}

#[test]
fn a_destroyed_header_leaves_no_hole_and_its_follower_names_it() {
    let follower = EntryHeader { previous_kind: 1, ..header(1, 7, 2, 5) };
    let found = vec![whole(0, header(1, 1, 0, 0)), unknown(1, 2, false), whole(2, follower)];
    let outcome = walk(vec![scanned(1, found)], Evidence::default());
    assert_eq!(stands(&outcome), (vec![0, 1, 2], vec![1]));
    let damaged = outcome.kept[0].table.damaged[&1];
    assert_eq!((damaged.term, damaged.kind), (5, Some(EntryKind::Membership)));
}

#[test]
fn durable_entries_lost_at_the_end_keep_their_identity_by_the_mark() {
    let found = vec![whole(0, header(1, 1, 0, 0)), unknown(1, 3, true)];
    let outcome = walk(vec![scanned(1, found)], marked(1, 3, entry(4, 2)));
    assert_eq!(stands(&outcome), (vec![0, 1, 2], vec![1, 2]));
    assert_eq!(outcome.term_of(2), Some(4));
    assert_eq!(outcome.kept[0].end, HEAD + 312);
}

#[test]
fn a_newer_segment_wins_over_what_was_truncated() {
    let old = vec![
        whole(0, header(1, 1, 0, 0)),
        whole(1, header(1, 1, 1, 1)),
        whole(2, header(1, 1, 2, 1)),
    ];
    let new = vec![whole(0, header(3, 2, 1, 1))];
    let outcome = walk(vec![scanned(1, old), scanned(3, new)], Evidence::default());
    assert_eq!(stands(&outcome), (vec![0, 1], vec![]));
    assert_eq!((outcome.kept[0].end, outcome.term_of(1)), (HEAD + 104, Some(2)));
}

#[test]
fn what_was_damaged_in_what_was_truncated_is_nobodys_loss() {
    let old = || {
        let [first, third] = [whole(0, header(1, 1, 0, 0)), whole(2, header(1, 1, 2, 1))];
        scanned(1, vec![first, broken(1, header(1, 1, 1, 1), true), third])
    };
    let new = |from| scanned(3, vec![whole(0, header(3, 2, from, 1))]);
    let outcome = walk(vec![old(), new(1)], marked(1, 3, entry(1, 2)));
    assert_eq!((stands(&outcome), outcome.damage.len()), ((vec![0, 1], vec![]), 0));
    let outcome = walk(vec![old(), new(2)], marked(1, 3, entry(1, 2)));
    assert_eq!(stands(&outcome), (vec![0, 1, 2], vec![1]));
    let damage = &outcome.damage;
    assert_eq!((damage.len(), damage[0].first_index, damage[0].last_index), (1, 1, 1));
}

/// The purge point lies inside it, where a snapshot ended that agreed with the log.
#[test]
fn what_is_missing_around_the_purge_point_is_told_of_as_damage() {
    let mut table = EntryTable::default();
    for nth in 0..10 {
        table.place(entry(1, 11 + u64::from(nth)), HEAD + nth * 104, EntryKind::Normal as u8);
    }
    let missing = Source::Missing { sequence: 3, table, end: HEAD + 10 * 104 };
    let purged = Evidence { purged: Some(entry(1, 15)), ..Evidence::default() };
    let outcome = walk(vec![missing], purged);
    assert_eq!(stands(&outcome).1, (11..=20).collect::<Vec<u64>>());
    let damage = &outcome.damage;
    assert_eq!((damage.len(), damage[0].first_index, damage[0].last_index), (1, 11, 20));
}

#[test]
fn a_segment_written_behind_another_history_goes() {
    let old = vec![whole(0, header(1, 1, 0, 0)), whole(1, header(1, 1, 1, 1))];
    // Behind an entry 0 of term 9: a snapshot that was never installed.
    let new = vec![whole(0, header(3, 9, 1, 9))];
    let outcome = walk(vec![scanned(1, old), scanned(3, new)], Evidence::default());
    assert_eq!(stands(&outcome), (vec![0, 1], vec![]));
    assert_eq!((outcome.term_of(1), outcome.dropped), (Some(1), vec![3]));
}

#[test]
fn what_a_cut_voids_is_not_read() {
    let mut cut = scanned(1, vec![whole(0, header(1, 1, 0, 0))]);
    let Source::Scanned(scan) = &mut cut else { unreachable!() };
    let close = Close { cut: HEAD + 104, last: Some((entry(1, 0), 2)), void_through: 2 };
    scan.close = Some((close, 0));
    let void = scanned(2, vec![whole(0, header(2, 1, 50, 1))]);
    let outcome = walk(vec![cut, void], marked(2, 1, entry(1, 50)));
    assert_eq!(stands(&outcome), (vec![0], vec![]));
    assert_eq!(outcome.dropped, [2]);
}

#[test]
fn a_gap_between_segments_is_torn_above_the_mark_and_damage_below() {
    let sources = || {
        vec![
            scanned(1, vec![whole(0, header(1, 1, 0, 0))]),
            scanned(2, vec![whole(0, header(2, 1, 3, 1))]),
        ]
    };
    let outcome = walk(sources(), marked(1, 1, entry(1, 0)));
    assert_eq!(stands(&outcome), (vec![0], vec![]));
    assert_eq!(outcome.dropped, [2]);
    let outcome = walk(sources(), marked(2, 1, entry(1, 3)));
    assert_eq!(stands(&outcome), (vec![0, 1, 2, 3], vec![1, 2]));
}

#[test]
fn a_gap_behind_a_truncation_below_the_mark_is_torn() {
    let mut cut = scanned(1, vec![whole(0, header(1, 1, 0, 0))]);
    let Source::Scanned(scan) = &mut cut else { unreachable!() };
    let close = Close { cut: HEAD + 104, last: Some((entry(1, 0), 2)), void_through: 1 };
    scan.close = Some((close, 0));
    // Written behind a snapshot at 3 that never became durable.
    let ahead = scanned(2, vec![whole(0, header(2, 3, 4, 3))]);
    let outcome = walk(vec![cut, ahead], marked(1, 3, entry(1, 2)));
    assert_eq!(stands(&outcome), (vec![0], vec![]));
    assert_eq!(outcome.dropped, [2]);
}

#[test]
fn a_gap_that_the_operator_has_given_up_does_not_tear_what_stands_behind_it() {
    let sources = || {
        let before = scanned(1, vec![whole(0, header(1, 1, 0, 0)), whole(1, header(1, 1, 1, 1))]);
        vec![before, scanned(5, vec![whole(0, header(5, 2, 4, 1))])]
    };
    let outcome = walk(sources(), Evidence::default());
    assert_eq!(stands(&outcome), (vec![0, 1], vec![]), "never acknowledged, as far as is known");
    let given_up = Evidence { given_up: vec![2..=3], ..Evidence::default() };
    let outcome = walk(sources(), given_up);
    assert_eq!(stands(&outcome), (vec![0, 1, 2, 3, 4], vec![2, 3]));
    let others = Evidence { given_up: vec![3..=9], ..Evidence::default() };
    assert_eq!(stands(&walk(sources(), others)).0, [0, 1]);
}

#[test]
fn a_mark_in_a_file_that_is_not_there_names_what_was_in_it() {
    let found = || vec![scanned(1, vec![whole(0, header(1, 1, 0, 0))])];
    let outcome = walk(found(), marked(3, 2, entry(2, 4)));
    assert_eq!(stands(&outcome), (vec![0, 1, 2, 3, 4], vec![1, 2, 3, 4]));
    assert_eq!(outcome.missing_from, Some(1));
    // A cut tells why the file went, or a newer one stands in its place.
    let cut = Evidence { cuts_void_through: 3, ..marked(3, 2, entry(2, 4)) };
    assert_eq!(stands(&walk(found(), cut)).0, [0]);
    // The file with the cut is purged, but the notes have counted it.
    let counted = Evidence { cuts: 1, ..marked(3, 2, entry(2, 4)) };
    assert_eq!(stands(&walk(found(), counted)).0, [0]);
    let mut newer = found();
    newer.push(scanned(4, vec![whole(0, header(4, 3, 1, 1))]));
    let outcome = walk(newer, marked(3, 2, entry(2, 4)));
    assert_eq!((stands(&outcome), outcome.missing_from), ((vec![0, 1], vec![]), None));
    let floor = Evidence { floor: Some(entry(2, 2)), free_sequence: 9, ..Evidence::default() };
    let outcome = walk(found(), floor);
    assert_eq!(stands(&outcome), (vec![0, 1, 2], vec![1, 2]));
    assert_eq!(outcome.kept[1].sequence, 9);
}

#[test]
fn a_tear_below_the_purge_point_takes_nothing_from_behind_it() {
    let purged = Evidence { purged: Some(entry(1, 3)), ..Evidence::default() };
    let below = scanned(1, vec![whole(0, header(1, 1, 0, 0)), broken(1, header(1, 1, 1, 1), true)]);
    let behind = |from| scanned(2, vec![whole(0, header(2, 1, from, 1))]);
    let outcome = walk(vec![below, behind(4)], purged.clone());
    assert_eq!(outcome.torn, None);
    assert_eq!(stands(&outcome), (vec![4], vec![]));
    let below = scanned(1, vec![broken(0, header(1, 1, 2, 1), true)]);
    assert_eq!(stands(&walk(vec![below, behind(3)], purged.clone())).0, [3]);
    // One that begins farther on was never acknowledged: what is between is missing.
    let below = scanned(1, vec![whole(0, header(1, 1, 2, 1)), broken(1, header(1, 1, 3, 1), true)]);
    assert!(walk(vec![below, behind(6)], purged).torn.is_some());
}

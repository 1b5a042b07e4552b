//! Messages that are due later, and what is asked about them.

use crate::BORN;
use crate::decoder::{Array, Bin, Bool, Nil, Number, batch, frame, golden, n, t};

#[test]
fn records_that_are_due_later_or_live_for_a_while() {
    let due = batch(&golden("batch.due"));
    assert_eq!(due.fields["attributes"], 1 << 4);
    let times: Vec<_> = due.records.iter().map(|one| (one.deliver_at, one.ttl_ms)).collect();
    let first = 1_800_000_000_000;
    assert_eq!(times, [(Some(first), Some(60_000)), (Some(first + 1), Some(60_000))]);
    let delayed = batch(&golden("batch.delayed"));
    assert_eq!((delayed.fields["attributes"], delayed.records[0].delay_ms), (0, Some(10_000)));
    assert_eq!(delayed.records[0].body, b"soon");

    let reply = frame("Fetch.expired");
    let Array(batches) = &reply.header[2] else { panic!("{:?}", reply.header) };
    let length = golden("batch.plain").len() as u64;
    assert_eq!(batches[0], Array(n(&[1000, 5, BORN + 7, 0, 7])));
    assert_eq!(batches[1], Array(n(&[1007, 6, BORN + 7, length, 0])));
    assert_eq!(reply.body, golden("batch.plain"));
}

#[test]
fn what_is_scheduled() {
    let (id, due) = (Number(0x0123_4567_89ab_cdef), 1_800_000_000_000);
    let header = |name| frame(name).header;
    let timer = |place| Array(n(&[70_000, place]));
    let timers = Array(vec![timer(3), timer(4)]);
    assert_eq!(header("RecallMessage.request"), [t("orders"), id.clone(), Number(1), timers]);
    assert_eq!(header("RecallMessage.reply"), [Array(vec![Bool(true), Bool(false)])]);

    let place = Array(vec![Number(due), Number(3), timer(3)]);
    let mut list = vec![t("orders"), id.clone()];
    list.extend(n(&[1, BORN, due + 1]));
    list.extend([Bin(b"order-17".to_vec()), place.clone(), Number(2), Bool(true)]);
    assert_eq!(header("ListScheduled.request"), list);
    let all = [Nil, Number(0), Nil, Number(0), Number(u64::MAX), Nil, Nil, Number(0), Bool(false)];
    assert_eq!(header("ListScheduled.all"), all);
    let scheduled = |number, length| {
        let mut one = vec![t("orders"), id.clone()];
        one.extend(n(&[1, 3]));
        one.extend([timer(3 + number), Number(due + number), Number(length)]);
        Array(one)
    };
    let reply = frame("ListScheduled.reply");
    let alone = batch(&reply.body);
    let length = reply.body.len() as u64;
    assert_eq!(reply.header, [Array(vec![scheduled(0, length), scheduled(1, 0)]), place]);
    assert_eq!((alone.fields["count"], alone.fields["attributes"]), (1, 1 << 4));
    assert_eq!(alone.records, batch(&golden("batch.due")).records[..1]);

    let count = [t("orders"), id.clone(), Number(1), Number(BORN), Number(u64::MAX)];
    assert_eq!(header("CountScheduled.request"), count);
    assert_eq!(header("CountScheduled.reply"), n(&[70_000]));
    let show = frame("ShowScheduled.request");
    assert_eq!(
        (show.opcode, show.header),
        (63, vec![t("orders"), id.clone(), Number(1), timer(3)])
    );
    let shown = frame("ShowScheduled.reply");
    assert_eq!((shown.header, shown.body), (vec![scheduled(0, length)], reply.body));
}

#[test]
fn schedules() {
    let (id, due) = (Number(0x0123_4567_89ab_cdef), 1_800_000_000_000);
    let header = |name| frame(name).header;
    let place = |name| vec![t("orders"), id.clone(), Number(1), t(name)];
    let cron = || [t("0 30 2 * * *"), t("Europe/Berlin"), Number(0), Number(10_000)];
    let every = || [Nil, t("UTC"), Number(1_000), Number(1)];
    let create = frame("CreateSchedule.request");
    assert_eq!((create.opcode, create.body), (64, golden("batch.plain")));
    assert_eq!(create.header, [&place("nightly")[..], &cron()].concat());
    assert_eq!(header("CreateSchedule.every"), [&place("tick")[..], &every()].concat());
    assert_eq!(header("CreateSchedule.reply"), n(&[due]));

    let after = || Array(vec![id.clone(), Number(1), t("nightly")]);
    let list = [t("orders"), id.clone(), after(), Number(2), Number(3)];
    assert_eq!(header("ListSchedules.request"), list);
    let nightly = [Bool(false), Number(300), Array(n(&[due, due + 86_400_000]))];
    let nightly = [&place("nightly")[..], &cron(), &nightly].concat();
    let tick = [Bool(true), Number(0), Array(Vec::new())];
    let tick = [&place("tick")[..], &every(), &tick].concat();
    let listed = [Array(vec![Array(nightly), Array(tick)]), after()];
    assert_eq!(header("ListSchedules.reply"), listed);

    assert_eq!(header("AlterSchedule.request"), [&place("tick")[..], &[Bool(false)]].concat());
    assert_eq!(header("AlterSchedule.reply"), n(&[due]));
    assert_eq!(header("DeleteSchedule.request"), place("tick"));
    assert_eq!(header("DeleteSchedule.reply"), []);
}

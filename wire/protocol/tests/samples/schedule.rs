//! Samples of schedules.

use bytes::Bytes;
use grus_protocol::message::{
    AlterSchedule, AlterScheduleReply, CreateSchedule, CreateScheduleReply, DeleteSchedule,
    DeleteScheduleReply, ListSchedules, ListSchedulesReply, Request, SchedulePlace, ScheduleState,
};
use grus_protocol::names::ScheduleName;
use grus_protocol::{FrameHead, QueueId, TimestampMs, TopicId};

use super::scheduled::DUE;
use super::{pair, plain_batch, topic, whole};

const TOPIC_ID: TopicId = TopicId(0x0123_4567_89ab_cdef);
const QUEUE: QueueId = QueueId(1);

fn name(name: &str) -> ScheduleName {
    ScheduleName::try_from(name).unwrap()
}

pub(super) fn frames(out: &mut Vec<(String, Bytes)>) {
    let (topic_id, queue) = (TOPIC_ID, QUEUE);
    let create = CreateSchedule {
        topic: topic(),
        topic_id,
        queue,
        name: name("nightly"),
        cron: Some("0 30 2 * * *".into()),
        zone: "Europe/Berlin".into(),
        every_ms: 0,
        made_up_max: 10_000,
    };
    pair(out, &create, &CreateScheduleReply { next: DUE }, [&plain_batch(), b""]);
    let every = CreateSchedule {
        name: name("tick"),
        cron: None,
        zone: "UTC".into(),
        every_ms: 1_000,
        made_up_max: 1,
        ..create.clone()
    };
    let head = FrameHead::request(CreateSchedule::OPCODE, 0x0102_0304_0506_0740);
    out.push(("CreateSchedule.every".into(), whole(head, &every, &plain_batch())));
    let place = SchedulePlace { topic_id, queue, name: name("nightly") };
    let list = ListSchedules {
        topic: Some(topic()),
        topic_id,
        after: Some(place.clone()),
        schedules_max: 2,
        runs_max: 3,
    };
    let nightly = ScheduleState {
        topic: topic(),
        topic_id,
        queue,
        name: name("nightly"),
        cron: create.cron.clone(),
        zone: create.zone.clone(),
        every_ms: 0,
        made_up_max: 10_000,
        is_paused: false,
        runs: 300,
        next: vec![DUE, TimestampMs(DUE.0 + 86_400_000)],
    };
    let tick = ScheduleState {
        name: name("tick"),
        cron: None,
        zone: every.zone.clone(),
        every_ms: 1_000,
        made_up_max: 1,
        is_paused: true,
        runs: 0,
        next: Vec::new(),
        ..nightly.clone()
    };
    let listed = ListSchedulesReply { schedules: vec![nightly, tick], next: Some(place) };
    pair(out, &list, &listed, [b"", b""]);
    let alter =
        AlterSchedule { topic: topic(), topic_id, queue, name: name("tick"), is_paused: false };
    pair(out, &alter, &AlterScheduleReply { next: Some(DUE) }, [b"", b""]);
    let delete = DeleteSchedule { topic: topic(), topic_id, queue, name: name("tick") };
    pair(out, &delete, &DeleteScheduleReply {}, [b"", b""]);
}

//! Requests about what is scheduled: each ends with its answers, counted in the budget until then.

use bytes::Bytes;
use grus_protocol::message::{
    AlterSchedule, CountScheduled, CreateSchedule, DeleteSchedule, ListScheduled, ListSchedules,
    RecallMessage, ShowScheduled,
};

use super::Dispatcher;
use crate::connection::replies::ReplyTo;

impl Dispatcher {
    pub(super) fn recall_message(&self, ask: RecallMessage, reply: ReplyTo) {
        let schedules = self.service.schedules.clone();
        tokio::task::spawn_local(async move { reply.result(schedules.recall(ask).await) });
    }

    pub(super) fn list_scheduled(&self, ask: ListScheduled, reply: ReplyTo) {
        let schedules = self.service.schedules.clone();
        tokio::task::spawn_local(async move {
            match schedules.list(ask).await {
                Ok(listed) => reply.with_body(&listed.reply, &listed.batches),
                Err(error) => reply.error(error),
            }
        });
    }

    pub(super) fn count_scheduled(&self, ask: CountScheduled, reply: ReplyTo) {
        let schedules = self.service.schedules.clone();
        tokio::task::spawn_local(async move { reply.result(schedules.count(ask).await) });
    }

    pub(super) fn show_scheduled(&self, ask: ShowScheduled, reply: ReplyTo) {
        let schedules = self.service.schedules.clone();
        tokio::task::spawn_local(async move {
            match schedules.show(ask).await {
                Ok((header, batch)) => reply.with_body(&header, &[batch]),
                Err(error) => reply.error(error),
            }
        });
    }

    pub(super) fn create_schedule(&self, ask: CreateSchedule, batch: Bytes, reply: ReplyTo) {
        let (schedules, limits) = (self.service.schedules.clone(), self.batch_limits);
        tokio::task::spawn_local(async move {
            reply.result(schedules.create_schedule(ask, batch, &limits).await);
        });
    }

    pub(super) fn list_schedules(&self, ask: ListSchedules, reply: ReplyTo) {
        let schedules = self.service.schedules.clone();
        tokio::task::spawn_local(async move { reply.result(schedules.list_schedules(ask).await) });
    }

    pub(super) fn alter_schedule(&self, ask: AlterSchedule, reply: ReplyTo) {
        let schedules = self.service.schedules.clone();
        tokio::task::spawn_local(async move { reply.result(schedules.alter_schedule(ask).await) });
    }

    pub(super) fn delete_schedule(&self, ask: DeleteSchedule, reply: ReplyTo) {
        let schedules = self.service.schedules.clone();
        tokio::task::spawn_local(async move { reply.result(schedules.delete_schedule(ask).await) });
    }
}

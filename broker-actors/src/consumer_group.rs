//! Consumer groups: what the coordinator of a group decides. Pure, all of it.
//!
//! [`coordination`] says what is to be written and whom to tell, from what members ask, what is
//! written and what the time is; [`strategy`] whose each queue is to be; [`field`] what there is to
//! be divided; [`book`] what the log says.

pub mod book;
pub mod coordination;
pub mod field;
pub mod leases;
pub mod polls;
pub mod records;
pub mod strategy;

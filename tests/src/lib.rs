//! Whatever crosses a crate or a process: the harness that the tests in `tests/` are written with.
//!
//! * [`broker`] is a broker as a process: started, waited for, killed, started again.
//! * [`browser`] is a real browser that looks at a broker's page.
//! * [`calm`] is a client that keeps to all rules, and whose round trips are timed.
//! * [`cluster`] is a registry and three brokers, and one who sends while they die.
//! * [`queue_senders`] send to each queue apart, on threads of their own, and time each send.
//! * [`program`] runs `grus` with arguments and hands back what it printed.
//! * [`history`] is what clients were told while things went wrong, and the judge of it; [`nemesis`] is what goes wrong.
//! * [`network`] gives brokers networks of their own, [`small_disk`] disks that can be filled.
//! * [`process`] is what both stand on: a child whose lines are events and whose log is shown on failure.
//! * [`hostile`] is a peer whose every byte is the test's own.
//! * [`strain`] says how long a busy machine kept work waiting, for which bounds on real time allow.
//! * [`trace`] reads what strace wrote and judges the order of syncs and receipts.

pub mod broker;
pub mod browser;
pub mod calm;
pub mod cluster;
pub mod history;
pub mod hostile;
pub mod http;
pub mod nemesis;
pub mod network;
pub mod ports;
pub mod process;
pub mod program;
pub mod queue_senders;
pub mod random;
pub mod registry;
pub mod small_disk;
pub mod strain;
pub mod trace;
pub mod usage;
pub mod watch;

//! Grus protocol: bytes to values and back. Pure: no I/O, no async, no clock.

mod wire;

pub mod ids;

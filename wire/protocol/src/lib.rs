//! Grus protocol: bytes to values and back. Pure: no I/O, no async.

//! Whatever crosses a crate or a process.

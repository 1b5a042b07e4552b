//! The registry: who is alive, who serves what, where it should move.

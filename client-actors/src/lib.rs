//! The Grus client: producer and reader as actors, and as plain async.

//! The broker: accept, order, store, deliver.

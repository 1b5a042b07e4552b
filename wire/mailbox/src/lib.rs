//! Messages between the actors of one process: bounded inboxes, ticker, placement, supervision, shutdown.

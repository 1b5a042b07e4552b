//! grus: the one binary. Tools, and the broker and registry daemons.

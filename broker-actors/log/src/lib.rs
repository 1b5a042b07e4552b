//! The commit log: segments, index, recovery, the Disk trait.

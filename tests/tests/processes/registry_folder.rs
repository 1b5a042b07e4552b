//! The registry's sled folder is only a copy of what its log holds.

use std::fs;
use std::path::{Path, PathBuf};

use grus_tests::broker::Home;
use rustix::process::Signal;

use crate::{create, numbered, read_all};

/// The folder below `folder` that sled keeps its files in.
fn sled_folder(folder: &Path) -> PathBuf {
    let mut rooms = vec![folder.to_owned()];
    while let Some(room) = rooms.pop() {
        if room.join("db").is_file() && room.join("conf").is_file() {
            return room;
        }
        let entries = fs::read_dir(&room).expect("a readable folder");
        rooms.extend(
            entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()),
        );
    }
    panic!("no sled folder below {}", folder.display());
}

/// What is done to the folder: a name for it, and the deed.
type Hurt = (&'static str, fn(&Path));

#[test]
fn it_is_rebuilt_when_it_is_damaged_or_gone() {
    let home = Home::new();
    let broker = home.start();
    for topic in ["a", "b", "c"] {
        create(&home, topic, 2);
        home.grus_fed(&["produce", topic], numbered(topic, 100).as_bytes()).ok();
    }
    home.grus(&["topic", "delete", "b"]).ok();
    let topics = home.grus(&["topic", "list", "--json"]).ok().text();
    broker.end(Signal::TERM);
    let sled = sled_folder(&home.data);
    let hurts: [Hurt; 4] = [
        ("gone", |sled| fs::remove_dir_all(sled).expect("a folder to remove")),
        ("noise", |sled| overwrite(&sled.join("db"), 0xa5)),
        ("zeros", |sled| overwrite(&sled.join("db"), 0)),
        ("no conf", |sled| fs::write(sled.join("conf"), b"nonsense").expect("a file to write")),
    ];
    for (what, hurt) in hurts {
        hurt(&sled);
        let broker = home.start();
        assert_eq!(home.grus(&["topic", "list", "--json"]).ok().text(), topics, "{what}");
        for topic in ["a", "c"] {
            assert_eq!(read_all(&home, topic).len(), 100, "{what}: {topic}");
        }
        home.grus_fed(&["produce", "d", "--queue", "0"], b"x\n").ok();
        home.grus(&["topic", "delete", "d"]).ok();
        broker.end(Signal::TERM);
    }
}

fn overwrite(file: &Path, byte: u8) {
    let length = fs::metadata(file).expect("a file").len();
    let bytes = vec![byte; usize::try_from(length).expect("a small file")];
    fs::write(file, bytes).expect("a writable file");
}

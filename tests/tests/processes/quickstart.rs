//! The README's first command.

use std::time::Duration;

use grus_tests::program::{grus, run};
use grus_tests::strain::Strain;
use grus_tests::watch::Watch;

#[test]
fn it_passes_in_time_twice_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().display().to_string();
    for _ in 0..2 {
        let (strain, watch) = (Strain::watch(), Watch::start());
        let told = run(grus(&["quickstart", "--data", &data]), b"").ok().text();
        let (took, allowed) = (watch.elapsed(), strain.allowed());
        assert!(took < Duration::from_secs(15) + allowed, "{took:?}");
        for word in
            ["receipt", "kill -9", "byte for byte", "/metrics", "docs/README.md", "messages/s"]
        {
            assert!(told.contains(word), "{word} in {told}");
        }
        let left = std::fs::read_dir(folder.path()).expect("a readable folder").count();
        assert_eq!(left, 0, "the folder is removed");
    }
}

#[test]
fn it_takes_a_file_and_keeps_what_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("mine");
    std::fs::write(&file, b"one\r\n\ntwo \xff\0\nthree").expect("room on the disk");
    let data = folder.path().join("data").display().to_string();
    let arguments =
        ["quickstart", &file.display().to_string(), "--data", &data, "--keep", "--json"];
    let told = run(grus(&arguments), b"").ok().json();
    let step = |name: &str| told.iter().find(|object| object["step"] == name).expect(name);
    assert_eq!(step("file")["lines"], 4);
    assert_eq!(step("read")["messages"], 4);
    assert_eq!(step("read")["sha256"], step("file")["sha256"]);
    assert_ne!(step("kill")["killed"], step("kill")["started"]);
    let kept = step("end")["kept"].as_str().expect("a folder").to_owned();
    assert!(std::path::Path::new(&kept).join("FORMAT").exists(), "{kept}");
}

#[test]
fn a_file_that_is_empty_or_missing_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = folder.path().join("empty");
    std::fs::write(&empty, b"").expect("room on the disk");
    assert!(
        run(grus(&["quickstart", &empty.display().to_string()]), b"").refused().contains("empty")
    );
    assert!(run(grus(&["quickstart", "/no/such/file"]), b"").refused().contains("/no/such/file"));
}

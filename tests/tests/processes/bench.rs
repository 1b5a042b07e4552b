//! `grus bench suite`: every figure comes, and nothing stays.

use grus_tests::program::{grus, run};
use serde_json::Value;

#[test]
fn the_suite_measures_everything_on_brokers_of_its_own_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().display().to_string();
    let measured = |time: &str| {
        let arguments =
            ["bench", "suite", "--runs", "1", "--time", time, "--folder", &place, "--json"];
        let told = run(grus(&arguments), b"").ok().json().remove(0);
        told["suite"].as_array().expect("figures").clone()
    };
    let is_there = |figure: &Value| {
        let values = figure["values"].as_array().expect("values");
        assert_eq!(values.len(), 1, "{figure}");
        values.iter().all(|value| value.as_f64().is_some_and(|it| it > 0.0))
    };
    // On a machine that is busy with other tests nothing may be done within a moment.
    let mut times = ["50ms", "1s", "10s"].into_iter();
    let figures = loop {
        let figures = measured(times.next().expect("a figure that stays nothing"));
        if figures.iter().all(is_there) {
            break figures;
        }
    };
    for part in
        ["limit:", "start", "produce", "consume", "one by one", "memory", "half of", "10,010"]
    {
        let named =
            |figure: &&Value| figure["name"].as_str().is_some_and(|name| name.contains(part));
        assert!(figures.iter().any(|figure| named(&figure)), "{part} in {figures:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a readable folder").count(), 0);
}

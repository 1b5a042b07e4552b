//! `grus bench suite`: every figure comes, and nothing stays.

use grus_tests::program::{grus, run};

#[test]
fn the_suite_measures_everything_on_brokers_of_its_own_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().display().to_string();
    let arguments =
        ["bench", "suite", "--runs", "1", "--time", "50ms", "--folder", &place, "--json"];
    let told = run(grus(&arguments), b"").ok().json().remove(0);
    let figures = told["suite"].as_array().expect("figures");
    for figure in figures {
        let values = figure["values"].as_array().expect("values");
        assert_eq!(values.len(), 1, "{figure}");
        assert!(values.iter().all(|value| value.as_f64().is_some_and(|it| it > 0.0)), "{figure}");
    }
    for part in
        ["limit:", "start", "produce", "consume", "one by one", "memory", "half of", "10,010"]
    {
        let named = |figure: &&serde_json::Value| {
            figure["name"].as_str().is_some_and(|name| name.contains(part))
        };
        assert!(figures.iter().any(|figure| named(&figure)), "{part} in {told}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a readable folder").count(), 0);
}

//! Producing with a delay against producing without, in turn.

use grus_tests::broker::Home;

use crate::options::Options;
use crate::{TOPIC, create};

pub(crate) fn run(options: &Options) {
    let rounds = options.number("rounds", 5);
    let size = options.text("size", "1KiB");
    let batch = options.number("batch", 1_000).to_string();
    let time = format!("{}s", options.number("seconds", 3));
    let load =
        ["bench", "produce", TOPIC, "--json", "--size", &size, "--batch", &batch, "--time", &time];
    let (mut plain, mut delayed) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let rate = |more: &[&str]| {
            let home = Home::new();
            let _broker = home.start();
            create(&home, options, TOPIC, &[]);
            let told = home.grus(&[&load, more].concat()).ok().json();
            told[0]["produce"]["messages_per_s"].as_f64().expect("a rate")
        };
        let (without, with) = (rate(&[]), rate(&["--delay", "1d"]));
        println!(
            "round {round}: {without:.0} messages a second without, {with:.0} with a delay: {:.3}",
            with / without
        );
        plain.push(without);
        delayed.push(with);
    }
    let (without, with) = (median(plain), median(delayed));
    println!("medians: {without:.0} and {with:.0}: {:.3}", with / without);
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

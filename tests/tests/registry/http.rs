//! What a registry process shows of itself over HTTP.

use std::collections::BTreeSet;

use grus_tests::http;
use grus_tests::registry::RegistryHome;
use serde_json::Value;

use crate::grus_at;

fn json(home: &RegistryHome, path: &str) -> Value {
    let (status, body) = http::get(home.http, path).expect("an answer");
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

fn name(actor: &Value) -> String {
    format!("{} {}", actor["kind"], actor["name"])
}

#[test]
fn a_registry_shows_its_brokers_topics_actors_and_metrics_to_those_who_name_it() {
    let home = RegistryHome::new();
    let registry = home.start();
    let empty = json(&home, "/health");
    assert_eq!((&empty["status"], &empty["topics"]), (&"ok".into(), &0.into()), "{empty}");
    let broker = home.broker();
    let _broker = broker.start();
    grus_at(&[home.listen], &["topic", "create", "t", "--queues", "3"], b"").ok();
    let health = json(&home, "/health");
    assert_eq!((&health["topics"], &health["queues"]), (&1.into(), &3.into()), "{health}");
    let brokers = health["brokers"].as_array().expect("a list");
    assert_eq!(brokers.len(), 1, "{health}");
    assert_eq!(brokers[0]["address"], broker.listen.to_string());
    assert_eq!(brokers[0]["live"], true);
    assert!(health["routesVersion"].as_u64() > empty["routesVersion"].as_u64(), "{health}");

    let actors = json(&home, "/actors");
    let kinds = actors["kinds"].as_array().expect("a list");
    for kind in ["Door", "Session", "BrokerTable", "Rebalance", "Registry", "Watch"] {
        assert!(kinds.iter().any(|is| is["kind"] == kind), "{kind} in {kinds:?}");
    }
    // Page by page: each that stays, once, though sessions come and go between the pages.
    assert_eq!(actors["next"], Value::Null);
    let (mut pages, mut after, mut listed) = (0, String::new(), Vec::new());
    loop {
        let page = json(&home, &format!("/actors?max=3{after}"));
        listed.extend(page["actors"].as_array().expect("a list").iter().map(name));
        pages += 1;
        let Some(next) = page["next"].as_u64() else { break };
        after = format!("&after={next}");
    }
    assert!(pages > 1, "{listed:?}");
    for one in actors["actors"].as_array().expect("a list") {
        let count = listed.iter().filter(|is| **is == name(one)).count();
        let stays = one["kind"] != "Session";
        assert!(count == 1 || (count == 0 && !stays), "{one} {count} times in {listed:?}");
    }

    let settings = json(&home, "/config");
    let of = |key: &str| settings.as_array().expect("a list").iter().find(|is| is["key"] == key);
    assert_eq!(of("http.address").expect("a setting")["source"], "command line");
    let (_, metrics) = http::get(home.http, "/metrics").expect("an answer");
    for line in ["grus_registry_brokers_live 1", "grus_registry_queues 3", "# EOF"] {
        assert!(metrics.lines().any(|is| is == line), "{line} in {metrics}");
    }
    let (status, _) = http::get_as(home.http, "evil.example", "/health").expect("an answer");
    assert_eq!(status, 403, "another name");
    let (status, _) = http::get(home.http, "/topics").expect("an answer");
    assert_eq!(status, 404);
    let (status, _) = http::get(home.http, "/actors?max=0").expect("an answer");
    assert_eq!(status, 400);
    registry.end(rustix::process::Signal::TERM);
}

#[test]
fn the_metrics_of_a_registry_are_the_documented_ones() {
    let home = RegistryHome::new();
    let _registry = home.start();
    let (_, metrics) = http::get(home.http, "/metrics").expect("an answer");
    let named = |line: &str| line.strip_prefix("# TYPE ").map(str::to_owned);
    let served: BTreeSet<String> = metrics
        .lines()
        .filter_map(named)
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    let page = include_str!("../../../docs/OPERATING.md");
    let (broker, registry) = page.split_once("### Metrics of a registry").expect("a chapter");
    let rows = |text: &str| -> BTreeSet<String> {
        let rows = text.lines().filter(|line| line.starts_with("| `grus_"));
        rows.filter_map(|line| line.split('`').nth(1).map(str::to_owned)).collect()
    };
    let of_its_own = rows(registry);
    let shared: BTreeSet<String> = served.difference(&of_its_own).cloned().collect();
    assert!(of_its_own.is_subset(&served), "{of_its_own:?} in {served:?}");
    assert!(shared.is_subset(&rows(broker)), "{shared:?} are documented with the broker's");
    assert!(shared.iter().all(|name| !name.starts_with("grus_registry_")), "{shared:?}");
}

#[test]
fn without_http_nothing_listens() {
    let home = RegistryHome::new().with_http("off");
    let registry = home.start();
    assert!(http::get(home.http, "/health").is_err());
    registry.end(rustix::process::Signal::TERM);
}

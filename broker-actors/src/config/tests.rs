//! Tests of the configuration.

use std::ffi::OsString;
use std::path::Path;

use grus_registry::configuration::{ConfigError, Loaded, uncommented};

use super::*;

fn load(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded<BrokerConfig>, ConfigError> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let variables: Vec<(OsString, OsString)> =
        own(variables).into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    BROKER_SCHEMA.from_layers(Some((Path::new("b.toml"), file)), variables, &own(flags))
}

#[test]
fn nothing_given_means_the_documented_defaults() {
    let config = BROKER_SCHEMA.from_layers(None, [], &[]).unwrap().config;
    assert_eq!(config, BrokerConfig::default());
    assert_eq!(config.listen_address, "127.0.0.1:6086");
    assert_eq!(config.http_address, "127.0.0.1:7654");
    assert_eq!(config.topic.retention_time, Duration::from_hours(168));
    assert_eq!(config.topic.retention_bytes, 0);
    assert_eq!(config.topic.queues, 4);
    assert_eq!(config.limits.message_bytes_max, 4 << 20);
    assert_eq!(config.limits.frame_bytes_max, 16 << 20);
    assert_eq!(config.limits.headers_bytes_max, 32 << 10);
    assert_eq!(config.connection.idle_timeout, Duration::from_mins(2));
    assert!(config.core_arbiters_resolved() >= 1);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "[listen]\naddress = \"a:1\"\nadvertised_address = \"b:2\"\nconnections_max = 7\n";
    let loaded = load(
        file,
        &[("GRUS__LISTEN__ADVERTISED_ADDRESS", "e:3"), ("GRUS__LISTEN__ADDRESS", "e:4")],
        &[("listen.address", "f:5")],
    )
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.listen_address, "f:5");
    assert_eq!(config.advertised_address, "e:3");
    assert_eq!(config.connections_max, 7);

    let printed = BROKER_SCHEMA.print(&loaded);
    let line = |name: &str| {
        let found = printed.lines().find(|line| line.starts_with(name)).unwrap();
        found.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("listen.address"), "listen.address = \"f:5\" # command line");
    assert_eq!(
        line("listen.advertised_address"),
        "listen.advertised_address = \"e:3\" # environment GRUS__LISTEN__ADVERTISED_ADDRESS"
    );
    assert_eq!(line("listen.connections_max"), "listen.connections_max = 7 # b.toml:4");
    assert_eq!(line("topic.queues"), "topic.queues = 4 # default");
}

#[test]
fn what_is_printed_can_be_read_back() {
    let file = "topic.retention_time = \"36h\"\n[http]\nhosts = [\"a.example\", \"b.example\"]\n";
    let loaded = load(file, &[], &[("limits.message_bytes_max", "1 MiB")]).unwrap();
    let again = load(&BROKER_SCHEMA.print(&loaded), &[], &[]).unwrap();
    assert_eq!(again.config, loaded.config);
    assert_eq!(again.config.http_hosts, ["a.example", "b.example"]);
    assert_eq!(again.config.topic.retention_time, Duration::from_hours(36));
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    let message = load("[listen]\n# c\nadress = \"x\"\n", &[], &[]).unwrap_err().to_string();
    assert_eq!(message, "unknown configuration key `listen.adress` (b.toml:3)");
    let message = load("", &[("GRUS__LOG__QUEUES", "3")], &[]).unwrap_err().to_string();
    assert_eq!(
        message,
        "unknown configuration key `log.queues` (environment GRUS__LOG__QUEUES); is \
         `topic.queues` meant?"
    );
    for (text, message) in [
        ("\n[listne]\n", "unknown configuration key `listne` (b.toml:2)"),
        (
            "listen = 5\n",
            "unknown configuration key `listen` (b.toml:1); it is a section: [listen]",
        ),
        (
            "topic = { queues = 1,\n queue = 2 }\n",
            "unknown configuration key `topic.queue` (b.toml:2)",
        ),
        (
            "[[topic]]\nqueues = 1\n",
            "unknown configuration key `topic` (b.toml:1); it is a section: [topic]",
        ),
        ("connectionsmax = 1\n", "unknown configuration key `connectionsmax` (b.toml:1)"),
    ] {
        assert_eq!(load(text, &[], &[]).unwrap_err().to_string(), message, "{text}");
    }
    assert!(load("[listen]\n", &[], &[]).is_ok(), "an empty section says nothing");
    assert!(matches!(load("", &[], &[("x", "1")]), Err(ConfigError::UnknownKey { .. })));
}

#[test]
fn a_wrong_value_is_named_with_its_place() {
    let message = load("[topic]\nqueues = \"many\"\n", &[], &[]).unwrap_err().to_string();
    assert_eq!(
        message,
        "configuration key `topic.queues` (b.toml:2): `many` is text, not a number, \
         from 1 to 65536"
    );
    let message = load("", &[("GRUS__TOPIC__QUEUES", "many")], &[]).unwrap_err().to_string();
    assert!(message.ends_with("`many` is not a number from 1 to 65536"), "{message}");
    for (text, line, says) in [
        ("[topic]\nqueues = \"4\"\n", 2, "is text, not a number"),
        ("[topic]\n\nauto_create = \"true\"\n", 3, "is text, not true or false"),
        ("listen.address = 6086\n", 1, "is a number, not host:port"),
        ("[log]\nsegment_bytes = 1.5\n", 2, "is a fraction, not a size"),
        ("[http]\nhosts = \"a\"\n", 2, "is text, not a list"),
        ("[http]\nhosts = [1]\n", 2, "is a list, not a list of texts"),
        ("[topic]\nqueues = 99999999999999999999\n", 2, "is out of range"),
        ("[topic]\nqueues = 70000\n", 2, "70000 is not from 1 to 65536"),
        ("[listen]\naddress = \"6086\"\n", 2, "`6086` is not host:port"),
        ("[listen]\naddress = \"h:70000\"\n", 2, "is not host:port"),
        ("[connection]\nidle_timeout = \"10\"\n", 2, "is not a duration"),
        ("[connection]\nidle_timeout = \"0\"\n", 2, "0 is not from 1s to 1d"),
        ("[log]\nsegment_bytes = \"8 TiB\"\n", 2, "8 TiB is not from 1 MiB to 2 GiB"),
        ("[topic]\ndurability = \"sure\"\n", 2, "neither"),
        ("[logging]\n\nfilter = \"a=b=c=d\"\n", 3, "`logging.filter`"),
    ] {
        let message = load(text, &[], &[]).unwrap_err().to_string();
        assert!(message.contains(&format!("(b.toml:{line})")), "{message}");
        assert!(message.contains(says), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let message = load("[topic]\nqueues = 0\n", &[], &[]).unwrap_err().to_string();
    assert!(message.contains("`topic.queues` (b.toml:2)"), "{message}");
    let message = load("# c\n[topic\n", &[], &[]).unwrap_err().to_string();
    assert!(message.starts_with("configuration file b.toml:2: "), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    let twice = load("[topic]\nqueues = 1\nqueues = 2\n", &[], &[]).unwrap_err();
    assert!(twice.to_string().starts_with("configuration file b.toml:3: "), "{twice}");
    let missing = BROKER_SCHEMA.load(Some(Path::new("/nonexistent/b.toml")), &[]);
    assert!(missing.unwrap_err().to_string().contains("/nonexistent/b.toml"));
}

#[test]
fn values_must_fit_together() {
    for (file, key) in [
        ("limits.queues_max = 2", "topic.queues"),
        ("connection.output_bytes_max = 0", "connection.output_bytes_max"),
        ("limits.message_bytes_max = \"9 MiB\"", "limits.batch_bytes_max"),
        ("limits.batch_bytes_max = \"16 MiB\"", "limits.frame_bytes_max"),
        ("connection.inflight_bytes_max = \"1 MiB\"", "connection.inflight_bytes_max"),
        ("log.segment_bytes = \"12 MiB\"", "log.segment_bytes"),
        ("log.first_segment_bytes = \"1 KiB\"", "log.first_segment_bytes"),
        ("topic.queues = 5000", "topic.queues"),
        ("fetch.wait_max = \"3m\"", "fetch.wait_max"),
        ("listen.connections_max = 0", "listen.connections_max"),
    ] {
        match load(file, &[], &[]) {
            Err(ConfigError::Value { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{file}: {other:?}"),
        }
    }
}

#[test]
fn the_reference_file_is_the_one_in_deploy_and_its_lines_are_the_defaults() {
    let reference = BROKER_SCHEMA.reference_toml();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/broker.toml");
    if std::env::var_os("GRUS_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let in_deploy = std::fs::read_to_string(&path).unwrap();
    assert!(
        in_deploy == reference,
        "deploy/broker.toml is not what the code says; run this test with GRUS_WRITE_REFERENCE=1"
    );

    let uncommented = uncommented(&reference);
    let loaded = load(&uncommented, &[], &[]).unwrap();
    assert_eq!(loaded.config, BrokerConfig::default());
    assert!(!BROKER_SCHEMA.print(&loaded).contains("# default"), "every key stands in the file");
}

#[test]
fn a_variable_that_is_no_text_is_refused_and_one_of_others_is_left_alone() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(vec![0xff]);
    let of = |name: &str| BROKER_SCHEMA.from_layers(None, [(OsString::from(name), odd())], &[]);
    assert!(of("LS_COLORS").is_ok());
    let message = of("GRUS__LISTEN__ADDRESS").unwrap_err().to_string();
    assert!(message.contains("`listen.address` (environment GRUS__LISTEN__ADDRESS)"), "{message}");
}

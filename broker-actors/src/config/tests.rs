//! Tests of the configuration.

use super::*;

fn load(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<LoadedConfig, ConfigError> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    BrokerConfig::from_layers(Some((Path::new("b.toml"), file)), own(variables), &own(flags))
}

#[test]
fn nothing_given_means_the_documented_defaults() {
    let config = BrokerConfig::from_layers(None, [], &[]).unwrap().config;
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

    let printed = loaded.print_config();
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
    let again = load(&loaded.print_config(), &[], &[]).unwrap();
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
    assert!(matches!(load("", &[], &[("x", "1")]), Err(ConfigError::UnknownKey { .. })));
}

#[test]
fn a_wrong_value_is_named_with_its_place() {
    let message = load("[topic]\nqueues = \"many\"\n", &[], &[]).unwrap_err().to_string();
    assert_eq!(
        message,
        "configuration key `topic.queues` (b.toml:2): `many` is not a number from 0 to 4294967295"
    );
    let message = load("[topic]\nqueues = 0\n", &[], &[]).unwrap_err().to_string();
    assert!(message.contains("`topic.queues` (b.toml:2)"), "{message}");
    assert!(matches!(load("[topic\n", &[], &[]), Err(ConfigError::File { .. })));
    let missing = BrokerConfig::load(Some(Path::new("/nonexistent/b.toml")), &[]);
    assert!(missing.unwrap_err().to_string().contains("/nonexistent/b.toml"));
}

#[test]
fn values_must_fit_together() {
    for (file, key) in [
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
    let reference = reference_toml();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/broker.toml");
    if std::env::var_os("GRUS_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let in_deploy = std::fs::read_to_string(&path).unwrap();
    assert!(
        in_deploy == reference,
        "deploy/broker.toml is not what the code says; run this test with GRUS_WRITE_REFERENCE=1"
    );

    let uncommented: String = reference
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let loaded = load(&uncommented, &[], &[]).unwrap();
    assert_eq!(loaded.config, BrokerConfig::default());
    assert!(!loaded.print_config().contains("# default"), "every key stands in the file");
}

//! What is taken of a command line and what is refused.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn options_of_the_whole_stand_anywhere() {
    let cli = parse("grus topic list --json --bootstrap a:1,b:2").unwrap();
    assert_eq!(cli.common.bootstrap, ["a:1", "b:2"]);
    assert!(cli.common.json);
    assert_eq!(cli.common.timeout(), Duration::from_secs(10));
}

#[test]
fn a_reader_begins_where_it_is_told() {
    let begins = |text: &str| match parse(&format!("grus consume t --from {text}")) {
        Ok(Cli { command: Command::Consume(args), .. }) => Ok(args.from.expect("given")),
        Ok(_) => unreachable!("consume parses as consume"),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(begins("first"), Ok(From::First));
    assert_eq!(begins("last"), Ok(From::Last));
    assert_eq!(begins("offset:17"), Ok(From::Offset(17)));
    assert_eq!(begins("time:1970-01-01T00:00:01.5Z"), Ok(From::Time(1500)));
    assert!(begins("offset:x").unwrap_err().contains("`x` is not an offset"));
    assert!(begins("time:noon").unwrap_err().contains("RFC3339"));
    assert!(begins("middle").unwrap_err().contains("expected first, last"));
}

#[test]
fn a_header_has_a_name_and_may_hold_equal_signs() {
    assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    assert_eq!(header("a="), Ok(("a".to_owned(), String::new())));
    assert!(header("=b").is_err());
    assert!(header("a").is_err());
}

#[test]
fn a_message_is_shown_by_one_thing() {
    let id = "018bcfe5-687b-7202-8202-020202020202";
    for right in [
        id,
        "--topic t --key k --max 3",
        "--topic t --queue 0 --offset 7",
        "--topic t --time 2026-11-21T19:40:00Z",
        "--topic t --queue 1 --time 2026-11-21T19:40:00Z --json",
    ] {
        assert!(parse(&format!("grus message show {right}")).is_ok(), "{right}");
    }
    for wrong in [
        "--topic t",
        "--key k",
        "--topic t --offset 7",
        "--topic t --queue 1",
        "--topic t --key k --queue 1",
        "--topic t --key k --queue 1 --offset 2",
        "018bcfe5",
        "018bcfe5-687b-7202-8202-020202020202 --topic t",
    ] {
        assert!(parse(&format!("grus message show {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn a_key_and_a_queue_exclude_each_other() {
    assert!(parse("grus produce t --key k --queue 1").is_err());
    assert!(parse("grus produce t --spread --queue 1").is_err());
    assert!(parse("grus topic create t --queues 0").is_err());
    assert!(parse("grus produce t --timeout 0s").is_err());
    assert!(parse("grus produce t --delay 1s --at 2026-11-21T19:40:00Z").is_err());
    assert!(parse("grus produce t --delay 10s --ttl 1h").is_ok());
    assert!(parse("grus delay list --queue 1").is_err());
    assert!(parse("grus delay list t --count").is_ok());
    assert!(parse("grus delay recall").is_err());
    assert!(parse("grus delay recall t/0/5.1 t/0/5.2").is_ok());
    assert!(parse("grus delay show t/0").is_err());
    assert!(parse("grus schedule create t a --every 1s --body x").is_ok());
    assert!(parse("grus schedule create t a --body x").is_err());
    assert!(parse("grus schedule create t a --every 1s --zone UTC --body x").is_err());
    assert!(parse("grus schedule create t a --cron @daily --missed all:7 --body x").is_ok());
    assert!(parse("grus schedule create t a --cron @daily --missed some --body x").is_err());
    assert!(parse("grus schedule pause t ../x").is_err());
    assert!(parse("grus bench produce t --rate 0").is_err());
    assert!(parse("grus consume t --group g --ack manual --tags a").is_ok());
    assert!(parse("grus consume t --tags a").is_err());
    assert!(parse("grus consume t --group g --queue 1").is_err());
    assert!(parse("grus consume t --group g --model broadcast --progress f --member m").is_ok());
    assert!(parse("grus consume t --group g --progress f").is_err());
    assert!(parse("grus group reset g --topic t --to first").is_ok());
    assert!(parse("grus dlq purge g").is_err());
    assert!(parse("grus dlq redrive g 0/1 2/3").is_ok());
}

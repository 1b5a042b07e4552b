//! The first words of a connection, and who gets none.

use grus_protocol::message::{Hello, HelloReply, Ping};
use grus_protocol::{ErrorCode, Opcode};

use crate::support::{Door, DoorConfig};

#[actix::test]
async fn hello_tells_the_limits_and_pings_are_answered_by_correlation() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.stranger().await;
    client.ask(5, &Hello::new("me", "test")).await;
    let frame = client.frame().await.expect("an answer");
    assert_eq!((frame.head.opcode, frame.head.correlation), (Opcode::Hello, 5));
    let hello: HelloReply = frame.reply().unwrap();
    assert_eq!(hello.broker_id.0, 9);
    assert_eq!(hello.message_bytes_max, 4 << 20);
    for correlation in [u64::MAX, 0, 77] {
        client.ask(correlation, &Ping {}).await;
    }
    for correlation in [u64::MAX, 0, 77] {
        assert_eq!(client.frame().await.unwrap().head.correlation, correlation);
    }
}

#[actix::test]
async fn a_request_before_hello_is_told_so_and_closed() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.stranger().await;
    client.ask(1, &Ping {}).await;
    assert_eq!(client.error().await.code, ErrorCode::HelloRequired);
    assert!(client.frame().await.is_none());
}

#[actix::test]
async fn a_hello_of_unknown_versions_is_told_so_and_another_may_follow() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.stranger().await;
    let hello = Hello { version_min: 40, version_max: 41, ..Hello::new("me", "test") };
    client.ask(1, &hello).await;
    assert_eq!(client.error().await.code, ErrorCode::UnsupportedVersion);
    let hello = Hello { client_id: "x".repeat(10_000), ..Hello::new("me", "test") };
    client.ask(2, &hello).await;
    assert_eq!(client.error().await.code, ErrorCode::InvalidRequest);
    client.ask(3, &Hello::new("me", "test")).await;
    assert!(!client.frame().await.unwrap().head.is_error());
}

#[actix::test]
async fn http_and_tls_on_this_port_get_one_clear_answer() {
    let door = Door::open(DoorConfig::default()).await;
    let mut browser = door.stranger().await;
    browser.send(b"GET / HTTP/1.1\r\nHost: localhost:6086\r\n\r\n").await;
    let answer = String::from_utf8(browser.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("127.0.0.1:7654"), "{answer}");

    let mut tls = door.stranger().await;
    tls.send(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3]).await;
    assert_eq!(tls.rest().await[..2], [0x15, 3], "a TLS alert");
}

#[actix::test]
async fn one_socket_too_many_is_told_so() {
    let door = Door::open(DoorConfig { connections_max: 1, ..DoorConfig::default() }).await;
    let mut first = door.client().await;
    let mut second = door.stranger().await;
    assert_eq!(second.error().await.code, ErrorCode::TooManyConnections);
    assert!(second.frame().await.is_none());
    first.ask(2, &Ping {}).await;
    assert!(first.frame().await.is_some());
}

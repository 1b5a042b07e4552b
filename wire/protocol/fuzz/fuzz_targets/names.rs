//! Names of topics and producers.

#![no_main]

use grus_protocol::{ProducerName, TopicName};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let user = TopicName::try_from(text);
    if let Ok(name) = TopicName::parse_any(text) {
        assert_eq!(name.as_str(), text);
        assert_eq!(user.is_ok(), !name.is_system());
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
        assert!(!text.starts_with('.') && text.len() <= 222);
    } else {
        assert!(user.is_err());
    }
    assert_eq!(ProducerName::try_from(text).is_ok(), user.is_ok());
});

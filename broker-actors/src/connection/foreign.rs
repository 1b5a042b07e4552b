//! Recognises peers that speak something else, by their first bytes. Pure.

/// A protocol that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// HTTP: a browser or a scrape on the wrong port.
    Http,
    /// TLS, which this port does not speak.
    Tls,
}

const HTTP_BEGINNINGS: [&[u8; 4]; 9] =
    [b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI "];

/// A fatal TLS alert, "protocol version" (RFC 8446, section 6): what a TLS client can print.
const TLS_ALERT: [u8; 7] = [0x15, 3, 1, 0, 2, 2, 70];

impl Foreign {
    /// Judges the first bytes of a connection. `None` when they may be a frame of ours, or are
    /// too few to tell. None of these beginnings can be a frame: as a length they exceed 16 MiB.
    #[must_use]
    pub fn recognise(bytes: &[u8]) -> Option<Self> {
        let first = bytes.first_chunk::<4>()?;
        if HTTP_BEGINNINGS.contains(&first) {
            return Some(Self::Http);
        }
        let [kind, major, minor, _] = *first;
        (kind == 0x16 && major == 3 && minor <= 4 && bytes.get(5) == Some(&1)).then_some(Self::Tls)
    }

    /// What to answer before closing, in the peer's own protocol.
    #[must_use]
    pub fn answer(self, http_address: &str) -> Vec<u8> {
        match self {
            Self::Tls => TLS_ALERT.to_vec(),
            Self::Http => {
                let text = format!(
                    "this port speaks the Grus protocol; HTTP is served at {http_address}\n"
                );
                format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len()
                )
                .into_bytes()
            }
        }
    }

    /// Its name, for the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
        }
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::limits::FRAME_BYTES_MAX;

    use super::*;

    #[test]
    fn http_and_tls_are_recognised_and_frames_are_not() {
        assert_eq!(Foreign::recognise(b"GET / HTTP/1.1\r\n"), Some(Foreign::Http));
        assert_eq!(Foreign::recognise(b"PRI * HTTP/2.0\r\n"), Some(Foreign::Http));
        let client_hello = [0x16, 3, 1, 2, 0, 1, 0, 1];
        assert_eq!(Foreign::recognise(&client_hello), Some(Foreign::Tls));
        assert_eq!(Foreign::recognise(b"GE"), None);
        assert_eq!(Foreign::recognise(&[40, 0, 0, 0, 1, 1]), None);
    }

    #[test]
    fn no_http_beginning_is_the_length_of_a_frame() {
        for beginning in HTTP_BEGINNINGS {
            assert!(u32::from_le_bytes(*beginning) > FRAME_BYTES_MAX);
        }
    }

    #[test]
    fn http_is_told_where_http_is() {
        let answer = String::from_utf8(Foreign::Http.answer("127.0.0.1:7654")).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(body.contains("127.0.0.1:7654"));
    }
}

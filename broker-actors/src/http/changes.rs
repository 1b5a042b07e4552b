//! Who may change something by HTTP: not a page of somebody else's site, which a browser would let send
//! a plain POST to this address. Pure.
//!
//! A change needs a header that only this server's own page may set without being asked about
//! first, and where a browser says who sends it, that has to be this server's own page.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderName};

/// Says that a change is meant; its value is `yes`.
pub const MEANT: &str = "grus-change";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a change is refused.
pub type NotMeant = &'static str;

/// Whether a request may change something.
///
/// # Errors
/// Why not.
pub fn is_meant(request: &HttpRequest) -> Result<(), NotMeant> {
    let text = |name: &HeaderName| request.headers().get(name).map(|value| value.to_str());
    let meant = HeaderName::from_static(MEANT);
    if !matches!(text(&meant), Some(Ok("yes"))) {
        return Err("a change needs the header `Grus-Change: yes`");
    }
    if request.headers().get_all(header::ORIGIN).count() > 1 {
        return Err("a change has one origin");
    }
    match text(&header::ORIGIN) {
        None => {}
        Some(Ok(origin)) if is_own(origin, text(&header::HOST)) => {}
        Some(_) => return Err("a page of another origin changes nothing here"),
    }
    match text(&FETCH_SITE) {
        None | Some(Ok("same-origin" | "none")) => Ok(()),
        Some(_) => Err("a page of another origin changes nothing here"),
    }
}

/// Whether an origin is the server that the request names.
fn is_own<E>(origin: &str, host: Option<Result<&str, E>>) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let host = host.and_then(Result::ok);
    authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn judged(headers: &[(&'static str, &str)]) -> bool {
        let mut request = TestRequest::post().insert_header(("host", "localhost:7654"));
        for (name, value) in headers {
            request = request.append_header((*name, *value));
        }
        is_meant(&request.to_http_request()).is_ok()
    }

    #[test]
    fn a_change_is_meant_by_tools_and_by_the_own_page_and_by_nobody_else() {
        let meant = ("grus-change", "yes");
        assert!(judged(&[meant]), "a tool");
        let own = ("origin", "http://localhost:7654");
        assert!(judged(&[meant, own, ("sec-fetch-site", "same-origin")]));
        assert!(!judged(&[own]), "a form of our own origin would need the header, too");
        for other in [
            "http://localhost:8080",
            "http://localhost",
            "null",
            "http://evil.example",
            "http://localhost:7654.evil.example",
            "localhost:7654",
            "\u{e9}",
        ] {
            assert!(!judged(&[meant, ("origin", other)]), "{other}");
        }
        assert!(!judged(&[meant, own, ("origin", "http://evil.example")]));
        assert!(!judged(&[meant, ("sec-fetch-site", "cross-site")]));
        assert!(!judged(&[meant, ("sec-fetch-site", "same-site")]));
        assert!(!judged(&[("grus-change", "1")]) && !judged(&[]));
    }
}

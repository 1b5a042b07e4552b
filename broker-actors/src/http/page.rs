//! The page, embedded in the program: it needs nothing from elsewhere, and reads the documented
//! API like anybody else. No script or style stands in the HTML, so that the policy can be strict
//! and nothing in a message can become either.

use actix_web::http::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use actix_web::{HttpResponse, web};

/// What a browser may do with what is served here.
pub const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Path, kind and content of each file.
const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/page/parts.js", JAVASCRIPT, include_str!("page/parts.js")),
    ("/page/views.js", JAVASCRIPT, include_str!("page/views.js")),
    ("/page/messages.js", JAVASCRIPT, include_str!("page/messages.js")),
    ("/page/scheduled.js", JAVASCRIPT, include_str!("page/scheduled.js")),
    ("/page/groups.js", JAVASCRIPT, include_str!("page/groups.js")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Serves every file of the page.
pub fn routes(config: &mut web::ServiceConfig) {
    for (path, kind, content) in FILES {
        let serve = move || async move {
            HttpResponse::Ok()
                .content_type(kind)
                .insert_header((CONTENT_SECURITY_POLICY, POLICY))
                .body(content)
        };
        config.route(path, web::get().to(serve));
    }
}

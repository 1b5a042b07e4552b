//! HTTP of a daemon, on a worker thread of its own: what broker and registry share. Every request
//! must name this server in its `Host` header ([`host`]). docs/HTTP.md describes the rules.

pub mod actors;
pub mod host;
pub mod metrics;
pub(crate) mod own;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::uri::Authority;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer as Server, web};
use host::AllowedHosts;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::configuration::Setting;

/// Connections open at once; others wait.
const CONNECTIONS_MAX: usize = 256;
/// Of the files that the process may open, connections of HTTP take this part at most: without any left
/// the log cannot open its next segment, and the process ends.
const FILES_PART: u64 = 4;
/// Longest time for the head of a request to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be idle between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest time for a connection to close.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Seconds a stop waits for requests under way.
const STOP_SECONDS: u64 = 1;

/// An error, as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorBody {
    /// What is wrong, in one line.
    pub error: String,
    /// The protocol's name for it, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

/// One setting of `GET /config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingItem {
    /// `section.key`.
    pub key: &'static str,
    /// The value, as TOML.
    pub value: String,
    /// Where it came from.
    pub source: String,
    /// What is configured by it.
    pub about: &'static str,
}

impl From<&Setting> for SettingItem {
    fn from(setting: &Setting) -> Self {
        Self {
            key: setting.key,
            value: setting.value.clone(),
            source: setting.source.to_string(),
            about: setting.about,
        }
    }
}

/// An answer that says what is wrong.
pub fn error(status: StatusCode, text: impl Into<String>) -> HttpResponse {
    HttpResponse::build(status).json(ErrorBody { error: text.into(), code: None })
}

/// A running server.
#[derive(Debug)]
pub struct HttpServer {
    handle: ServerHandle,
    address: SocketAddr,
}

/// Who may ask, and what can be read.
#[derive(Debug, Clone)]
struct Door {
    hosts: AllowedHosts,
    /// Paths that are read with GET.
    paths: &'static [&'static str],
}

impl HttpServer {
    /// Serves what `routes` adds, on a bound socket; `paths` are those of it that are read with
    /// GET. Needs a running actix `System`.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn start(
        socket: TcpListener,
        hosts: AllowedHosts,
        paths: &'static [&'static str],
        routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let door = Door { hosts, paths };
        let server = Server::new(move || {
            App::new()
                .app_data(web::Data::new(door.clone()))
                .app_data(web::QueryConfig::default().error_handler(|problem, _| {
                    let answer = error(StatusCode::BAD_REQUEST, problem.to_string());
                    InternalError::from_response(problem, answer).into()
                }))
                .wrap(from_fn(check_host))
                .configure(routes.clone())
                .default_service(web::to(nothing_here))
        })
        .workers(1)
        .worker_max_blocking_threads(1)
        .backlog(64)
        .max_connections(connections_max())
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .shutdown_timeout(STOP_SECONDS)
        .disable_signals()
        .listen(socket)?
        .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Ok(Self { handle, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it; requests under way are answered.
    pub async fn stop(self) {
        self.handle.stop(true).await;
    }
}

/// Whether every name under which the request is meant for somebody is one of ours: a proxy may
/// look at the target where we look at `Host`, or at the second of two.
fn names_us(request: &ServiceRequest, hosts: &AllowedHosts) -> bool {
    let allows = |value: &HeaderValue| value.to_str().is_ok_and(|name| hosts.allows(name));
    let mut headers = request.headers().get_all(header::HOST).peekable();
    let target = request.uri().authority().map(Authority::as_str);
    let is_named = headers.peek().is_some() || target.is_some();
    is_named && headers.all(allows) && target.is_none_or(|name| hosts.allows(name))
}

/// Refuses what was meant for another name, and says what every answer says.
async fn check_host(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let door = request.app_data::<web::Data<Door>>().cloned();
    let ours = door.is_some_and(|door| names_us(&request, &door.hosts));
    let mut response = if ours {
        next.call(request).await?.map_into_boxed_body()
    } else {
        let text = "this name is not served here; see http.hosts in the configuration";
        request.into_response(error(StatusCode::FORBIDDEN, text))
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    }
    Ok(response)
}

async fn nothing_here(door: web::Data<Door>, request: HttpRequest) -> HttpResponse {
    if door.paths.contains(&request.path()) {
        let text = format!("{} is read with GET", request.path());
        return error(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    error(StatusCode::NOT_FOUND, format!("there is no {}", request.path()))
}

/// How many connections may be open at once, given the limit of open files.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    CONNECTIONS_MAX.min(usize::try_from(files / FILES_PART).unwrap_or(CONNECTIONS_MAX).max(1))
}

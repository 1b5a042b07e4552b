//! A real browser without a window, driven by the WebDriver protocol (<https://www.w3.org/TR/webdriver2/>).
//!
//! Debian's packages are `chromium` and `chromium-driver`. A wait is a script in the page that
//! looks again after each change of the document, so nothing here sleeps.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;

/// Leaves the tests with a browser out when it is `1`; docs/TESTING.md.
const WITHOUT: &str = "GRUS_TEST_WITHOUT_CHROMIUM";
/// Longest that a page may take to show what is waited for, on a machine that is busy.
const WAIT_LIMIT: Duration = Duration::from_mins(2);
/// Longest that the driver may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_mins(3);
/// What a browser is started with, also by root in a container.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// See the module documentation. Dropped, browser and driver end.
pub struct Browser {
    driver: Process,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with a new, empty profile. None if the caller's environment says that
    /// there is none.
    ///
    /// # Panics
    /// When there is no driver, or no browser comes up.
    pub fn start() -> Option<Self> {
        if std::env::var_os(WITHOUT).is_some_and(|value| value == "1") {
            println!("left out: {WITHOUT}=1");
            return None;
        }
        let mut driver = Command::new("chromedriver");
        driver.args(["--port=0", "--log-level=SEVERE"]);
        let is_there = Command::new("chromedriver").arg("--version").output().is_ok();
        assert!(
            is_there,
            "the page is tested in a browser: apt-get install chromium chromium-driver, or set \
             {WITHOUT}=1 to leave these tests out"
        );
        let mut driver = Process::start("chromedriver", driver);
        let line =
            driver.wait_for("port", WAIT_LIMIT, |line| line.contains("successfully on port"));
        let port = line.rsplit(' ').next().and_then(|word| word.trim_end_matches('.').parse().ok());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("a port in the line")));
        let profile = tempfile::Builder::new().prefix("grus-browser-").tempdir().expect("a folder");
        let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": whole_ms(WAIT_LIMIT), "pageLoad": whole_ms(WAIT_LIMIT) },
        }}});
        let opened = command(address, "POST", "/session", &wanted).expect("a browser");
        let session = opened["sessionId"].as_str().expect("a session").to_owned();
        Some(Self { driver, address, session, _profile: profile })
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{path}", self.session);
        command(self.address, method, &path, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.driver.log()))
    }

    /// Opens an address and waits until it is loaded.
    pub fn open(&self, address: &str) {
        self.ask("POST", "url", &json!({ "url": address }));
    }

    /// Runs a script in the page; what it returns.
    pub fn run(&self, script: &str, arguments: &Value) -> Value {
        self.ask("POST", "execute/sync", &json!({ "script": script, "args": [arguments] }))
    }

    /// Waits until an expression over `given` is neither false nor null, and answers it. It is looked at
    /// after each change of the document.
    ///
    /// # Panics
    /// When that takes too long: with what the page shows then.
    pub fn wait_for(&self, what: &str, expression: &str, given: &Value) -> Value {
        let script = format!(
            "const [given, done] = arguments;
             const look = () => {{ try {{ return {expression}; }} catch {{ return null; }} }};
             const watcher = new MutationObserver(() => check());
             const check = () => {{
               const found = look();
               if (found === null || found === undefined || found === false) return;
               watcher.disconnect();
               done(found);
             }};
             watcher.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
             check();"
        );
        let path = format!("/session/{}/execute/async", self.session);
        let body = json!({ "script": script, "args": [given] });
        command(self.address, "POST", &path, &body).unwrap_or_else(|error| {
            let shows = self.run("return document.body.innerText.slice(0, 3000)", &Value::Null);
            panic!("no {what}: {error}\nthe page shows:\n{}", shows.as_str().unwrap_or_default())
        })
    }

    /// Makes the page so many pixels wide and high, light or dark.
    pub fn look(&self, width: u32, height: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    fn devtools(&self, name: &str, parameters: &Value) {
        self.ask("POST", "goog/cdp/execute", &json!({ "cmd": name, "params": parameters }));
    }

    /// Writes a picture of the page.
    pub fn picture(&self, file: &Path) {
        let picture = self.ask("GET", "screenshot", &Value::Null);
        let bytes = STANDARD.decode(picture.as_str().expect("base64")).expect("base64");
        std::fs::write(file, bytes).expect("a picture");
    }

    /// What the browser has complained about since the last call: errors of scripts, blocked
    /// content, requests that failed.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.ask("POST", "se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let text = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        entries.iter().map(text).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let path = format!("/session/{}", self.session);
        if let Err(error) = command(self.address, "DELETE", &path, &Value::Null) {
            println!("the browser may still run: {error}");
        }
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("a short time")
}

/// Sends a command to the driver; its value, or what it says is wrong.
fn command(address: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(failed)?;
    let body = if method == "POST" { body.to_string() } else { String::new() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).map_err(failed)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| line.clone())?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer).map_err(failed)?;
    let mut answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    let value = answer["value"].take();
    match value["error"].as_str() {
        Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default())),
        None => Ok(value),
    }
}

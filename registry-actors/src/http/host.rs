//! Whether a request was meant for us: its `Host` names us. A page of a stranger's site whose name
//! was made to resolve to this address (DNS rebinding) says that site's name, and is refused. Pure.

/// The names under which HTTP is served.
#[derive(Debug, Clone)]
pub struct AllowedHosts {
    names: Vec<String>,
}

impl AllowedHosts {
    /// The loopback names, the host of the listening `address`, and those `configured`.
    #[must_use]
    pub fn new(address: &str, configured: &[String]) -> Self {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let others = configured.iter().map(String::as_str).chain([address]);
        names.extend(others.filter_map(host_of));
        Self { names }
    }

    /// Whether a `Host` header is one of ours, with any port.
    #[must_use]
    pub fn allows(&self, header: &str) -> bool {
        host_of(header).is_some_and(|host| self.names.contains(&host))
    }
}

/// The host in `host`, `host:port`, `[v6]` or `[v6]:port`, in lower case without brackets.
fn host_of(text: &str) -> Option<String> {
    let text = text.trim();
    let host = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        if !after.is_empty() && !is_port(after.strip_prefix(':')?) {
            return None;
        }
        host
    } else if text.matches(':').count() > 1 {
        text // a bare IPv6 address, as configured
    } else {
        match text.split_once(':') {
            Some((host, port)) if is_port(port) => host,
            Some(_) => return None,
            None => text,
        }
    };
    (!host.is_empty()).then(|| host.trim_end_matches('.').to_ascii_lowercase())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_the_address_and_the_configured_names_are_ours_and_no_others() {
        let hosts = AllowedHosts::new("10.0.0.7:7654", &["Grus.Example".to_owned()]);
        for ours in [
            "localhost",
            "LOCALHOST:7654",
            "127.0.0.1:1",
            "[::1]:7654",
            "[::1]",
            "10.0.0.7:7654",
            "grus.example",
            "grus.example.:80",
        ] {
            assert!(hosts.allows(ours), "{ours}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:7654",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:7654.evil.example",
            "localhost@evil.example",
            "[::1]evil.example",
            "localhost:",
        ] {
            assert!(!hosts.allows(other), "{other}");
        }
    }
}

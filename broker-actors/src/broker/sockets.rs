//! The ports of a broker, and how clients are told of them.

use std::net::{SocketAddr, TcpListener};

use grus_protocol::ids::{BrokerAddress, BrokerId};

use super::{Addresses, StartError};
use crate::config::BrokerConfig;

/// Sockets bound before anything else is begun.
pub(super) struct Sockets {
    pub(super) listen: TcpListener,
    pub(super) http: Option<TcpListener>,
    pub(super) addresses: Addresses,
}

impl Sockets {
    pub(super) fn bind(config: &BrokerConfig) -> Result<Self, StartError> {
        let listen = bind("clients", &config.listen_address)?;
        let http = match config.http_address.as_str() {
            "off" | "" => None,
            address => Some(bind("HTTP", address)?),
        };
        let addresses = Addresses {
            listen: local("clients", &config.listen_address, &listen)?,
            http: match &http {
                Some(socket) => Some(local("HTTP", &config.http_address, socket)?),
                None => None,
            },
        };
        Ok(Self { listen, http, addresses })
    }
}

fn bind(what: &'static str, address: &str) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Port { what, address: address.to_owned(), source };
    let socket = TcpListener::bind(address).map_err(failed)?; // with SO_REUSEADDR, as std does
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

fn local(
    what: &'static str,
    address: &str,
    socket: &TcpListener,
) -> Result<SocketAddr, StartError> {
    let failed = |source| StartError::Port { what, address: address.to_owned(), source };
    socket.local_addr().map_err(failed)
}

/// How clients reach this broker: as configured, or where it listens.
pub(super) fn advertised(config: &BrokerConfig, id: BrokerId, listen: SocketAddr) -> BrokerAddress {
    let configured = config.advertised_address.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), port.parse().ok()?))
    });
    if configured.is_none() && listen.ip().is_unspecified() {
        tracing::warn!("listen.advertised_address is not set: clients elsewhere are misled");
    }
    let (host, port) = configured.unwrap_or_else(|| (listen.ip().to_string(), listen.port()));
    BrokerAddress { id, host, port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_the_configured_address_or_the_real_one() {
        let listen: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let mut config = BrokerConfig::default();
        let told = |config: &BrokerConfig| {
            let address = advertised(config, BrokerId(1), listen);
            (address.host, address.port)
        };
        assert_eq!(told(&config), ("127.0.0.1".into(), 4000));
        config.advertised_address = "mq.example:6086".into();
        assert_eq!(told(&config), ("mq.example".into(), 6086));
        config.advertised_address = "[fe80::1]:6086".into();
        assert_eq!(told(&config), ("fe80::1".into(), 6086));
    }
}

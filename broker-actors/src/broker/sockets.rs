//! The ports of a broker, and how clients are told of them.

use std::net::{SocketAddr, TcpListener};

use grus_protocol::ids::{BrokerAddress, BrokerId};
use grus_registry::ports::bind;

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
        let (listen, address) = bind("clients", &config.listen_address)?;
        let http = match config.http_address.as_str() {
            "off" | "" => None,
            address => Some(bind("HTTP", address)?),
        };
        let (http, http_address) = http.unzip();
        Ok(Self { listen, http, addresses: Addresses { listen: address, http: http_address } })
    }
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

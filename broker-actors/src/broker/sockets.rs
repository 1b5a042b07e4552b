//! The ports of a broker, bound before anything else is begun, so that a taken one is told at once.

use std::net::{SocketAddr, TcpListener};

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

//! The ports of a process, bound before anything else is begun.

use std::io;
use std::net::{SocketAddr, TcpListener};

use thiserror::Error;

/// A port cannot be had.
#[derive(Debug, Error)]
#[error("cannot listen on {address} for {what}: {source}")]
pub struct PortError {
    /// For whom, or what for.
    pub what: &'static str,
    /// The address configured.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

impl PortError {
    /// What the system said of this address.
    pub fn of(what: &'static str, address: &str) -> impl Fn(io::Error) -> Self {
        move |source| Self { what, address: address.to_owned(), source }
    }
}

/// Binds a socket that does not block, with SO_REUSEADDR as std does; also its real address.
///
/// # Errors
/// [`PortError`].
pub fn bind(what: &'static str, address: &str) -> Result<(TcpListener, SocketAddr), PortError> {
    let failed = PortError::of(what, address);
    let socket = TcpListener::bind(address).map_err(&failed)?;
    socket.set_nonblocking(true).map_err(&failed)?;
    let bound = socket.local_addr().map_err(&failed)?;
    Ok((socket, bound))
}

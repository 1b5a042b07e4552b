//! Free ports that stay free.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

use crate::random::Random;

/// A port that is the caller's until this is dropped: nobody is given it who asks for a free one, and
/// the caller's processes may listen there, one after the other.
#[derive(Debug)]
pub struct Port {
    /// On the loopback address.
    pub address: SocketAddr,
    /// Bound to it, and never listening.
    _kept: TcpSocket,
}

/// A free port of the loopback address, from below the range that the kernel gives to clients: a broker
/// that is killed must find it free again, and a client that tries to reconnect meanwhile must not be
/// given it as its own end (TCP would then connect it to itself).
///
/// # Panics
/// When there is none.
pub fn free(random: &mut Random) -> Port {
    for _ in 0..1_000 {
        let port = 10_000 + random.below(20_000);
        let address =
            SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).expect("below 30,000")));
        if let Ok(kept) = keep(address) {
            return Port { address, _kept: kept };
        }
    }
    panic!("no free port in a thousand tries");
}

/// Takes a port that nobody has, and then lets those listen there that say they may share it, as
/// listeners do for the sake of a restart (SO_REUSEADDR, socket(7)).
fn keep(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address)?;
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

#[test]
fn a_port_is_given_once_and_listened_on_as_often_as_one_likes() {
    let port = free(&mut Random::seeded("ports"));
    assert!(keep(port.address).is_err(), "it is taken");
    for _ in 0..3 {
        let listener = std::net::TcpListener::bind(port.address).expect("a place to listen");
        let peer = std::net::TcpStream::connect(port.address).expect("somebody listens");
        drop((listener.accept().expect("it came"), peer));
    }
    let refused = std::net::TcpStream::connect(port.address).expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

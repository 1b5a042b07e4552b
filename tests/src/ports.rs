//! Free ports that stay free.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::random::Random;

/// A free port of the loopback address, from below the range that the kernel gives to clients: a broker
/// that is killed must find it free again, and a client that tries to reconnect meanwhile must not be
/// given it as its own end (TCP would then connect it to itself).
pub fn free(random: &mut Random) -> SocketAddr {
    for _ in 0..1_000 {
        let port = 10_000 + random.below(20_000);
        let address =
            SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).expect("below 30,000")));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port in a thousand tries");
}

//! Which server of a service: its address and port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::model::{Server, Service};

/// A server within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerRef {
    /// Real server's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl ServerRef {
    /// The key of `server`.
    pub const fn of(server: &Server) -> Self {
        Self { address: server.address, port: server.port }
    }

    /// Whether this names `server`.
    pub fn matches(self, server: &Server) -> bool {
        self == Self::of(server)
    }

    /// Index in `service.servers` of the server that this names.
    pub fn find(self, service: &Service) -> Option<usize> {
        service.servers.iter().position(|server| self.matches(server))
    }
}

impl From<SocketAddr> for ServerRef {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip(), port: address.port() }
    }
}

/// `192.168.150.12:80` or `[fd00::12]:53`
impl fmt::Display for ServerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

//! How an operator names a service: by its name, or as `VIP:PORT/PROTOCOL`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::model::{Model, Protocol, Service};
use crate::text::{ValueError, show};

/// A service of a Model, by name or by key. A name holds no `:` and no `/`, so the two never look alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceRef {
    /// By name.
    Name(String),
    /// By what clients see.
    Key {
        /// Virtual address.
        vip: IpAddr,
        /// TCP or UDP port.
        port: u16,
        /// L4 protocol.
        protocol: Protocol,
    },
}

impl ServiceRef {
    /// The key of `service`.
    pub fn key_of(service: &Service) -> Self {
        Self::Key { vip: service.vip, port: service.port, protocol: service.protocol }
    }

    /// Whether this names `service`.
    pub fn matches(&self, service: &Service) -> bool {
        match self {
            Self::Name(name) => *name == service.name,
            Self::Key { .. } => *self == Self::key_of(service),
        }
    }

    /// Index in `model.services` of the service that this names.
    pub fn find(&self, model: &Model) -> Option<usize> {
        model.services.iter().position(|service| self.matches(service))
    }
}

/// `web`, `192.168.150.100:80/tcp` or `[fd00::100]:53/udp`
impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Key { vip, port, protocol } => write!(f, "{}/{protocol}", SocketAddr::new(*vip, *port)),
        }
    }
}

/// Reads what `Display` writes. What holds a `:` or a `/` is a key.
impl FromStr for ServiceRef {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if !text.contains([':', '/']) {
            return match text {
                "" => Err(ValueError("the name of the service is empty".to_owned())),
                name => Ok(Self::Name(name.to_owned())),
            };
        }
        let wrong = || {
            ValueError(format!(
                "{} is not a service: write its name, or VIP:PORT/PROTOCOL such as 192.168.150.100:80/tcp or \
                 [fd00::100]:53/udp",
                show(text)
            ))
        };
        // A scope (`fe80::1%2`) would be lost: the key has none.
        let (address, protocol) = text.split_once('/').filter(|(a, _)| !a.contains('%')).ok_or_else(wrong)?;
        let address: SocketAddr = address.parse().map_err(|_| wrong())?;
        Ok(Self::Key { vip: address.ip(), port: address.port(), protocol: protocol.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read_back() {
        for text in ["web", "web-1.example_a", "192.168.150.100:80/tcp", "[fd00::100]:53/udp"] {
            assert_eq!(text.parse::<ServiceRef>().map(|r| r.to_string()), Ok(text.to_owned()));
        }
        assert!(matches!("web".parse(), Ok(ServiceRef::Name(_))));
        assert!(matches!(
            "10.0.0.1:80/udp".parse(),
            Ok(ServiceRef::Key { protocol: Protocol::Udp, port: 80, .. })
        ));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in
            ["10.0.0.1:80", "10.0.0.1/tcp", "fd00::1:80/tcp", "[fd00::1%1]:80/tcp", "web:80/tcp", ":/"]
        {
            let want = format!(
                "\"{text}\" is not a service: write its name, or VIP:PORT/PROTOCOL such as 192.168.150.100:80/tcp or \
                 [fd00::100]:53/udp"
            );
            assert_eq!(text.parse::<ServiceRef>().map_err(|e| e.to_string()), Err(want));
        }
        let err = |text: &str| text.parse::<ServiceRef>().map_err(|e| e.to_string());
        assert_eq!(err("10.0.0.1:80/sctp"), Err("\"sctp\" is not a protocol (known: tcp, udp)".to_owned()));
        assert_eq!(err(""), Err("the name of the service is empty".to_owned()));
    }
}

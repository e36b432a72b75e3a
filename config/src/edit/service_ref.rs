//! How an operator names a service: by its name, or by what clients address.

use std::fmt;
use std::str::FromStr;

use crate::address::ServiceAddress;
use crate::model::{Model, Service};
use crate::text::ValueError;

/// A service of a Model, by name or by address. A name holds no `:` and no `/`, so the two never look alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceRef {
    /// By name.
    Name(String),
    /// By what clients address.
    Address(ServiceAddress),
}

impl ServiceRef {
    /// The address of `service`.
    pub const fn key_of(service: &Service) -> Self {
        Self::Address(service.address)
    }

    /// Whether this names `service`.
    pub fn matches(&self, service: &Service) -> bool {
        match self {
            Self::Name(name) => *name == service.name,
            Self::Address(address) => *address == service.address,
        }
    }

    /// Index in `model.services` of the service that this names.
    pub fn find(&self, model: &Model) -> Option<usize> {
        model.services.iter().position(|service| self.matches(service))
    }
}

/// `web`, `192.168.150.100:80/tcp`, `[fd00::100]:53/udp`, `mark:7` ... (see [`ServiceAddress`])
impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Reads what `Display` writes. What holds a `:` or a `/` is an address.
impl FromStr for ServiceRef {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "" => Err(ValueError("the name of the service is empty".to_owned())),
            name if !name.contains([':', '/']) => Ok(Self::Name(name.to_owned())),
            address => address.parse().map(Self::Address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn both_forms_read_back() {
        for text in [
            "web",
            "web-1.example_a",
            "192.168.150.100:80/tcp",
            "[fd00::100]:53/udp",
            "10.0.0.1:36412/sctp",
            "10.0.0.0/28:1-2/tcp",
            "mark:7",
        ] {
            assert_eq!(text.parse::<ServiceRef>().map(|r| r.to_string()), Ok(text.to_owned()));
        }
        assert!(matches!("web".parse(), Ok(ServiceRef::Name(_))));
        assert!(matches!(
            "10.0.0.1:80/udp".parse(),
            Ok(ServiceRef::Address(ServiceAddress::Vip { protocol: Protocol::Udp, port: 80, .. }))
        ));
    }

    #[test]
    fn what_is_neither_is_refused() {
        let err = |text: &str| text.parse::<ServiceRef>().map_err(|e| e.to_string());
        assert_eq!(
            err("10.0.0.1:80/dccp"),
            Err("\"dccp\" is not a protocol (known: tcp, udp, sctp)".to_owned())
        );
        assert!(err("web:80/tcp").is_err_and(|e| e.starts_with("\"web:80/tcp\" is no address of a service")));
        assert_eq!(err(""), Err("the name of the service is empty".to_owned()));
    }
}

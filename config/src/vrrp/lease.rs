//! `[lease]`: who may have VIPs, agreed on in etcd.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::text::{ValueError, show};

/// A client's address of an etcd member: `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError(format!("{} is not http://HOST:PORT or https://HOST:PORT", show(text)));
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(wrong()),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = match inner {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.len() <= 253
                    && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        if !good {
            return Err(wrong());
        }
        Ok(Self { tls, host: inner.unwrap_or(host).to_owned(), port })
    }
}

/// What a master does whose lease cannot be renewed because etcd does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAway {
    /// It gives its VIPs up before the lease ends.
    #[default]
    Release,
    /// It keeps them while a BFD session of `takeover_bfd` is up: then the neighbour hears that it is master.
    Keep,
}

impl WhenAway {
    /// As in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Keep => "keep",
        }
    }
}

impl FromStr for WhenAway {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "release" => Ok(Self::Release),
            "keep" => Ok(Self::Keep),
            _ => Err(ValueError(format!("{} is not one of release, keep", show(text)))),
        }
    }
}

/// Leases in etcd, one for each virtual router or group of them: only who holds one has the VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Members of one etcd cluster; the first that answers is asked.
    pub endpoints: Vec<Endpoint>,
    /// What keys begin with; behind it is `instance/NAME` or `group/NAME`.
    pub prefix: String,
    /// How long a lease lasts that is not renewed, whole seconds.
    pub ttl: Duration,
    /// How long before its end a director takes it for over.
    pub margin: Duration,
    /// Longest wait for an answer of one endpoint.
    pub timeout: Duration,
    /// What follows when etcd does not answer.
    pub when_away: WhenAway,
    /// User of etcd, with `password`.
    pub user: Option<String>,
    /// Password of the user.
    pub password: Option<String>,
    /// Certificates of those who sign etcd's; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The director's own certificate, with `key`.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "/sluice/vip/".to_owned(),
            ttl: Duration::from_secs(3),
            margin: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            when_away: WhenAway::Release,
            user: None,
            password: None,
            ca: None,
            certificate: None,
            key: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for text in ["http://10.0.0.1:2379", "https://etcd-1.example.org:2379", "http://[fd00::1]:2379"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("http://a:1/".parse::<Endpoint>().unwrap().to_string(), "http://a:1");
        for text in [
            "10.0.0.1:2379",
            "http://10.0.0.1",
            "http://:1",
            "http://a:0",
            "http://a:65536",
            "http://a/b:1",
            "http://[a]:1",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.ends_with("is not http://HOST:PORT or https://HOST:PORT"), "{error}");
        }
    }
}

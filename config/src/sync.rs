//! `[[sync]]`: another director that is told of connections, and tells of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::Value;

use crate::duration;
use crate::vrrp::HmacKey;

/// Another director that connections are shared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSync {
    /// Unique name.
    pub name: String,
    /// Where this director hears it: an address of the kernel's, and a UDP port.
    pub listen: SocketAddr,
    /// Where it hears this director.
    pub peer: SocketAddr,
    /// What both know, as typed: text, or `hex:` and digits.
    pub key: String,
    /// Connections are told of before they are established, too.
    pub handshakes: bool,
    /// How often a connection that lives on is told again.
    pub refresh: Duration,
    /// How long a virtual router waits with taking over from one of lower priority for the other's connections.
    pub hold: Duration,
}

impl PeerSync {
    /// The key itself; `None`: `hex:` is not followed by whole bytes in hexadecimal digits.
    pub fn secret(&self) -> Option<Vec<u8>> {
        HmacKey { id: 0, key: self.key.clone() }.bytes()
    }

    /// Its keys and values.
    pub(crate) fn entries(&self) -> Vec<(&'static str, String)> {
        let text = |text: String| Value::String(text).to_string();
        vec![
            ("name", text(self.name.clone())),
            ("listen", text(self.listen.to_string())),
            ("peer", text(self.peer.to_string())),
            ("key", text(self.key.clone())),
            ("handshakes", self.handshakes.to_string()),
            ("refresh", text(duration::format(self.refresh))),
            ("hold", text(duration::format(self.hold))),
        ]
    }
}

impl Default for PeerSync {
    fn default() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self {
            name: String::new(),
            listen: nowhere,
            peer: nowhere,
            key: String::new(),
            handshakes: false,
            refresh: Duration::from_secs(60),
            hold: Duration::from_secs(10),
        }
    }
}

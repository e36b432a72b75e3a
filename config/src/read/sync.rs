//! `[[sync]]`.

use std::net::SocketAddr;

use toml::de::{DeTable, DeValue};

use super::{Reader, value};
use crate::sync::PeerSync;
use crate::text::show;

pub(super) const SYNC: [&str; 7] = ["name", "listen", "peer", "key", "handshakes", "refresh", "hold"];

/// An address with a port.
fn socket(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = value::text(value)?;
    text.parse().map_err(|_| {
        format!("{} is not an address with a port, as in 192.168.150.10:8849 or [fd00::10]:8849", show(&text))
    })
}

/// What could not be read holds its default, and its fault is reported.
pub(super) fn peers(r: &mut Reader<'_>, t: &DeTable<'_>) -> Vec<PeerSync> {
    let peer = |r: &mut Reader<'_>, t: &DeTable<'_>| {
        let d = PeerSync::default();
        PeerSync {
            name: r.required(t, "name", value::text).unwrap_or_default(),
            listen: r.required(t, "listen", socket).unwrap_or(d.listen),
            peer: r.required(t, "peer", socket).unwrap_or(d.peer),
            key: r.required(t, "key", value::text).unwrap_or_default(),
            handshakes: r.field(t, "handshakes", value::boolean).or_default(d.handshakes),
            refresh: r.field(t, "refresh", value::duration).or_default(d.refresh),
            hold: r.field(t, "hold", value::duration).or_default(d.hold),
        }
    };
    r.tables(t, "sync", &SYNC, peer).or_default(Vec::new())
}

//! How packets get to a server: direct routing, NAT or a tunnel; text forms and sizes.

use std::fmt;
use std::str::FromStr;

use crate::bounds::L4_PORT;
use crate::text::{ValueError, from_word, show};

/// How packets are sent on to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// Direct routing: only the MAC addresses (and the TTL) change. `ipvsadm -g`
    Dr,
    /// Destination address and port become the server's, and are changed back in replies. `ipvsadm -m`
    Nat,
    /// The packet travels inside another one. `ipvsadm -i`
    Tunnel(Tunnel),
    /// As NAT, and the source becomes a local address and port of the director ([`Service::local_addresses`]), so that
    /// replies come back whatever the server's routes. IPVS has no such thing.
    ///
    /// [`Service::local_addresses`]: crate::Service::local_addresses
    FullNat,
}

/// How a server behind full NAT, which sees a local address of the director, is told who its client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// Not at all.
    #[default]
    None,
    /// TCP option 254 (TOA) in the client's segments until the server has answered beyond its SYN.
    Toa,
    /// A PROXY protocol header, version 2, before the first byte of the client's data.
    ProxyV2,
}

crate::text::words!(ClientAddress, "a way to pass on a client's address", [
    "none" => Self::None => Self::None,
    "toa" => Self::Toa => Self::Toa,
    "proxy-v2" => Self::ProxyV2 => Self::ProxyV2,
]);

/// What a tunnelled packet is wrapped in. The outer header's family is the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// IP in IP (RFC 2003, RFC 2473).
    #[default]
    Ipip,
    /// Generic UDP encapsulation, variant 0 (draft-ietf-intarea-gue-09).
    Gue {
        /// UDP port of the server's tunnel, 1 to 65535.
        port: u16,
        /// What of the packet the outer checksum covers.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation (RFC 2784).
    Gre {
        /// Whether the GRE header carries a checksum.
        checksum: bool,
    },
}

/// Checksum of a GUE tunnel. Source: ipvsadm(8), `--tun-nocsum`, `--tun-csum`, `--tun-remcsum`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelChecksum {
    /// None: the outer UDP checksum is 0.
    #[default]
    None,
    /// The outer UDP checksum.
    Full,
    /// Remote checksum offload: the inner checksum is left to the tunnel's end.
    Remote,
}

/// Names of the forwardings, as in the configuration's `forwarding`.
pub const FORWARDINGS: [&str; 4] = ["dr", "nat", "tunnel", "fullnat"];

impl Forwarding {
    /// The forwarding's word alone, without the tunnel: `dr`, `nat`, `tunnel` or `fullnat`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Nat => "nat",
            Self::Tunnel(_) => "tunnel",
            Self::FullNat => "fullnat",
        }
    }

    /// Finds a forwarding by its bare name; a tunnel is IPIP unless told otherwise.
    ///
    /// Errors: no forwarding has this name.
    pub fn from_name(name: &str) -> Result<Self, ValueError> {
        let known = [
            ("dr", Self::Dr),
            ("nat", Self::Nat),
            ("tunnel", Self::Tunnel(Tunnel::Ipip)),
            ("fullnat", Self::FullNat),
        ];
        from_word(name, "a forwarding", &known)
    }

    /// The same forwarding through `tunnel`.
    ///
    /// Errors: it is no tunnel.
    pub fn with_tunnel(self, tunnel: Tunnel) -> Result<Self, ValueError> {
        match self {
            Self::Tunnel(_) => Ok(Self::Tunnel(tunnel)),
            Self::Dr | Self::Nat | Self::FullNat => Err(ValueError(format!(
                "a tunnel is of use with the forwarding tunnel only, not with {}",
                self.name()
            ))),
        }
    }

    /// The tunnel, if it is one.
    pub const fn tunnel(self) -> Option<Tunnel> {
        match self {
            Self::Tunnel(tunnel) => Some(tunnel),
            Self::Dr | Self::Nat | Self::FullNat => None,
        }
    }

    /// Whether the packet reaches the server with the port that the client used: all but NAT and full NAT.
    pub const fn keeps_port(self) -> bool {
        !matches!(self, Self::Nat | Self::FullNat)
    }
}

impl Tunnel {
    /// The tunnel's word: `ipip`, `gue` or `gre`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue { .. } => "gue",
            Self::Gre { .. } => "gre",
        }
    }

    /// The UDP port of a GUE tunnel.
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Gue { port, .. } => Some(port),
            Self::Ipip | Self::Gre { .. } => None,
        }
    }

    /// What is checksummed; `None` for IPIP, which has no such choice.
    pub const fn checksum(self) -> Option<TunnelChecksum> {
        match self {
            Self::Ipip => None,
            Self::Gue { checksum, .. } => Some(checksum),
            Self::Gre { checksum: true } => Some(TunnelChecksum::Full),
            Self::Gre { checksum: false } => Some(TunnelChecksum::None),
        }
    }

    /// Puts a tunnel together from its keys in the configuration.
    ///
    /// Errors: the key that is wrong and why: a port that is missing or of no use, a checksum that the tunnel has
    /// not.
    pub fn from_parts(
        name: &str,
        port: Option<u16>,
        checksum: Option<TunnelChecksum>,
    ) -> Result<Self, (&'static str, ValueError)> {
        let kinds = [("ipip", 0), ("gue", 1), ("gre", 2)];
        let kind = from_word(name, "a tunnel", &kinds).map_err(|e| ("type", e))?;
        let wrong = |key, message: String| Err((key, ValueError(message)));
        match (kind, port, checksum) {
            (0 | 2, Some(_), _) => {
                wrong("port", format!("is of use with the tunnel gue only, not with {name}"))
            }
            (0, None, Some(_)) => {
                wrong("checksum", "is of use with the tunnels gue and gre only, not with ipip".to_owned())
            }
            (0, None, None) => Ok(Self::Ipip),
            (1, Some(0), _) => wrong("port", L4_PORT.check(0).err().unwrap_or_default()),
            (1, Some(port), checksum) => Ok(Self::Gue { port, checksum: checksum.unwrap_or_default() }),
            (1, None, _) => wrong("port", "is missing: a gue tunnel has a UDP port".to_owned()),
            (_, None, Some(TunnelChecksum::Remote)) => {
                wrong("checksum", "\"remote\" is of use with the tunnel gue only, not with gre".to_owned())
            }
            (_, _, checksum) => Ok(Self::Gre { checksum: checksum == Some(TunnelChecksum::Full) }),
        }
    }

    /// Bytes that the tunnel adds to a packet; the path to the server must carry them beside the packet.
    ///
    /// Source: IPv4 header 20 (RFC 791), IPv6 header 40 (RFC 8200); GRE 4, with checksum 8 (RFC 2784 section 2); GUE:
    /// UDP 8, base header 4, and with remote checksum offload 8 more (private flags 4, two offsets 4:
    /// draft-ietf-intarea-gue-extensions-06 section 4.3, as Linux's `GUE_LEN_PRIV + GUE_PLEN_REMCSUM`).
    pub const fn overhead(self, outer_ipv6: bool) -> u16 {
        let ip = if outer_ipv6 { 40 } else { 20 };
        ip + match self {
            Self::Ipip => 0,
            Self::Gue { checksum: TunnelChecksum::Remote, .. } => 20,
            Self::Gue { .. } => 12,
            Self::Gre { checksum: true } => 8,
            Self::Gre { checksum: false } => 4,
        }
    }
}

impl TunnelChecksum {
    /// The word of this value in configuration files and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Full => "full",
            Self::Remote => "remote",
        }
    }
}

impl fmt::Display for TunnelChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TunnelChecksum {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let known = [("none", Self::None), ("full", Self::Full), ("remote", Self::Remote)];
        from_word(text, "a tunnel's checksum", &known)
    }
}

/// `ipip`, `gue:6080`, `gue:6080:full`, `gre` or `gre:full`
impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Some(port) = self.port() {
            write!(f, ":{port}")?;
        }
        match self.checksum() {
            None | Some(TunnelChecksum::None) => Ok(()),
            Some(checksum) => write!(f, ":{checksum}"),
        }
    }
}

/// Reads what `Display` writes, and the checksum `none`.
impl FromStr for Tunnel {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let port = match name {
            "gue" => parts.next().map(|port| port.parse::<u16>()),
            _ => None,
        };
        let checksum = parts.next().map(str::parse).transpose()?;
        let bad_port = || {
            ValueError(format!(
                "{} has no UDP port of 1 to 65535: write gue:PORT or gue:PORT:CHECKSUM",
                show(text)
            ))
        };
        let port = port.transpose().map_err(|_| bad_port())?;
        if parts.next().is_some() {
            let forms = "ipip, gue:PORT[:CHECKSUM] or gre[:CHECKSUM]";
            return Err(ValueError(format!("{} is not a tunnel: write {forms}", show(text))));
        }
        Self::from_parts(name, port, checksum).map_err(|(key, error)| match key {
            "port" if name == "gue" => bad_port(),
            "type" => error,
            key => ValueError(format!("{}: {key} {error}", show(text))),
        })
    }
}

/// `dr`, `nat`, `tunnel:ipip`, `tunnel:gue:6080:full` ...
impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dr | Self::Nat | Self::FullNat => f.pad(self.name()),
            Self::Tunnel(tunnel) => write!(f, "tunnel:{tunnel}"),
        }
    }
}

/// Reads what `Display` writes, and `tunnel`, which is IPIP.
impl FromStr for Forwarding {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            Some((name, tunnel)) => Self::from_name(name)?.with_tunnel(tunnel.parse()?),
            None => Self::from_name(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_reads_back() {
        for text in
            ["dr", "nat", "fullnat", "tunnel:ipip", "tunnel:gre", "tunnel:gre:full", "tunnel:gue:1:full"]
        {
            assert_eq!(text.parse::<Forwarding>().map(|f| f.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("tunnel".parse(), Ok(Forwarding::Tunnel(Tunnel::Ipip)));
        assert_eq!("gre:none".parse(), Ok(Tunnel::Gre { checksum: false }));
        let gue = |checksum| Ok(Tunnel::Gue { port: 6080, checksum });
        assert_eq!("gue:6080".parse(), gue(TunnelChecksum::None));
        assert_eq!("gue:6080:full".parse(), gue(TunnelChecksum::Full));
        assert_eq!("gue:6080:remote".parse(), gue(TunnelChecksum::Remote));
    }

    #[test]
    fn what_is_no_tunnel_is_told_why() {
        let error = |text: &str| text.parse::<Forwarding>().unwrap_err().to_string();
        assert_eq!(error("masq"), "\"masq\" is not a forwarding (known: dr, nat, tunnel, fullnat)");
        assert_eq!(error("dr:gre"), "a tunnel is of use with the forwarding tunnel only, not with dr");
        assert_eq!(
            error("tunnel:gr"),
            "\"gr\" is not a tunnel (known: ipip, gue, gre); did you mean \"gre\"?"
        );
        for text in ["gue", "gue:0", "gue:x", "gue:65536", "gue:"] {
            assert_eq!(
                error(&format!("tunnel:{text}")),
                format!("\"{text}\" has no UDP port of 1 to 65535: write gue:PORT or gue:PORT:CHECKSUM")
            );
        }
        assert_eq!(
            error("tunnel:gre:remote"),
            "\"gre:remote\": checksum \"remote\" is of use with the tunnel gue only, not with gre"
        );
        assert_eq!(
            error("tunnel:ipip:full"),
            "\"ipip:full\": checksum is of use with the tunnels gue and gre only, not with ipip"
        );
        assert_eq!(
            error("tunnel:gre:full:full"),
            "\"gre:full:full\" is not a tunnel: write ipip, gue:PORT[:CHECKSUM] or gre[:CHECKSUM]"
        );
        assert_eq!(
            error("tunnel:gre:half"),
            "\"half\" is not a tunnel's checksum (known: none, full, remote)"
        );
    }

    #[test]
    fn overheads_are_those_of_the_headers() {
        let of = |text: &str| {
            let tunnel: Tunnel = text.parse().unwrap();
            (tunnel.overhead(false), tunnel.overhead(true))
        };
        assert_eq!(of("ipip"), (20, 40));
        assert_eq!(of("gre"), (24, 44));
        assert_eq!(of("gre:full"), (28, 48));
        assert_eq!(of("gue:6080"), (32, 52));
        assert_eq!(of("gue:6080:full"), (32, 52));
        assert_eq!(of("gue:6080:remote"), (40, 60));
    }
}

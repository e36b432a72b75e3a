//! What clients address: a VIP and port, a range of them, or a firewall mark; and the parts that they are made of.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::bounds;
use crate::ifaddr::{bits_of, parse_ip, prefix};
use crate::model::{Protocol, Service};
use crate::text::{ValueError, show};

/// A network: an address and how many of its leading bits count. The other bits are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpPrefix {
    network: IpAddr,
    len: u8,
}

impl IpPrefix {
    /// The network of `len` bits that holds `address`; `None`: the family has fewer bits.
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        (len <= bits_of(address)).then(|| Self { network: prefix(address, len), len })
    }

    /// The network of one address.
    pub const fn host(address: IpAddr) -> Self {
        Self { network: address, len: bits_of(address) }
    }

    /// Its first address.
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// Bits that count, 0 to 32 or 0 to 128.
    pub const fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether it is one of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && prefix(address, self.len) == self.network
    }

    /// Its only address; `None`: it has several.
    pub const fn single(&self) -> Option<IpAddr> {
        if self.len == bits_of(self.network) { Some(self.network) } else { None }
    }

    /// Its last address.
    pub fn last(&self) -> IpAddr {
        let len = u32::from(self.len);
        match self.network {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() | u32::MAX.checked_shr(len).unwrap_or(0)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() | u128::MAX.checked_shr(len).unwrap_or(0)).into()),
        }
    }
}

/// `10.0.0.0/28`
impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

/// Reads `NETWORK/LENGTH`, or an address, which is a network of one.
impl FromStr for IpPrefix {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((address, len)) = text.split_once('/') else { return parse_ip(text).map(Self::host) };
        let address = parse_ip(address)?;
        let max = bits_of(address);
        let digits = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
        let found = len.parse().ok().filter(|_| digits).and_then(|len| Self::new(address, len));
        match found {
            None => Err(ValueError(format!("{}: the prefix length is not 0 to {max}", show(text)))),
            Some(prefix) if prefix.network != address => {
                Err(ValueError(format!("{} has bits beyond its prefix: its network is {prefix}", show(text))))
            }
            Some(prefix) => Ok(prefix),
        }
    }
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The ports from `first` to `last`; `None`: they are the wrong way round.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// One port.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The lowest port.
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(&self) -> u16 {
        self.last
    }

    /// Whether `port` is among them.
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The only port; `None`: there are several.
    pub const fn single(&self) -> Option<u16> {
        if self.first == self.last { Some(self.first) } else { None }
    }
}

/// `80` or `8000-8999`
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(port) => write!(f, "{port}"),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Reads what `Display` writes.
impl FromStr for PortRange {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<u16>().ok(),
            false => None,
        };
        let range = port(first).zip(port(last)).and_then(|(first, last)| Self::new(first, last));
        range.ok_or_else(|| {
            ValueError(format!(
                "{} is no range of ports: write FIRST-LAST, such as \"8000-8999\"",
                show(text)
            ))
        })
    }
}

/// What clients of a service address. Unique among the services of a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceAddress {
    /// One address and port.
    Vip {
        /// Virtual address.
        vip: IpAddr,
        /// Port; 0, with persistence only: every port that has no service of its own.
        port: u16,
        /// L4 protocol.
        protocol: Protocol,
    },
    /// Several addresses, several ports or both; never one of each, that is a `Vip`.
    Range {
        /// Virtual addresses.
        vips: IpPrefix,
        /// Ports, from 1 on.
        ports: PortRange,
        /// L4 protocol.
        protocol: Protocol,
    },
    /// Packets that a [`crate::MarkRule`] gave this mark.
    Mark {
        /// From 1 on.
        mark: u32,
        /// Family of the packets: IPv6, else IPv4.
        ipv6: bool,
    },
}

impl ServiceAddress {
    /// The addresses `vips` with the ports `ports`: a `Vip` where they are one each.
    pub const fn of(vips: IpPrefix, ports: PortRange, protocol: Protocol) -> Self {
        match (vips.single(), ports.single()) {
            (Some(vip), Some(port)) => Self::Vip { vip, port, protocol },
            _ => Self::Range { vips, ports, protocol },
        }
    }

    /// The same as [`ServiceAddress::of`] makes it, however it was made.
    pub(crate) const fn canonical(self) -> Self {
        match self {
            Self::Range { vips, ports, protocol } => Self::of(vips, ports, protocol),
            Self::Vip { .. } | Self::Mark { .. } => self,
        }
    }

    /// The one virtual address; `None`: several, or a mark.
    pub const fn vip(&self) -> Option<IpAddr> {
        match self {
            Self::Vip { vip, .. } => Some(*vip),
            Self::Range { vips, .. } => vips.single(),
            Self::Mark { .. } => None,
        }
    }

    /// The virtual addresses; `None`: a mark, which may be at any address.
    pub const fn vips(&self) -> Option<IpPrefix> {
        match self {
            Self::Vip { vip, .. } => Some(IpPrefix::host(*vip)),
            Self::Range { vips, .. } => Some(*vips),
            Self::Mark { .. } => None,
        }
    }

    /// The ports; all of them for port 0 and for a mark.
    pub const fn ports(&self) -> PortRange {
        match self {
            Self::Vip { port: 0, .. } | Self::Mark { .. } => PortRange::ALL,
            Self::Vip { port, .. } => PortRange::one(*port),
            Self::Range { ports, .. } => *ports,
        }
    }

    /// The port of servers that name none; 0: the one that the client used.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Vip { port, .. } => *port,
            Self::Range { ports, .. } => match ports.single() {
                Some(port) => port,
                None => 0,
            },
            Self::Mark { .. } => 0,
        }
    }

    /// The protocol; `None`: a mark, which may be of any.
    pub const fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Vip { protocol, .. } | Self::Range { protocol, .. } => Some(*protocol),
            Self::Mark { .. } => None,
        }
    }

    /// The firewall mark, if it is one.
    pub const fn mark(&self) -> Option<u32> {
        match self {
            Self::Mark { mark, .. } => Some(*mark),
            Self::Vip { .. } | Self::Range { .. } => None,
        }
    }

    /// Whether clients use IPv6, else IPv4.
    pub const fn is_ipv6(&self) -> bool {
        match self {
            Self::Vip { vip, .. } => vip.is_ipv6(),
            Self::Range { vips, .. } => vips.network.is_ipv6(),
            Self::Mark { ipv6, .. } => *ipv6,
        }
    }

    /// The address without its protocol: `192.168.150.100:80`, `10.0.0.0/28:80`, `[fd00::/64]:8000-8999`, `mark:7`.
    pub fn local(&self) -> String {
        match self {
            Self::Vip { vip, port, .. } => SocketAddr::new(*vip, *port).to_string(),
            Self::Range { vips, ports, .. } => {
                let host = vips.single().map_or_else(|| vips.to_string(), |vip| vip.to_string());
                if vips.network.is_ipv6() { format!("[{host}]:{ports}") } else { format!("{host}:{ports}") }
            }
            Self::Mark { mark, ipv6: false } => format!("mark:{mark}"),
            Self::Mark { mark, ipv6: true } => format!("mark:{mark}/ipv6"),
        }
    }
}

/// What [`ServiceAddress`] tells, asked of the service.
impl Service {
    /// See [`ServiceAddress::vip`].
    pub const fn vip(&self) -> Option<IpAddr> {
        self.address.vip()
    }

    /// See [`ServiceAddress::vips`].
    pub const fn vips(&self) -> Option<IpPrefix> {
        self.address.vips()
    }

    /// See [`ServiceAddress::ports`].
    pub const fn ports(&self) -> PortRange {
        self.address.ports()
    }

    /// See [`ServiceAddress::port`].
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// See [`ServiceAddress::protocol`].
    pub const fn protocol(&self) -> Option<Protocol> {
        self.address.protocol()
    }

    /// See [`ServiceAddress::is_ipv6`].
    pub const fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }
}

/// `192.168.150.100:80/tcp`, `[fd00::100]:53/udp`, `10.0.0.0/28:8000-8999/tcp`, `mark:7` or `mark:7/ipv6`
impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local())?;
        match self.protocol() {
            Some(protocol) => write!(f, "/{protocol}"),
            None => Ok(()),
        }
    }
}

/// Reads what `Display` writes, and `mark:7/ipv4`.
impl FromStr for ServiceAddress {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError(format!(
                "{} is no address of a service: write VIP:PORT/PROTOCOL such as 192.168.150.100:80/tcp, \
                 [fd00::100]:53/udp or 10.0.0.0/28:8000-8999/tcp, or mark:NUMBER such as mark:7 or mark:7/ipv6",
                show(text)
            ))
        };
        if let Some(mark) = text.strip_prefix("mark:") {
            let (number, family) = mark.split_once('/').unwrap_or((mark, "ipv4"));
            let ipv6 = match family {
                "ipv4" => false,
                "ipv6" => true,
                _ => return Err(wrong()),
            };
            let number = number.parse::<u32>().ok().filter(|_| number.bytes().all(|b| b.is_ascii_digit()));
            let mark = bounds::MARK.check(number.ok_or_else(wrong)?.into()).map_err(ValueError)?;
            return Ok(Self::Mark { mark, ipv6 });
        }
        let (local, protocol) = text.rsplit_once('/').ok_or_else(wrong)?;
        let (host, ports) = local.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let vips: IpPrefix = bracketed.unwrap_or(host).parse().map_err(|error: ValueError| {
            // What is no address at all is no address of a service; a wrong prefix is told as such.
            if host.contains('/') && !host.contains('%') { error } else { wrong() }
        })?;
        if vips.network.is_ipv6() != bracketed.is_some() {
            return Err(wrong());
        }
        let ports: PortRange = ports.parse().map_err(|_| wrong())?;
        Ok(Self::of(vips, ports, protocol.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_reads_back() {
        for text in [
            "192.168.150.100:80/tcp",
            "10.0.0.1:0/udp",
            "[fd00::100]:53/udp",
            "10.0.0.0/28:80/tcp",
            "10.0.0.1:8000-8999/tcp",
            "[fd00::/64]:1-65535/udp",
            "[fd00::1]:1-2/udp",
            "mark:7",
            "mark:4294967295/ipv6",
        ] {
            assert_eq!(text.parse::<ServiceAddress>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("10.0.0.1/32:80/tcp".parse::<ServiceAddress>(), "10.0.0.1:80/tcp".parse());
        assert_eq!("10.0.0.1:80-80/tcp".parse::<ServiceAddress>(), "10.0.0.1:80/tcp".parse());
        assert_eq!("mark:7/ipv4".parse(), Ok(ServiceAddress::Mark { mark: 7, ipv6: false }));
    }

    #[test]
    fn what_is_no_address_is_told() {
        let error = |text: &str| text.parse::<ServiceAddress>().unwrap_err().to_string();
        for text in [
            "",
            "10.0.0.1:80",
            "10.0.0.1/tcp",
            "fd00::1:80/tcp",
            "[10.0.0.1]:80/tcp",
            "[fd00::1%1]:80/tcp",
            "web:80/tcp",
            ":/",
            "mark:",
            "mark:x",
            "mark:7/ipv5",
            "mark:+7",
            "10.0.0.1:90-80/tcp",
            "10.0.0.1:65536/tcp",
            "10.0.0.1:/tcp",
        ] {
            assert!(
                error(text).starts_with(&format!("\"{text}\" is no address of a service: write ")),
                "{text}"
            );
        }
        assert_eq!(
            error("10.0.0.1/28:80/tcp"),
            "\"10.0.0.1/28\" has bits beyond its prefix: its network is 10.0.0.0/28"
        );
        assert_eq!(error("10.0.0.0/33:80/tcp"), "\"10.0.0.0/33\": the prefix length is not 0 to 32");
        assert_eq!(error("mark:0"), "0 is below the limit 1");
    }

    #[test]
    fn an_address_tells_what_it_covers() {
        let of = |text: &str| text.parse::<ServiceAddress>().unwrap();
        let exact = of("10.0.0.1:80/tcp");
        assert_eq!((exact.port(), exact.ports()), (80, PortRange::one(80)));
        assert_eq!(of("10.0.0.1:0/tcp").ports(), PortRange::ALL);
        assert_eq!((of("10.0.0.0/28:80/tcp").port(), of("10.0.0.1:80-81/tcp").port()), (80, 0));
        assert_eq!((of("mark:7").port(), of("mark:7").vips(), of("mark:7").protocol()), (0, None, None));
        assert_eq!(of("10.0.0.1:80-81/tcp").vip(), Some([10, 0, 0, 1].into()));
        assert_eq!(of("10.0.0.0/28:80/tcp").vip(), None);
        assert!(of("mark:7/ipv6").is_ipv6() && of("[fd00::/64]:1/tcp").is_ipv6() && !of("mark:7").is_ipv6());
    }

    #[test]
    fn a_prefix_ends_with_its_last_address() {
        let last = |text: &str| text.parse::<IpPrefix>().unwrap().last().to_string();
        assert_eq!(last("10.0.0.0/28"), "10.0.0.15");
        assert_eq!(
            (last("0.0.0.0/0"), last("10.0.0.1")),
            ("255.255.255.255".to_owned(), "10.0.0.1".to_owned())
        );
        assert_eq!(
            (last("fd00::/64"), last("::/0")),
            ("fd00::ffff:ffff:ffff:ffff".to_owned(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".to_owned())
        );
        let prefix: IpPrefix = "10.0.0.16/28".parse().unwrap();
        assert!(prefix.contains([10, 0, 0, 31].into()) && !prefix.contains([10, 0, 0, 32].into()));
        assert!(!prefix.contains("::a00:10".parse().unwrap()));
    }
}

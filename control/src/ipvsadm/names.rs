//! Names and numbers: addresses, ports and services as ipvsadm reads and prints them.
//!
//! Names are those of /etc/hosts and /etc/services. A host's name is also asked of the resolver; an address's name is
//! not (no DNS look-up is made to print a listing, where ipvsadm without `-n` makes one for each line).

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

use super::table::{SCTP, TCP, UDP};

/// The names that the machine knows.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Address and its first name, of /etc/hosts.
    hosts: Vec<(IpAddr, String)>,
    /// Port, protocol's name, name and aliases, of /etc/services.
    services: Vec<(u16, String, Vec<String>)>,
    resolver: bool,
}

impl Names {
    /// Those of this machine. A file that is missing holds no names.
    pub fn system() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self { resolver: true, ..Self::new(&read("/etc/hosts"), &read("/etc/services")) }
    }

    /// Those of two files' texts (hosts(5), services(5)), and no resolver.
    pub fn new(hosts: &str, services: &str) -> Self {
        let host = |line: &str| {
            let mut words = fields(line);
            Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
        };
        let service = |line: &str| {
            let mut words = fields(line);
            let name = words.next()?.to_owned();
            let (port, protocol) = words.next()?.split_once('/')?;
            let names = std::iter::once(name).chain(words.map(str::to_owned)).collect();
            Some((port.parse().ok()?, protocol.to_owned(), names))
        };
        Self {
            hosts: hosts.lines().filter_map(host).collect(),
            services: services.lines().filter_map(service).collect(),
            resolver: false,
        }
    }

    /// The IPv4 address of a host's name.
    fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        let known = self.hosts.iter().find_map(|(address, host)| match address {
            IpAddr::V4(v4) if host == name => Some(*v4),
            _ => None,
        });
        known.or_else(|| {
            let found = if self.resolver { (name, 0).to_socket_addrs().ok() } else { None };
            found?.find_map(|address| match address.ip() {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            })
        })
    }

    /// The port of a service's name.
    fn port_of(&self, name: &str, protocol: u8) -> Option<u16> {
        let protocol = protocol_word(protocol)?;
        let named = |(_, of, names): &&(u16, String, Vec<String>)| {
            of == protocol && names.iter().any(|known| known == name)
        };
        self.services.iter().find(named).map(|(port, ..)| *port)
    }

    /// An address for people: `localhost`, or the number. ipvsadm finds no names of IPv6 addresses.
    pub(super) fn show_address(&self, address: IpAddr) -> String {
        let name = self.hosts.iter().find(|(known, _)| address.is_ipv4() && *known == address);
        name.map_or_else(|| address.to_string(), |(_, name)| name.clone())
    }

    /// A port for people: `http`, or the number.
    pub(super) fn show_port(&self, port: u16, protocol: u8) -> String {
        let word = protocol_word(protocol);
        let found = self.services.iter().find(|(known, of, _)| *known == port && Some(of.as_str()) == word);
        found.and_then(|(_, _, names)| names.first().cloned()).unwrap_or_else(|| port.to_string())
    }

    /// Reads `host[:port]` or `[v6]:port`. `None`: it is neither, or the port is none of `protocol`.
    pub(super) fn endpoint(&self, text: &str, protocol: u8) -> Option<Endpoint> {
        // A number alone could be either part.
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (host, mut port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, Some(port.strip_prefix(':')?))
            }
            None => (text, None),
        };
        let address = if let Ok(v6) = host.parse() {
            IpAddr::V6(v6)
        } else {
            // What stands in brackets is split again; its own port then counts for nothing.
            let host = match host.rsplit_once(':') {
                Some((host, of)) => {
                    port = Some(of);
                    host
                }
                None => {
                    port = None;
                    host
                }
            };
            IpAddr::V4(inet_aton(host).or_else(|| self.address_of(host))?)
        };
        let port = match port {
            Some(text) => Some(match number(text, 0, i64::from(u16::MAX)) {
                Some(port) => u16::try_from(port).ok()?,
                None => self.port_of(text, protocol)?,
            }),
            None => None,
        };
        Some(Endpoint { address, port })
    }

    /// Reads an IPv4 netmask, which is an address or a host's name.
    pub(super) fn netmask(&self, text: &str) -> Option<Ipv4Addr> {
        inet_aton(text).or_else(|| self.address_of(text))
    }
}

/// An address, perhaps with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub address: IpAddr,
    pub port: Option<u16>,
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split('#').next().unwrap_or("").split_whitespace()
}

fn protocol_word(protocol: u8) -> Option<&'static str> {
    match protocol {
        TCP => Some("tcp"),
        UDP => Some("udp"),
        SCTP => Some("sctp"),
        _ => None,
    }
}

/// A decimal number within limits, as strtol(3) reads it: blanks and a sign may precede it, nothing may follow.
pub(super) fn number(text: &str, min: i64, max: i64) -> Option<i64> {
    let trimmed = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    trimmed.parse().ok().filter(|number| (min..=max).contains(number))
}

/// The number at a text's beginning, as atoi(3) reads it: 0 without one.
pub(super) fn leading_number(text: &str) -> i64 {
    let trimmed = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (sign, digits) = match trimmed.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let end = digits.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end).and_then(|digits| digits.parse::<i64>().ok()).map_or(0, |number| sign * number)
}

/// An IPv4 address as inet_aton(3) reads it: one to four numbers, the last of which fills what is left; `0x` and a
/// leading 0 change the base; what follows a blank is not looked at.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let text = text.split(|c: char| c.is_ascii_whitespace()).next()?;
    let parts: Vec<u32> = text.split('.').map(part).collect::<Option<_>>()?;
    let (last, firsts) = parts.split_last()?;
    if firsts.len() > 3 || firsts.iter().any(|part| *part > 255) {
        return None;
    }
    let left = 32 - 8 * u32::try_from(firsts.len()).ok()?;
    if u64::from(*last) >> left != 0 {
        return None;
    }
    let high = firsts.iter().zip([24, 16, 8]).fold(0, |sum, (part, shift)| sum | part << shift);
    Some(Ipv4Addr::from(high | last))
}

fn part(text: &str) -> Option<u32> {
    let (digits, radix) = if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        (hex, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (text, 8)
    } else {
        (text, 10)
    };
    // `from_str_radix` takes a sign, which an address has not.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(
            "127.0.0.1\tlocalhost # here\n::1 localhost ip6-localhost\n10.0.0.7 web www\n",
            "# comment\nhttp 80/tcp www # Web\nhttp-alt 8080/tcp webcache\ndomain 53/udp\ndomain 53/tcp\n",
        )
    }

    fn endpoint(text: &str) -> Option<(String, Option<u16>)> {
        names().endpoint(text, TCP).map(|e| (e.address.to_string(), e.port))
    }

    #[test]
    fn endpoints_are_read_as_ipvsadm_reads_them() {
        let some = |address: &str, port| Some((address.to_owned(), port));
        assert_eq!(endpoint("10.0.0.1:80"), some("10.0.0.1", Some(80)));
        assert_eq!(endpoint("10.0.0.1"), some("10.0.0.1", None));
        assert_eq!(endpoint("10.1:http"), some("10.0.0.1", Some(80)));
        assert_eq!(endpoint("10.0.0.1:webcache"), some("10.0.0.1", Some(8080)));
        assert_eq!(endpoint("web:www"), some("10.0.0.7", Some(80)));
        assert_eq!(endpoint("[fd00::1]:443"), some("fd00::1", Some(443)));
        assert_eq!(endpoint("fd00::1:80"), some("fd00::1:80", None));
        // brackets around IPv4: the port is lost on the way, in ipvsadm too
        assert_eq!(endpoint("[10.0.0.1]:80"), some("10.0.0.1", None));
        for wrong in [
            "80",
            "",
            "[fd00::1]",
            "[fd00::1",
            "[fd00::1]80",
            "[fd00::zz]:80",
            "10.0.0.256:80",
            "10.0.0.1:65536",
            "10.0.0.1:-1",
            "10.0.0.1:nosuch",
            "10.0.0.1:",
            "nosuch.invalid:80",
            "1.2.3.4.5:1",
        ] {
            assert_eq!(endpoint(wrong), None, "{wrong}");
        }
        assert_eq!(names().endpoint("10.0.0.1:http", UDP), None);
        assert_eq!(names().endpoint("10.0.0.1:domain", 0), None);
    }

    #[test]
    fn names_are_printed_where_there_are_any() {
        let names = names();
        assert_eq!(names.show_address([127, 0, 0, 1].into()), "localhost");
        assert_eq!(names.show_address([10, 0, 0, 1].into()), "10.0.0.1");
        assert_eq!(names.show_address("::1".parse().unwrap()), "::1");
        assert_eq!(names.show_port(8080, TCP), "http-alt");
        assert_eq!(names.show_port(80, UDP), "80");
    }

    #[test]
    fn numbers_are_read_as_the_c_library_reads_them() {
        assert_eq!(number(" +5", 0, 9), Some(5));
        assert_eq!(number("5x", 0, 9), None);
        assert_eq!(number("", 0, 9), None);
        assert_eq!(number("-", -9, 9), None);
        assert_eq!(number("10", 0, 9), None);
        assert_eq!(number("99999999999999999999", 0, i64::MAX), None);
        assert_eq!(leading_number("ffff::"), 0);
        assert_eq!(leading_number("64x"), 64);
        assert_eq!(leading_number("-3"), -3);
        assert_eq!(inet_aton("24"), Some(Ipv4Addr::new(0, 0, 0, 24)));
        assert_eq!(inet_aton("0x0a.010.1"), Some(Ipv4Addr::new(10, 8, 0, 1)));
        assert_eq!(inet_aton("1.2.3.4 x"), Some(Ipv4Addr::new(1, 2, 3, 4)));
        assert_eq!(inet_aton("1.2.3.+4"), None);
        assert_eq!(inet_aton("1..3"), None);
        assert_eq!(inet_aton("4294967296"), None);
    }
}

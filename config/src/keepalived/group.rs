//! What a virtual server is addressed by: itself, or the lines of a `virtual_server_group`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Import;
use super::lex::Entry;
use crate::address::{IpPrefix, PortRange, ServiceAddress};
use crate::model::Protocol;

/// Addresses of a range that become a service each.
const MAX_RANGE: u32 = 1024;

/// One thing that clients address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Addresses, and a port or 0.
    Packets(IpPrefix, u16),
    /// A mark, and whether it is of IPv6 packets if the line says so.
    Mark(u32, Option<bool>),
}

impl Target {
    /// As a service's address.
    pub fn address(self, protocol: Protocol, ipv6: bool) -> ServiceAddress {
        match self {
            Self::Packets(vips, port) => ServiceAddress::of(vips, PortRange::one(port), protocol),
            Self::Mark(mark, family) => ServiceAddress::Mark { mark, ipv6: family.unwrap_or(ipv6) },
        }
    }
}

impl Import {
    /// What `virtual_server ...` stands for.
    pub(super) fn targets(&mut self, entry: &Entry, tree: &[Entry]) -> Vec<Target> {
        match entry.arg(1) {
            Some("group") => {
                let name = entry.arg(2);
                let mut groups = tree.iter().filter(|e| e.key() == "virtual_server_group");
                match groups.find(|group| group.arg(1) == name) {
                    Some(group) => {
                        group.inner().iter().flat_map(|line| self.target(line, &line.words)).collect()
                    }
                    None => {
                        self.note(entry, "names no virtual_server_group of this file");
                        Vec::new()
                    }
                }
            }
            _ => self.target(entry, entry.args()),
        }
    }

    /// `ADDRESS[/LEN or -LAST] [PORT]` or `fwmark N [inet|inet6]`; nothing, and a note, if it is neither.
    fn target(&mut self, line: &Entry, words: &[String]) -> Vec<Target> {
        let word = |at: usize| words.get(at).map(String::as_str);
        if word(0) == Some("fwmark") {
            let Some(mark) = word(1).and_then(|mark| mark.parse().ok()).filter(|mark| *mark > 0) else {
                self.note(line, "fwmark is followed by no mark from 1 on");
                return Vec::new();
            };
            if !self.base.marks.contains(&mark) {
                self.note(
                    line,
                    format!(
                        "fwmark {mark}: packets get marks from [[marks]] here, not from a firewall; add rules"
                    ),
                );
            }
            let ipv6 = match word(2) {
                Some("inet6") => Some(true),
                Some("inet") => Some(false),
                _ => None,
            };
            return vec![Target::Mark(mark, ipv6)];
        }
        let port = match word(1).map(str::parse::<u16>) {
            None => 0,
            Some(Ok(port)) => port,
            Some(Err(_)) => {
                let show = crate::text::show(word(1).unwrap_or_default());
                self.note(
                    line,
                    format!("{show} is no port of 0 to 65535; ranges of addresses there are, of ports not"),
                );
                return Vec::new();
            }
        };
        match range(word(0).unwrap_or_default()) {
            Ok(list) => list.into_iter().map(|vips| Target::Packets(vips, port)).collect(),
            Err(why) => {
                self.note(line, why);
                Vec::new()
            }
        }
    }
}

/// The addresses of `ADDRESS`, `ADDRESS/LEN` or `ADDRESS-LAST`, where LAST is the last part of the last address: decimal
/// of IPv4, hexadecimal of IPv6.
fn range(text: &str) -> Result<Vec<IpPrefix>, String> {
    let no_address = || format!("{} is no address or range", crate::text::show(text));
    if let Some((address, len)) = text.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| no_address())?;
        let len: u8 = len.parse().map_err(|_| no_address())?;
        let prefix = if len > crate::ifaddr::bits_of(address) {
            None
        } else {
            IpPrefix::new(crate::ifaddr::prefix(address, len), len)
        };
        return prefix.map(|prefix| vec![prefix]).ok_or_else(no_address);
    }
    let Some((first, last)) = text.split_once('-') else {
        return Ok(vec![IpPrefix::host(text.parse().map_err(|_| no_address())?)]);
    };
    let first: IpAddr = first.parse().map_err(|_| no_address())?;
    let (from, to) = match first {
        IpAddr::V4(v4) => (u32::from(v4.octets()[3]), last.parse::<u8>().map_err(|_| no_address())?.into()),
        IpAddr::V6(v6) => {
            let last = u16::from_str_radix(last, 16).map_err(|_| no_address())?;
            (u32::from(v6.segments()[7]), u32::from(last))
        }
    };
    if from > to {
        return Err(format!("{} ends before it begins", crate::text::show(text)));
    }
    if to - from >= MAX_RANGE {
        return Err(format!("{} are more than {MAX_RANGE} addresses", crate::text::show(text)));
    }
    let next = |step: u32| match first {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4).wrapping_add(step))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6).wrapping_add(step.into()))),
    };
    Ok((0..=to - from).map(|step| IpPrefix::host(next(step))).collect())
}

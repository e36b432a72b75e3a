//! Records as bytes.
//!
//! A connection over IPv4 by direct routing to a service's own address takes 33 bytes with its tag, so that a datagram
//! holds 40 of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_config::{Forwarding, IpPrefix, PortRange, Protocol, ServiceAddress, Tunnel, TunnelChecksum};
use lb_dataplane::conn::{Splice, Stream};
use lb_dataplane::neighbor::LinkId;
use lb_dataplane::persist::TemplateKey;
use lb_dataplane::state::State;
use lb_dataplane::sync::{Connection, DestKey, Flags, Gone, Owner, Record, Streams, Template};

/// What is in a datagram of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record(Record),
    /// A copy of everything begins: its number.
    Begin(u32),
    /// It is complete.
    End(u32),
}

const CONNECTION: u8 = 1;
const TEMPLATE: u8 = 2;
const BEGIN: u8 = 3;
const END: u8 = 4;
const GONE: u8 = 5;

// what a connection has, in its first byte
const IPV6: u8 = 1;
const SERVER_IPV6: u8 = 1 << 1;
const LOCAL: u8 = 1 << 2;
const TEMPLATED: u8 = 1 << 3;
/// Its service is of exactly its VIP, port and protocol.
const EXACT: u8 = 1 << 4;
const HEADED: u8 = 1 << 5;
const SPLICED: u8 = 1 << 6;
// and in its second
const NO_OUTPUT: u8 = 1;
const CONTROLLED: u8 = 1 << 1;
const ASSURED: u8 = 1 << 2;
const PROXIED: u8 = 1 << 3;
const ANSWERED: u8 = 1 << 4;

/// Adds an item to a datagram.
pub fn put(item: &Item, to: &mut Vec<u8>) {
    let at = to.len();
    let tag = match item {
        Item::Record(Record::Connection(_)) => CONNECTION,
        Item::Record(Record::Template(_)) => TEMPLATE,
        Item::Record(Record::Gone(_)) => GONE,
        Item::Begin(_) => BEGIN,
        Item::End(_) => END,
    };
    to.extend([tag, 0]);
    match item {
        Item::Record(Record::Connection(connection)) => put_connection(connection, to),
        Item::Record(Record::Template(template)) => {
            put_key(&template.key, to);
            put_dest(&template.dest, to);
            to.extend((template.timeout_ns / 1_000_000).to_be_bytes());
            to.extend((template.left_ns / 1_000_000).to_be_bytes());
            to.push(u8::from(template.assured));
        }
        Item::Record(Record::Gone(gone)) => put_gone(gone, to),
        Item::Begin(number) | Item::End(number) => to.extend(number.to_be_bytes()),
    }
    let len = to.len() - at - 2;
    if let Some(place) = to.get_mut(at + 1) {
        *place = u8::try_from(len).unwrap_or(u8::MAX);
    }
}

/// The next item of a datagram, which is taken off it; `None`: it is at its end, or what comes is no item. Items of a
/// kind that is not known are passed over.
pub fn take(from: &mut &[u8]) -> Option<Item> {
    loop {
        let (&tag, rest) = from.split_first()?;
        let (&len, rest) = rest.split_first()?;
        let (body, rest) = rest.split_at_checked(usize::from(len))?;
        *from = rest;
        let mut bytes = Bytes(body);
        let item = match tag {
            CONNECTION => Item::Record(Record::Connection(bytes.connection()?)),
            TEMPLATE => Item::Record(Record::Template(bytes.template()?)),
            GONE => Item::Record(Record::Gone(bytes.gone()?)),
            BEGIN => Item::Begin(bytes.u32()?),
            END => Item::End(bytes.u32()?),
            _ => continue,
        };
        return bytes.0.is_empty().then_some(item);
    }
}

fn put_connection(connection: &Connection, to: &mut Vec<u8>) {
    let Connection { protocol, client, vip, dest, local, state, flags, left, streams, template, .. } =
        connection;
    let exact = is_exact(dest, *vip, *protocol);
    let shape = [
        (IPV6, client.0.is_ipv6()),
        (SERVER_IPV6, dest.address.is_ipv6()),
        (LOCAL, local.is_some()),
        (TEMPLATED, template.is_some()),
        (EXACT, exact),
        (HEADED, matches!(streams, Streams::Headed(_))),
        (SPLICED, matches!(streams, Streams::Spliced(_))),
    ];
    let known = [
        (NO_OUTPUT, flags.no_output),
        (CONTROLLED, flags.controlled),
        (ASSURED, flags.assured),
        (PROXIED, flags.proxied),
        (ANSWERED, flags.answered),
    ];
    to.push(bits(&shape));
    to.push(bits(&known));
    to.extend([*protocol, state.bits()]);
    to.extend(left.to_be_bytes());
    for end in [client, vip] {
        put_end(*end, to);
    }
    put_end((dest.address, dest.port), to);
    put_forwarding(dest.forwarding, to);
    if !exact {
        put_owner(&dest.owner, to);
    }
    if let Some(local) = local {
        put_end(*local, to);
    }
    match streams {
        Streams::Alike => {}
        Streams::Headed(stream) => {
            let (base, delivered, far) = stream.parts();
            to.push(u8::from(base.is_some()) | u8::from(delivered) << 1 | u8::from(far) << 2);
            to.extend(base.unwrap_or_default().to_be_bytes());
        }
        Streams::Spliced(Splice::Opening { cookie, window }) => {
            to.push(0);
            to.extend(cookie.to_be_bytes());
            to.extend(window.to_be_bytes());
        }
        Streams::Spliced(Splice::Open { delta, to_server, to_client }) => {
            to.push(1);
            to.extend(delta.to_be_bytes());
            to.extend([*to_server, to_client.to_be_bytes()[0]]);
        }
    }
    if let Some(template) = template {
        put_key(template, to);
    }
}

fn put_gone(gone: &Gone, to: &mut Vec<u8>) {
    let Gone { protocol, client, vip, dest } = gone;
    to.extend([u8::from(client.0.is_ipv6()), *protocol]);
    put_end(*client, to);
    put_end(*vip, to);
    put_dest(dest, to);
}

fn bits(flags: &[(u8, bool)]) -> u8 {
    flags.iter().filter(|(_, set)| *set).fold(0, |all, (bit, _)| all | bit)
}

fn is_exact(dest: &DestKey, (vip, port): (IpAddr, u16), protocol: u8) -> bool {
    let protocol = protocol_of(protocol);
    protocol.is_some_and(|protocol| dest.owner == Owner::Service(ServiceAddress::Vip { vip, port, protocol }))
}

fn protocol_of(number: u8) -> Option<Protocol> {
    lb_dataplane::wire::L4::of(number).map(|l4| l4.protocol())
}

fn number_of(protocol: Protocol) -> u8 {
    lb_dataplane::wire::L4::from(protocol) as u8
}

fn put_address(address: IpAddr, to: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => to.extend(v4.octets()),
        IpAddr::V6(v6) => to.extend(v6.octets()),
    }
}

fn put_end((address, port): (IpAddr, u16), to: &mut Vec<u8>) {
    put_address(address, to);
    to.extend(port.to_be_bytes());
}

/// An address whose family nothing before it tells.
fn put_any(address: IpAddr, to: &mut Vec<u8>) {
    to.push(u8::from(address.is_ipv6()));
    put_address(address, to);
}

fn put_prefix(prefix: &IpPrefix, to: &mut Vec<u8>) {
    put_any(prefix.network(), to);
    to.push(prefix.prefix_len());
}

fn put_forwarding(forwarding: Forwarding, to: &mut Vec<u8>) {
    match forwarding {
        Forwarding::Dr => to.push(0),
        Forwarding::Nat => to.push(1),
        Forwarding::FullNat => to.push(2),
        Forwarding::Tunnel(Tunnel::Ipip) => to.push(3),
        Forwarding::Tunnel(Tunnel::Gue { port, checksum }) => {
            let checksum = match checksum {
                TunnelChecksum::None => 0,
                TunnelChecksum::Full => 1,
                TunnelChecksum::Remote => 2,
            };
            to.push(4 + checksum);
            to.extend(port.to_be_bytes());
        }
        Forwarding::Tunnel(Tunnel::Gre { checksum }) => to.push(7 + u8::from(checksum)),
    }
}

fn put_owner(owner: &Owner, to: &mut Vec<u8>) {
    match owner {
        Owner::Service(ServiceAddress::Vip { vip, port, protocol }) => {
            to.extend([1, number_of(*protocol)]);
            put_any(*vip, to);
            to.extend(port.to_be_bytes());
        }
        Owner::Service(ServiceAddress::Range { vips, ports, protocol }) => {
            to.extend([2, number_of(*protocol)]);
            put_prefix(vips, to);
            to.extend(ports.first().to_be_bytes());
            to.extend(ports.last().to_be_bytes());
        }
        Owner::Service(ServiceAddress::Mark { mark, ipv6 }) => {
            to.extend([3, u8::from(*ipv6)]);
            to.extend(mark.to_be_bytes());
        }
        Owner::Snat { sources, protocols, link } => {
            to.extend([4, *protocols]);
            put_prefix(sources, to);
            to.push(u8::from(link.is_some()));
            to.extend(link.map_or(0, |link| link.0).to_be_bytes());
        }
    }
}

/// A destination whose families and service nothing before it tells.
fn put_dest(dest: &DestKey, to: &mut Vec<u8>) {
    put_any(dest.address, to);
    to.extend(dest.port.to_be_bytes());
    put_forwarding(dest.forwarding, to);
    put_owner(&dest.owner, to);
}

fn put_key(key: &TemplateKey, to: &mut Vec<u8>) {
    to.push(u8::from(key.client().is_ipv6()) | u8::from(key.is_of_range()) << 1);
    put_address(key.client(), to);
    put_address(key.vip(), to);
    to.extend(key.vport().to_be_bytes());
    to.push(key.protocol());
}

/// Bytes that are read from the front; `None`: there are not enough.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    /// 0 or 1.
    fn flag(&mut self) -> Option<bool> {
        self.u8().filter(|flag| *flag < 2).map(|flag| flag == 1)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn address(&mut self, ipv6: bool) -> Option<IpAddr> {
        Some(match ipv6 {
            true => Ipv6Addr::from(self.array::<16>()?).into(),
            false => Ipv4Addr::from(self.array::<4>()?).into(),
        })
    }

    fn any(&mut self) -> Option<IpAddr> {
        let ipv6 = self.flag()?;
        self.address(ipv6)
    }

    fn end(&mut self, ipv6: bool) -> Option<(IpAddr, u16)> {
        Some((self.address(ipv6)?, self.u16()?))
    }

    fn prefix(&mut self) -> Option<IpPrefix> {
        let (network, len) = (self.any()?, self.u8()?);
        IpPrefix::new(network, len)
    }

    fn forwarding(&mut self) -> Option<Forwarding> {
        let gue = |port, checksum| Some(Forwarding::Tunnel(Tunnel::Gue { port, checksum }));
        match self.u8()? {
            0 => Some(Forwarding::Dr),
            1 => Some(Forwarding::Nat),
            2 => Some(Forwarding::FullNat),
            3 => Some(Forwarding::Tunnel(Tunnel::Ipip)),
            4 => gue(self.u16()?, TunnelChecksum::None),
            5 => gue(self.u16()?, TunnelChecksum::Full),
            6 => gue(self.u16()?, TunnelChecksum::Remote),
            kind @ (7 | 8) => Some(Forwarding::Tunnel(Tunnel::Gre { checksum: kind == 8 })),
            _ => None,
        }
    }

    fn owner(&mut self) -> Option<Owner> {
        Some(match self.u8()? {
            1 => {
                let protocol = protocol_of(self.u8()?)?;
                let (vip, port) = (self.any()?, self.u16()?);
                Owner::Service(ServiceAddress::Vip { vip, port, protocol })
            }
            2 => {
                let protocol = protocol_of(self.u8()?)?;
                let vips = self.prefix()?;
                let ports = PortRange::new(self.u16()?, self.u16()?)?;
                Owner::Service(ServiceAddress::Range { vips, ports, protocol })
            }
            3 => {
                let ipv6 = self.flag()?;
                Owner::Service(ServiceAddress::Mark { mark: self.u32()?, ipv6 })
            }
            4 => {
                let (protocols, sources) = (self.u8()?, self.prefix()?);
                let (has_link, link) = (self.flag()?, self.u16()?);
                Owner::Snat { sources, protocols, link: has_link.then_some(LinkId(link)) }
            }
            _ => return None,
        })
    }

    fn dest(&mut self) -> Option<DestKey> {
        let (address, port) = (self.any()?, self.u16()?);
        let forwarding = self.forwarding()?;
        Some(DestKey { owner: self.owner()?, address, port, forwarding })
    }

    fn key(&mut self) -> Option<TemplateKey> {
        let shape = self.u8().filter(|shape| *shape < 4)?;
        let ipv6 = shape & 1 != 0;
        let (client, vip) = (self.address(ipv6)?, self.address(ipv6)?);
        TemplateKey::of_parts(client, vip, self.u16()?, self.u8()?, shape & 2 != 0)
    }

    fn template(&mut self) -> Option<Template> {
        let (key, dest) = (self.key()?, self.dest()?);
        let timeout_ns = self.u64()?.checked_mul(1_000_000)?;
        let left_ns = self.u64()?.checked_mul(1_000_000)?;
        Some(Template { key, dest, timeout_ns, left_ns, assured: self.flag()? })
    }

    fn gone(&mut self) -> Option<Gone> {
        let (ipv6, protocol) = (self.flag()?, self.u8()?);
        let (client, vip) = (self.end(ipv6)?, self.end(ipv6)?);
        Some(Gone { protocol, client, vip, dest: self.dest()? })
    }

    fn connection(&mut self) -> Option<Connection> {
        let (shape, known, protocol, state) = (self.u8()?, self.u8()?, self.u8()?, self.u8()?);
        let left = self.u32()?;
        let ipv6 = shape & IPV6 != 0;
        let (client, vip) = (self.end(ipv6)?, self.end(ipv6)?);
        let (address, port) = self.end(shape & SERVER_IPV6 != 0)?;
        let forwarding = self.forwarding()?;
        let owner = match shape & EXACT != 0 {
            true => {
                let (vip, port) = vip;
                Owner::Service(ServiceAddress::Vip { vip, port, protocol: protocol_of(protocol)? })
            }
            false => self.owner()?,
        };
        let local = if shape & LOCAL != 0 { Some(self.end(ipv6)?) } else { None };
        let streams = match shape & (HEADED | SPLICED) {
            0 => Streams::Alike,
            HEADED => {
                let (parts, base) = (self.u8()?, self.u32()?);
                let base = (parts & 1 != 0).then_some(base);
                Streams::Headed(Stream::of_parts((base, parts & 2 != 0, parts & 4 != 0)))
            }
            SPLICED => Streams::Spliced(match self.flag()? {
                false => Splice::Opening { cookie: self.u32()?, window: self.u16()? },
                true => {
                    let delta = self.u32()?;
                    let [to_server, to_client] = self.array()?;
                    let to_client = i8::from_be_bytes([to_client]);
                    if to_server > 14 || !(-14..=14).contains(&to_client) {
                        return None;
                    }
                    Splice::Open { delta, to_server, to_client }
                }
            }),
            _ => return None,
        };
        let template = if shape & TEMPLATED != 0 { Some(self.key()?) } else { None };
        let on = |bit: u8| known & bit != 0;
        Some(Connection {
            protocol,
            client,
            vip,
            dest: DestKey { owner, address, port, forwarding },
            local,
            state: State::of(protocol, state),
            flags: Flags {
                no_output: on(NO_OUTPUT),
                controlled: on(CONTROLLED),
                assured: on(ASSURED),
                proxied: on(PROXIED),
                answered: on(ANSWERED),
            },
            left,
            streams,
            template,
            told_ns: 0,
        })
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

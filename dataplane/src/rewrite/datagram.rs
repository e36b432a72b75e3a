//! NAT of a datagram that came in fragments and is all here.
//!
//! What one fragment alone cannot be given, because it is over bytes of others: a UDP checksum that the sender left
//! out, and the CRC of SCTP. IPVS computes both, as it puts fragments together first.

use arrayvec::ArrayVec;

use super::address::Address;
use super::nat::{Translation, changes_port, pseudo, translate_first, translate_fragment};
use crate::fragments::{MAX_PARTS, Resolved};
use crate::io::Packet;
use crate::parse::{L4, parse};
use crate::wire::{checksum, sctp};

/// Where things are in one frame.
struct Part {
    l3: u16,
    /// What it carries of the datagram.
    begin: usize,
    end: usize,
}

/// Gives all fragments of a datagram, in order, other ends, and the first one the ports and checksum that go with it.
///
/// `false`: not all of a datagram of this family and flow; what was translated before that was found out is not taken
/// back, so the datagram must be dropped.
pub fn translate_datagram<A: Address, P: Packet>(
    frames: &mut [P],
    flow: &Resolved,
    to: &Translation<A>,
) -> bool {
    rewrite(frames, flow, to).is_some()
}

fn rewrite<A: Address, P: Packet>(frames: &mut [P], resolved: &Resolved, to: &Translation<A>) -> Option<()> {
    let mut parts = ArrayVec::<Part, MAX_PARTS>::new();
    let (mut total, mut first, mut more) = (0, None, true);
    for frame in frames.iter() {
        let parsed = parse(frame.bytes()).ok()?;
        let part = A::fragment(&parsed.net).filter(|part| usize::from(part.offset) == total && more)?;
        // of IPv6 the first one's transport header may be behind more headers, which are of the datagram too
        let end = usize::from(parsed.l3) + usize::from(part.ip_len);
        parts.try_push(Part { l3: parsed.l3, begin: usize::from(part.l4), end }).ok()?;
        (total, more) = (total + usize::from(part.len), part.more);
        first = first.or(part.head.map(|_| part.flow(resolved.protocol, resolved.ports)));
    }
    let flow = first.filter(|_| !more)?;
    let (head, later) = frames.split_first_mut()?;
    let place = parts.first()?;
    let (l3, l4) = (usize::from(place.l3), place.begin);
    let header = *head.bytes().get(l4..)?.first_chunk::<8>()?;
    let renumbered = flow.protocol == L4::Sctp && changes_port(&flow, to);
    if renumbered {
        // the ports by hand: the CRC follows below
        translate_fragment(head.bytes_mut(), place.l3, to).then_some(())?;
        let ports = head.bytes_mut().get_mut(l4..)?.first_chunk_mut::<4>()?;
        let (src, dst) =
            (to.src.map_or(flow.src_port, |end| end.1), to.dst.map_or(flow.dst_port, |end| end.1));
        ports[..2].copy_from_slice(&src.to_be_bytes());
        ports[2..].copy_from_slice(&dst.to_be_bytes());
    } else {
        translate_first(head.bytes_mut(), place.l3, &flow, to).then_some(())?;
    }
    for (frame, part) in later.iter_mut().zip(parts.iter().skip(1)) {
        translate_fragment(frame.bytes_mut(), part.l3, to).then_some(())?;
    }
    if flow.protocol == L4::Udp && header[6..] == [0, 0] {
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let sum = pseudo::<A>(frames.first()?.bytes(), l3, L4::Udp as u8, len)?;
        let sum = match checksum::finish(payload(frames, &parts, len, sum, checksum::add)?) {
            0 => 0xffff,
            sum => sum,
        };
        put(frames, l4 + 6, &sum.to_be_bytes())?;
    }
    if renumbered {
        put(frames, l4 + 8, &[0; 4])?;
        let crc = !payload(frames, &parts, usize::MAX, !0, sctp::update)?;
        put(frames, l4 + 8, &crc.to_le_bytes())?;
    }
    Some(())
}

/// Takes the first `len` bytes of the datagram, from its transport header on, into a sum.
fn payload<P: Packet, S>(
    frames: &[P],
    parts: &[Part],
    mut len: usize,
    mut sum: S,
    add: impl Fn(S, &[u8]) -> S,
) -> Option<S> {
    for (frame, part) in frames.iter().zip(parts) {
        let end = part.end.min(part.begin.saturating_add(len));
        sum = add(sum, frame.bytes().get(part.begin..end)?);
        len -= end - part.begin;
    }
    Some(sum)
}

/// Writes into the first frame.
fn put<P: Packet>(frames: &mut [P], at: usize, bytes: &[u8]) -> Option<()> {
    frames.first_mut()?.bytes_mut().get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::parse::{Flow, Net};
    use crate::rewrite::{Fragments, translate};
    use crate::wire::samples::{TestPacket, frame};
    use crate::wire::udp::Ports;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
    const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xb, 0, 0, 0, 0, 0, 0x11);

    /// A packet of so many bytes behind its IP header, without DF.
    fn packet(name: &str, payload: usize) -> Vec<u8> {
        let mut bytes = frame(name);
        let l4 = if name.ends_with('4') { 34 } else { 54 };
        bytes.truncate(l4 + 16);
        bytes.resize(l4 + 8, 3);
        bytes.extend((bytes.len() - l4..payload).map(|n| (n / 8 + n) as u8));
        if name == "tcp4" {
            bytes[l4 + 12] = 0x50;
        }
        if name.starts_with("udp") {
            bytes[l4 + 4..l4 + 6].copy_from_slice(&(payload as u16).to_be_bytes());
            bytes[l4 + 6..l4 + 8].fill(0);
        }
        if name.starts_with("sctp") {
            bytes[l4 + 12..l4 + 16].copy_from_slice(&[0, 3, 0, 16]);
        }
        if l4 == 34 {
            bytes[16..18].copy_from_slice(&(20 + payload as u16).to_be_bytes());
            bytes[20] = 0;
            bytes[24..26].fill(0);
            let sum = checksum::finish(checksum::add(0, &bytes[14..34]));
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        } else {
            bytes[18..20].copy_from_slice(&(payload as u16).to_be_bytes());
        }
        bytes
    }

    fn fragments(whole: &[u8], mtu: u16) -> Vec<TestPacket> {
        let cut = Fragments::plan(whole, 14, mtu, 9).expect("a plan");
        let one = |n| {
            let mut out = vec![0; cut.frame_len(n).unwrap()];
            cut.write(whole, n, &mut out).unwrap();
            out.extend([0xee; 3]);
            TestPacket::new(&out)
        };
        (0..cut.count()).map(one).collect()
    }

    fn resolved<A: Copy>(flow: &Flow<A>) -> Resolved {
        Resolved { protocol: flow.protocol, ports: Ports { src: flow.src_port, dst: flow.dst_port } }
    }

    /// Cutting and translating in either order gives the same frames.
    fn commutes<A: Address>(whole: &[u8], flow: &Flow<A>, to: &Translation<A>, mtu: u16) {
        let mut frames = fragments(whole, mtu);
        assert!(translate_datagram(&mut frames, &resolved(flow), to));
        let mut whole = whole.to_vec();
        assert!(translate(&mut whole, 14, flow, to));
        for (n, (got, expected)) in frames.iter().zip(fragments(&whole, mtu)).enumerate() {
            assert_eq!(got.bytes(), expected.bytes(), "fragment {n} of {flow_len}", flow_len = flow.ip_len);
        }
    }

    #[test]
    fn fragments_are_translated_as_the_datagram_is() {
        for name in ["tcp4", "udp4", "sctp4"] {
            for payload in [200, 333, 1001] {
                let whole = packet(name, payload);
                let Net::Flow4(flow) = parse(&whole).unwrap().net else { panic!("{name}") };
                for port in [flow.dst_port, 8080] {
                    let to = Translation { src: None, dst: Some((SERVER, port)) };
                    commutes(&whole, &flow, &to, 100);
                    commutes(&whole, &flow, &Translation { src: Some((SERVER, port)), dst: None }, 124);
                }
            }
        }
        for name in ["udp6", "sctp6"] {
            let whole = packet(name, 999);
            let Net::Flow6(flow) = parse(&whole).unwrap().net else { panic!("{name}") };
            commutes(&whole, &flow, &Translation { src: None, dst: Some((SERVER6, 8080)) }, 200);
        }
    }

    #[test]
    fn what_is_no_whole_datagram_is_refused() {
        let whole = packet("udp4", 300);
        let Net::Flow4(flow) = parse(&whole).unwrap().net else { panic!() };
        let (known, to) = (resolved(&flow), Translation { src: None, dst: Some((SERVER, 8080)) });
        let all = || fragments(&whole, 140);
        assert!(translate_datagram(&mut all(), &known, &to));
        assert!(!translate_datagram(&mut all()[..2], &known, &to));
        assert!(!translate_datagram(&mut all()[1..], &known, &to));
        assert!(!translate_datagram::<Ipv4Addr, TestPacket>(&mut [], &known, &to));
        assert!(!translate_datagram(&mut [TestPacket::new(&whole)], &known, &to));
        let to = Translation { src: None, dst: Some((SERVER6, 8080)) };
        assert!(!translate_datagram(&mut all(), &known, &to), "of the other family");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(flips in proptest::collection::vec((0usize..3, 0usize..80, any::<u8>()), 0..6)) {
            let whole = packet("udp4", 250);
            let Net::Flow4(flow) = parse(&whole).unwrap().net else { panic!() };
            let mut frames = fragments(&whole, 124);
            for (frame, at, value) in flips {
                if let Some(byte) = frames.get_mut(frame).and_then(|frame| frame.bytes_mut().get_mut(at)) {
                    *byte = value;
                }
            }
            let to = Translation { src: None, dst: Some((SERVER, 8080)) };
            translate_datagram(&mut frames, &resolved(&flow), &to);
        }
    }
}

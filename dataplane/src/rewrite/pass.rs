//! Whether a packet may go on: TTL, MTU and DF, in the order in which Linux looks at them.
//!
//! Towards a server IPVS takes one off the TTL and then compares with the MTU, so an error about the size quotes the
//! packet as it would have left (`wire.json`, `mtu-dr`). Towards a client the kernel's forwarding compares first and
//! quotes the packet as it came.

use crate::parse::{Net, Parsed};
use crate::wire::{ipv4, ipv6};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// Inbound: to a real server.
    Server,
    /// Outbound: back to a client.
    Client,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It fits: the TTL is one less.
    Whole,
    /// It is larger than the link takes and may be cut: the TTL is one less. See [`Fragments`](super::Fragments).
    Fragments,
    /// RFC 1812 section 5.3.1: the TTL would run out. Unchanged; answered with time exceeded.
    TtlExpired,
    /// It is larger than the link takes and may not be cut: answered with fragmentation needed or packet too big,
    /// which quotes the frame as it is now. Errors are not answered.
    TooBig {
        /// What fits, bytes of an IP packet.
        mtu: u16,
    },
}

/// The fields that decide.
struct Facts {
    ttl: u8,
    ip_len: u16,
    may_cut: bool,
    is_v4: bool,
}

/// IPv4's DF bit of the header at `l3`.
fn df4(frame: &[u8], l3: usize) -> bool {
    frame.get(l3 + 6).is_some_and(|flags| flags & 0x40 != 0)
}

/// `None`: not IP.
#[inline]
fn facts(frame: &[u8], parsed: &Parsed, towards: Towards) -> Option<Facts> {
    let facts = match &parsed.net {
        Net::Flow4(flow) => Facts { ttl: flow.ttl, ip_len: flow.ip_len, may_cut: !flow.df, is_v4: true },
        Net::Flow6(flow) => Facts { ttl: flow.ttl, ip_len: flow.ip_len, may_cut: false, is_v4: false },
        // IPVS cuts errors on their way to a server whatever their DF says: they may be answered by no error
        Net::Icmp4(icmp) => {
            let may_cut = towards == Towards::Server || !df4(frame, usize::from(parsed.l3));
            Facts { ttl: icmp.ttl, ip_len: icmp.ip_len, may_cut, is_v4: true }
        }
        Net::Fragment4(part) => Facts { ttl: part.ttl, ip_len: part.ip_len, may_cut: !part.df, is_v4: true },
        Net::Fragment6(part) => Facts { ttl: part.ttl, ip_len: part.ip_len, may_cut: false, is_v4: false },
        Net::Icmp6(icmp) => Facts { ttl: icmp.ttl, ip_len: icmp.ip_len, may_cut: false, is_v4: false },
        _ => return None,
    };
    Some(facts)
}

/// Decides whether a packet goes on to a link that takes `limit` bytes, and takes one off its TTL if it does.
///
/// `limit`: the MTU of the next hop; for a tunnel what fits into it, [`Encap::inner_mtu`](super::Encap::inner_mtu).
/// What is not IP is [`Verdict::Whole`]: the caller does not send it on.
#[inline]
pub fn pass(frame: &mut [u8], parsed: &Parsed, limit: u16, towards: Towards) -> Verdict {
    let Some(facts) = facts(frame, parsed, towards) else { return Verdict::Whole };
    if facts.ttl <= 1 {
        return Verdict::TtlExpired;
    }
    let fits = facts.ip_len <= limit;
    let refused = !fits && !facts.may_cut;
    if !(refused && towards == Towards::Client) {
        let l3 = usize::from(parsed.l3);
        if facts.is_v4 {
            ipv4::decrement_ttl4(frame, l3);
        } else {
            ipv6::decrement_hop_limit6(frame, l3);
        }
    }
    match (fits, refused) {
        (true, _) => Verdict::Whole,
        (false, true) => Verdict::TooBig { mtu: limit },
        (false, false) => Verdict::Fragments,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::wire::samples::frame;

    /// The verdict and how far the TTL went down.
    fn passed(name: &str, change: impl Fn(&mut Vec<u8>), limit: u16, towards: Towards) -> (Verdict, u8) {
        let mut bytes = frame(name);
        let parsed = parse(&bytes).unwrap();
        change(&mut bytes);
        let at = if bytes[12..14] == [0x08, 0] { 22 } else { 21 };
        let before = bytes[at];
        let verdict = pass(&mut bytes, &parsed, limit, towards);
        assert!(parse(&bytes).is_ok(), "{name}: the header checksum is right");
        (verdict, before - bytes[at])
    }

    #[test]
    fn a_packet_as_large_as_the_link_takes_passes_and_one_more_byte_does_not() {
        for towards in [Towards::Server, Towards::Client] {
            assert_eq!(passed("tcp4", |_| (), 40, towards), (Verdict::Whole, 1));
            assert_eq!(passed("tcp6", |_| (), 64, towards), (Verdict::Whole, 1));
            let taken = u8::from(towards == Towards::Server);
            assert_eq!(passed("tcp4", |_| (), 39, towards), (Verdict::TooBig { mtu: 39 }, taken));
            assert_eq!(passed("tcp6", |_| (), 63, towards), (Verdict::TooBig { mtu: 63 }, taken));
        }
    }

    #[test]
    fn without_df_the_packet_is_cut() {
        let mut bytes = frame("tcp4");
        bytes[20] = 0;
        bytes[24] += 0x40;
        let parsed = parse(&bytes).unwrap();
        assert_eq!(pass(&mut bytes, &parsed, 39, Towards::Server), Verdict::Fragments);
        assert_eq!(bytes[22], 63);
    }

    #[test]
    fn errors_to_a_server_are_cut_whatever_df_says_and_those_to_a_client_only_without_it() {
        let df = |bytes: &mut Vec<u8>| {
            bytes[20] = 0x40;
            bytes[24] = 0x7d;
        };
        assert_eq!(passed("error4", df, 60, Towards::Server), (Verdict::Fragments, 1));
        assert_eq!(passed("error4", df, 60, Towards::Client), (Verdict::TooBig { mtu: 60 }, 0));
        assert_eq!(passed("error4", |_| (), 60, Towards::Client), (Verdict::Fragments, 1));
        assert_eq!(passed("error6", |_| (), 60, Towards::Server), (Verdict::TooBig { mtu: 60 }, 1));
    }

    #[test]
    fn a_ttl_that_would_run_out_comes_before_the_size() {
        for (name, at, sum) in [("tcp4", 22, Some(24)), ("tcp6", 21, None)] {
            for ttl in [0, 1] {
                let mut bytes = frame(name);
                if let Some(sum) = sum {
                    // one's complement: the sum grows by what the TTL loses
                    bytes[sum] = bytes[sum].wrapping_add(bytes[at] - ttl);
                }
                bytes[at] = ttl;
                let parsed = parse(&bytes).unwrap();
                let before = bytes.clone();
                assert_eq!(pass(&mut bytes, &parsed, 20, Towards::Server), Verdict::TtlExpired);
                assert_eq!(bytes, before);
            }
        }
    }

    #[test]
    fn what_is_not_ip_is_left_alone() {
        let mut bytes = frame("arp");
        let (parsed, before) = (parse(&bytes).unwrap(), bytes.clone());
        assert_eq!(pass(&mut bytes, &parsed, 1, Towards::Server), Verdict::Whole);
        assert_eq!(bytes, before);
    }
}

//! NAT of ICMP errors: they find the connection by the packet that they quote, which is translated with them.

use super::address::{Address, Delta};
use super::nat::{Translation, addresses};
use crate::parse::{Icmp, L4};
use crate::wire::{checksum, icmp, ipv4, ipv6};

/// What the addresses of an ICMP error become; `None` stays as it is.
///
/// The quoted packet went the other way: an error from a router on the client's side (inbound) quotes what the
/// server's reply became, so its source turns from the virtual address back to the server's, as the error's own
/// destination does. An error on its way out comes from the virtual address, whichever router sent it, as in IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorTranslation<A> {
    /// New source address of the error.
    pub src: Option<A>,
    /// New destination address of the error.
    pub dst: Option<A>,
    /// New ends of the quoted packet.
    pub quoted: Translation<A>,
}

/// Offset of the quoted packet's transport header from the start of its IP header. `None`: it is not quoted.
fn quoted_l4<A: Address>(quote: &[u8]) -> Option<usize> {
    let header_len = match A::CHECKSUM {
        Some(_) => ipv4::parse_quoted(quote)?.0.header_len,
        None => ipv6::parse_quoted(quote)?.0.header_len,
    };
    Some(usize::from(header_len))
}

fn rewrite<A: Address>(frame: &mut [u8], l3: usize, error: &Icmp<A>, to: &ErrorTranslation<A>) -> Option<()> {
    let l4 = usize::from(error.l4);
    let (quote, end) = (l4 + icmp::HEADER_LEN, l3 + usize::from(error.ip_len));
    let ports = quote + quoted_l4::<A>(frame.get(quote..end)?)?;
    // before the first write: afterwards there is no way back
    frame.get(ports..ports + 4).filter(|_| ports + 4 <= end)?;
    let outer = addresses(frame, l3, to.src, to.dst)?;
    // RFC 4443 section 2.3: the pseudo header is part of it; RFC 792 knows none
    let mut delta = if A::CHECKSUM.is_some() { Delta::default() } else { outer };
    let Translation { src, dst } = to.quoted;
    if let Some((address, port)) = src {
        delta.replace(frame, quote + A::SRC, address.wire().as_ref())?;
        delta.replace16(frame, ports, port)?;
    }
    if let Some((address, port)) = dst {
        delta.replace(frame, quote + A::DST, address.wire().as_ref())?;
        delta.replace16(frame, ports + 2, port)?;
    }
    if let Some(at) = A::CHECKSUM {
        // computed anew, as IPVS does: routers on the way may have broken it
        let header = frame.get_mut(quote..ports)?;
        let old = header.get(at..)?.first_chunk::<2>().copied()?;
        header.get_mut(at..at + 2)?.fill(0);
        let sum = checksum::finish(checksum::add(0, header));
        header.get_mut(at..at + 2)?.copy_from_slice(&old);
        delta.replace16(frame, quote + at, sum)?;
    }
    delta.apply(frame, l4 + 2).map(|_| ())
}

/// Gives an ICMP error, whose IP header is at `l3`, other addresses, and the packet that it quotes other ends.
///
/// The quoted transport checksum stays as it is, as in IPVS: often it is not even quoted. `false`: no connection's
/// packet is quoted (`error.inner` is `None`), unchanged.
pub fn translate_error<A: Address>(
    frame: &mut [u8],
    l3: u16,
    error: &Icmp<A>,
    to: &ErrorTranslation<A>,
) -> bool {
    error.inner.is_some() && rewrite(frame, usize::from(l3), error, to).is_some()
}

/// Replaces the TCP sequence number in the packet that an ICMP error quotes by what `to` makes of it; the error's IP
/// header is at `l3`. `false`: no connection's packet is quoted, or not that far, unchanged.
pub fn renumber_error<A: Address>(
    frame: &mut [u8],
    l3: u16,
    error: &Icmp<A>,
    to: impl Fn(u32) -> u32,
) -> bool {
    error.inner.is_some_and(|inner| inner.protocol == L4::Tcp)
        && renumber(frame, usize::from(l3), error, to).is_some()
}

fn renumber<A: Address>(frame: &mut [u8], l3: usize, error: &Icmp<A>, to: impl Fn(u32) -> u32) -> Option<()> {
    let l4 = usize::from(error.l4);
    let (quote, end) = (l4 + icmp::HEADER_LEN, l3 + usize::from(error.ip_len));
    let at = quote + quoted_l4::<A>(frame.get(quote..end)?)? + 4;
    let number = u32::from_be_bytes(*frame.get(at..end)?.first_chunk::<4>()?);
    let mut delta = Delta::default();
    delta.replace(frame, at, &to(number).to_be_bytes())?;
    delta.apply(frame, l4 + 2).map(|_| ())
}

/// Gives an echo request or reply, whose IP header is at `l3`, other addresses, and `id` as its identifier, by which
/// the pings of several hosts behind one address are told apart (RFC 3022 section 2.2).
///
/// `false`: another message, or cut short; unchanged.
pub fn translate_echo<A: Address>(
    frame: &mut [u8],
    l3: u16,
    echo: &Icmp<A>,
    (src, dst): (Option<A>, Option<A>),
    id: Option<u16>,
) -> bool {
    let kinds = match A::CHECKSUM {
        Some(_) => [icmp::ECHO_REQUEST4, icmp::ECHO_REPLY4],
        None => [icmp::ECHO_REQUEST6, icmp::ECHO_REPLY6],
    };
    let (l3, l4) = (usize::from(l3), usize::from(echo.l4));
    if !kinds.contains(&echo.kind)
        || frame.len() < l4 + icmp::HEADER_LEN
        || l4 < l3 + A::DST + (A::DST - A::SRC)
    {
        return false;
    }
    let Some(outer) = addresses(frame, l3, src, dst) else { return false };
    let mut delta = if A::CHECKSUM.is_some() { Delta::default() } else { outer };
    id.is_none_or(|id| delta.replace16(frame, l4 + 4, id).is_some()) && delta.apply(frame, l4 + 2).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Net, parse};
    use crate::wire::samples::frame;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn an_error_and_its_quote_are_translated_and_stay_valid() {
        let mut bytes = frame("error4");
        let Net::Icmp4(error) = parse(&bytes).unwrap().net else { panic!() };
        let (server, router) = (Ipv4Addr::new(10, 1, 0, 11), Ipv4Addr::new(10, 9, 9, 9));
        let quoted = Translation { src: Some((server, 8080)), dst: Some((router, 7)) };
        let to = ErrorTranslation { src: Some(router), dst: Some(server), quoted };
        assert!(translate_error(&mut bytes, 14, &error, &to));
        let Net::Icmp4(after) = parse(&bytes).unwrap().net else { panic!() };
        let inner = after.inner.unwrap();
        assert_eq!((after.src, after.dst, inner.src, inner.dst), (router, server, server, router));
        assert_eq!((inner.src_port, inner.dst_port), (8080, 7));
        assert_eq!(checksum::fold(checksum::add(0, &bytes[42..62])), 0xffff, "the quoted header's checksum");
    }

    #[test]
    fn a_quote_that_ends_before_the_ports_is_left_alone() {
        let mut bytes = frame("error4");
        let Net::Icmp4(error) = parse(&bytes).unwrap().net else { panic!() };
        let to =
            ErrorTranslation { src: Some(Ipv4Addr::LOCALHOST), dst: None, quoted: Translation::default() };
        for ip_len in 0..52 {
            let before = bytes.clone();
            assert!(!translate_error(&mut bytes, 14, &Icmp { ip_len, ..error }, &to));
            assert_eq!(bytes, before);
        }
        assert!(!translate_error(&mut bytes, 14, &Icmp { inner: None, ..error }, &to));
    }

    #[test]
    fn an_echo_gets_other_addresses_and_an_identifier() {
        let (own, private) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(10, 9, 0, 7));
        let mut bytes = frame("echo4");
        let Net::Icmp4(echo) = parse(&bytes).unwrap().net else { panic!() };
        assert!(translate_echo(&mut bytes, 14, &echo, (Some(own), None), Some(0xbeef)));
        let Net::Icmp4(after) = parse(&bytes).expect("right checksums").net else { panic!() };
        assert_eq!((after.src, after.dst, &bytes[38..40]), (own, echo.dst, &[0xbe, 0xef][..]));
        assert!(translate_echo(&mut bytes, 14, &after, (Some(echo.src), None), Some(1)));
        assert_eq!(bytes, frame("echo4"));
        assert!(translate_echo(&mut bytes, 14, &echo, (None, Some(private)), None));
        assert_eq!((&bytes[30..34], &bytes[34..]), (&private.octets()[..], &frame("echo4")[34..]));

        let mut bytes = frame("echo6");
        let Net::Icmp6(echo) = parse(&bytes).unwrap().net else { panic!() };
        assert!(translate_echo(
            &mut bytes,
            14,
            &echo,
            (Some(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 9)), None),
            Some(7)
        ));
        assert!(parse(&bytes).is_ok(), "its checksum is over the addresses too");

        let mut bytes = frame("error4");
        let Net::Icmp4(error) = parse(&bytes).unwrap().net else { panic!() };
        assert!(!translate_echo(&mut bytes, 14, &error, (Some(own), None), Some(7)));
        let Net::Icmp4(echo) = parse(&frame("echo4")).unwrap().net else { panic!() };
        for len in 0..42 {
            let mut short = frame("echo4")[..len].to_vec();
            assert!(!translate_echo(&mut short, 14, &echo, (Some(own), None), Some(7)));
            assert_eq!(short, frame("echo4")[..len]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_translated_or_left_alone(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..160),
            l4 in 0u16..100,
            ip_len in 0u16..160,
            six in any::<bool>(),
        ) {
            if let Some(version) = bytes.get_mut(usize::from(l4) + 8) {
                *version = if six { 0x60 } else { 0x45 };
            }
            if six {
                let Net::Icmp6(error) = parse(&frame("error6")).unwrap().net else { panic!() };
                let to = Translation { src: Some((Ipv6Addr::LOCALHOST, 1)), dst: None };
                let to = ErrorTranslation { src: None, dst: Some(Ipv6Addr::LOCALHOST), quoted: to };
                translate_error(&mut bytes, 14, &Icmp { l4, ip_len, ..error }, &to);
            } else {
                let Net::Icmp4(error) = parse(&frame("error4")).unwrap().net else { panic!() };
                let to = Translation { src: Some((Ipv4Addr::LOCALHOST, 1)), dst: None };
                let to = ErrorTranslation { src: None, dst: Some(Ipv4Addr::LOCALHOST), quoted: to };
                translate_error(&mut bytes, 14, &Icmp { l4, ip_len, ..error }, &to);
            }
        }
    }
}

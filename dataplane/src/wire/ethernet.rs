//! Ethernet II (IEEE 802.3) with at most one 802.1Q tag.

use super::vlan;
use crate::DropReason;

/// A station's address.
pub type Mac = [u8; 6];

/// Length of an untagged Ethernet header, bytes.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4 (IANA IEEE 802 numbers).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP (IANA IEEE 802 numbers).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6 (IANA IEEE 802 numbers).
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// All stations.
pub const BROADCAST: Mac = [0xff; 6];

/// The director's side of a link, as every frame of its own needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The director's address on it.
    pub mac: Mac,
    /// VLAN that frames are tagged with, 1 to 4094; 0: untagged.
    pub vlan: u16,
}

/// Whether frames to `mac` go to several stations (IEEE 802: the group bit).
#[inline]
pub fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}

/// Whether a single station can have this address.
#[inline]
pub fn is_station(mac: &Mac) -> bool {
    !is_group(mac) && *mac != [0; 6]
}

/// Destination of a frame, `None` when it is too short to have one.
#[inline]
pub fn destination(frame: &[u8]) -> Option<Mac> {
    frame.first_chunk::<6>().copied()
}

/// Source of a frame, `None` when it is too short to have one.
#[inline]
pub fn source(frame: &[u8]) -> Option<Mac> {
    frame.get(6..)?.first_chunk::<6>().copied()
}

/// What stands before the IP or ARP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// VLAN identifier; 0: untagged or priority-tagged.
    pub vlan: u16,
    /// EtherType behind the tag.
    pub ethertype: u16,
    /// Offset of the next header, bytes: 14 or 18.
    pub l3: u16,
}

/// Reads the Ethernet header and its tag.
///
/// Errors: [`DropReason::EthernetTruncated`], [`DropReason::VlanTruncated`].
#[inline(always)]
pub fn parse(frame: &[u8]) -> Result<Ethernet, DropReason> {
    let header = frame.first_chunk::<HEADER_LEN>().ok_or(DropReason::EthernetTruncated)?;
    let ethertype = u16::from_be_bytes([header[12], header[13]]);
    if ethertype != vlan::TPID {
        return Ok(Ethernet { vlan: 0, ethertype, l3: HEADER_LEN as u16 });
    }
    let tagged = frame.first_chunk::<{ HEADER_LEN + vlan::TAG_LEN }>().ok_or(DropReason::VlanTruncated)?;
    Ok(Ethernet {
        vlan: u16::from_be_bytes([tagged[14], tagged[15]]) & vlan::VID_MASK,
        ethertype: u16::from_be_bytes([tagged[16], tagged[17]]),
        l3: (HEADER_LEN + vlan::TAG_LEN) as u16,
    })
}

/// Length of the header that [`emit`] writes for `vlan`, bytes.
#[inline]
pub fn header_len(vlan: u16) -> usize {
    if vlan == 0 { HEADER_LEN } else { HEADER_LEN + vlan::TAG_LEN }
}

/// Writes a header from `link` to `dst` and gives the bytes behind it; `None`: `frame` is too short for it.
pub fn emit<'a>(frame: &'a mut [u8], link: &Link, dst: Mac, ethertype: u16) -> Option<&'a mut [u8]> {
    let (header, payload) = frame.split_at_mut_checked(header_len(link.vlan))?;
    let (addresses, rest) = header.split_first_chunk_mut::<12>()?;
    addresses[..6].copy_from_slice(&dst);
    addresses[6..].copy_from_slice(&link.mac);
    if link.vlan != 0 {
        rest.first_chunk_mut::<4>()?.copy_from_slice(&vlan::tag(link.vlan));
    }
    rest.last_chunk_mut::<2>()?.copy_from_slice(&ethertype.to_be_bytes());
    Some(payload)
}

/// Sends a frame on: from `src` to `dst`. `false`: no Ethernet header, unchanged.
#[inline]
pub fn rewrite_macs(frame: &mut [u8], dst: Mac, src: Mac) -> bool {
    let Some(addresses) = frame.first_chunk_mut::<12>() else { return false };
    addresses[..6].copy_from_slice(&dst);
    addresses[6..].copy_from_slice(&src);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const DST: Mac = [2, 0, 0, 0, 1, 0x0b];
    const SRC: Mac = [2, 0, 0, 0, 0, 0xfe];

    #[test]
    fn an_emitted_header_parses_back_for_every_kind_of_vlan() {
        for vlan in [0, 1, 100, 4094] {
            let mut frame = [0; 40];
            let rest = emit(&mut frame, &Link { mac: SRC, vlan }, DST, ETHERTYPE_IPV6).unwrap().len();
            let l3 = header_len(vlan) as u16;
            assert_eq!(rest, 40 - usize::from(l3));
            assert_eq!(parse(&frame), Ok(Ethernet { vlan, ethertype: ETHERTYPE_IPV6, l3 }));
            assert_eq!((destination(&frame), source(&frame)), (Some(DST), Some(SRC)));
        }
    }

    #[test]
    fn a_priority_tag_is_no_vlan() {
        let mut frame = [0; 18];
        frame[12..].copy_from_slice(&[0x81, 0x00, 0xe0, 0x00, 0x08, 0x00]);
        assert_eq!(parse(&frame), Ok(Ethernet { vlan: 0, ethertype: ETHERTYPE_IPV4, l3: 18 }));
    }

    #[test]
    fn a_header_or_tag_cut_short_is_refused_at_every_length() {
        let mut frame = [0; 18];
        frame[12..14].copy_from_slice(&[0x81, 0x00]);
        for len in 0..18 {
            let reason = if len < 14 { DropReason::EthernetTruncated } else { DropReason::VlanTruncated };
            assert_eq!(parse(&frame[..len]), Err(reason));
        }
    }

    #[test]
    fn rewriting_touches_the_addresses_alone() {
        let mut frame = [7; 20];
        assert!(rewrite_macs(&mut frame, DST, SRC));
        assert_eq!(frame, *[&DST[..], &SRC, &[7; 8]].concat());
        assert!(!rewrite_macs(&mut [0; 11], DST, SRC));
    }

    #[test]
    fn no_frame_is_emitted_into_too_little_room() {
        for len in 0..18 {
            assert!(emit(&mut vec![0; len], &Link { mac: SRC, vlan: 5 }, DST, ETHERTYPE_ARP).is_none());
        }
    }
}

//! IEEE 802.1Q tags: inserted, removed and changed in place.

use super::ethernet;
use crate::io::Packet;

/// EtherType that announces a tag (IEEE 802.1Q table 9-1: customer VLAN tag).
pub const TPID: u16 = 0x8100;
/// Length of a tag, bytes.
pub const TAG_LEN: usize = 4;
/// The bits of the tag that hold the VLAN identifier; above them are priority and DEI.
pub const VID_MASK: u16 = 0x0fff;

/// The bytes of a tag with priority 0.
#[inline]
pub(super) fn tag(vlan: u16) -> [u8; TAG_LEN] {
    let [a, b] = TPID.to_be_bytes();
    let [c, d] = (vlan & VID_MASK).to_be_bytes();
    [a, b, c, d]
}

/// Makes a frame tagged with `vlan`, or untagged for 0, whatever it was before; a tag that stays keeps its priority.
///
/// `false`: no Ethernet header, or no room in front for a tag; the frame is unchanged. Afterwards the IP header
/// starts at [`ethernet::header_len`]`(vlan)`. Cost: moves 12 bytes when a tag comes or goes.
pub fn set_vlan<P: Packet>(packet: &mut P, vlan: u16) -> bool {
    let Ok(before) = ethernet::parse(packet.bytes()) else { return false };
    let is_tagged = usize::from(before.l3) > ethernet::HEADER_LEN;
    match (is_tagged, vlan != 0) {
        (false, false) => true,
        (true, true) => {
            let Some(tci) = packet.bytes_mut().get_mut(14..16) else { return false };
            tci[0] = tci[0] & 0xf0 | (vlan >> 8) as u8 & 0x0f;
            tci[1] = vlan as u8;
            true
        }
        (false, true) => {
            if !packet.grow_front(TAG_LEN) {
                return false;
            }
            let frame = packet.bytes_mut();
            frame.copy_within(TAG_LEN..TAG_LEN + 12, 0);
            frame[12..16].copy_from_slice(&tag(vlan));
            true
        }
        (true, false) => {
            // the addresses move over the tag while it is still part of the frame
            packet.bytes_mut().copy_within(..12, TAG_LEN);
            packet.shrink_front(TAG_LEN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::TestPacket;
    use super::*;

    const UNTAGGED: [u8; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x00, 0x45, 0, 0, 1, 2, 3];

    fn tagged(tci: [u8; 2]) -> Vec<u8> {
        [&UNTAGGED[..12], &[0x81, 0x00], &tci, &UNTAGGED[12..]].concat()
    }

    #[track_caller]
    fn check(before: &[u8], vlan: u16, after: &[u8]) {
        let mut packet = TestPacket::new(before);
        assert!(set_vlan(&mut packet, vlan));
        assert_eq!(packet.bytes(), after);
        assert_eq!(ethernet::parse(packet.bytes()).unwrap().l3 as usize, ethernet::header_len(vlan));
    }

    #[test]
    fn a_tag_is_inserted_changed_and_removed() {
        check(&UNTAGGED, 0, &UNTAGGED);
        check(&UNTAGGED, 0x123, &tagged([0x01, 0x23]));
        check(&tagged([0x01, 0x23]), 0, &UNTAGGED);
        check(&tagged([0x01, 0x23]), 0xfed, &tagged([0x0f, 0xed]));
    }

    #[test]
    fn a_tag_that_stays_keeps_its_priority_and_a_priority_tag_goes_with_vlan_0() {
        check(&tagged([0xb1, 0x23]), 7, &tagged([0xb0, 0x07]));
        check(&tagged([0xe0, 0x00]), 7, &tagged([0xe0, 0x07]));
        check(&tagged([0xe0, 0x00]), 0, &UNTAGGED);
    }

    #[test]
    fn without_headroom_or_header_the_frame_is_unchanged() {
        let mut packet = TestPacket::with_headroom(&UNTAGGED, 3);
        assert!(!set_vlan(&mut packet, 5));
        assert_eq!(packet.bytes(), UNTAGGED);
        for len in 0..14 {
            assert!(!set_vlan(&mut TestPacket::new(&UNTAGGED[..len]), 5));
        }
        for len in 14..18 {
            assert!(!set_vlan(&mut TestPacket::new(&tagged([0, 1])[..len]), 5), "tag cut short");
        }
    }
}

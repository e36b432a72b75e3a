//! A glance at frames of IPv4, and of IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::calm::{TCP4, TCP6, UDP4, UDP6, is_calm_tcp, is_right_udp, window};
use super::words::{HEAD4, HEAD6, be16, is_sum_right, key4, key6, raw32, raw64, sum, transport};
use super::{Batch, Looks, Noted, Plain, Row};
use crate::conn::simd::Level;
use crate::conn::{ConnKey, Key4, Key6, Prober};
use crate::drop_reason::DropReason;
use crate::express::{Board, Kind, Seen};
use crate::io::BURST;
use crate::parse::{Flow, Net};
use crate::wire::{checksum, ethernet, ipv4, ipv6};

impl Plain for Key4 {
    const KIND: Kind = Kind::V4;
    const L4_AT: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
    const HEAD: usize = HEAD4;
    const BAD_SOURCE: DropReason = DropReason::Ipv4Source;

    #[inline(always)]
    fn looks(to: u64) -> Option<Looks> {
        Looks::new(to, &TCP4, &UDP4)
    }

    #[inline(always)]
    fn note_calm<L: Level>(
        level: L,
        frame: &[u8],
        looks: &Looks,
        row: &mut Row<Self>,
        prober: &Prober<'_, Self>,
    ) -> bool {
        const BEFORE: u32 = ipv4::HEADER_LEN as u32;
        let Some(head) = frame.first_chunk::<HEAD4>() else { return false };
        let (ip_len, room) = (u32::from(be16(head, 16)), (frame.len() - Self::L4_AT) as u32);
        let len = ip_len.wrapping_sub(BEFORE);
        // read before the window, else the compiler takes these words out of that, in four steps
        let (first, middle) = (raw64(head, 14), raw32(head, 22));
        let lives = middle as u8 > 1;
        let is_right = || lives && checksum::is_multiple(sum(first, middle, raw64(head, 26)));
        // twice the same, but for what is constant in it
        if level.matches(window(head), &looks.tcp) {
            let calm = is_right() && is_calm_tcp(head, Self::L4_AT, len, room);
            if calm {
                row.note(key4(head), Noted::CALM_TCP, ip_len, prober);
            }
            calm
        } else if level.matches(window(head), &looks.udp) {
            let calm = is_right() && is_right_udp(head, Self::L4_AT, len, room);
            if calm {
                row.note(key4(head), Noted::CALM_UDP, ip_len, prober);
            }
            calm
        } else {
            false
        }
    }

    #[inline(always)]
    fn glance(frame: &[u8]) -> Option<(Self, Noted)> {
        let head = frame.first_chunk::<HEAD4>()?;
        let ip_len = be16(head, 16);
        if be16(head, 20) & 0x3fff != 0
            || !is_sum_right(head)
            || usize::from(ip_len) + ethernet::HEADER_LEN > frame.len()
        {
            return None;
        }
        let rest = i32::from(ip_len) - ipv4::HEADER_LEN as i32;
        let noted = transport(head, Self::L4_AT, (head[23], head[22]), ip_len, rest)?;
        Some((key4(head), noted))
    }

    #[inline]
    fn may_send(&self) -> bool {
        ipv4::is_source(self.client())
    }

    #[inline(always)]
    fn batch(board: &Board) -> &Batch<Self> {
        &board.v4
    }

    #[inline(always)]
    fn batch_mut(board: &mut Board) -> (&mut [Kind; BURST], &mut Batch<Self>) {
        (&mut board.kinds, &mut board.v4)
    }

    #[inline(always)]
    fn count(seen: &mut Seen) -> &mut usize {
        &mut seen.v4
    }

    #[inline]
    fn ttl_and_df(frame: &[u8]) -> (u8, bool) {
        frame.first_chunk::<HEAD4>().map_or((0, false), |head| (head[22], head[20] & 0x40 != 0))
    }

    #[inline]
    fn net(flow: Flow<Ipv4Addr>) -> Net {
        Net::Flow4(flow)
    }
}

impl Plain for Key6 {
    const KIND: Kind = Kind::V6;
    const L4_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
    const HEAD: usize = HEAD6;
    const BAD_SOURCE: DropReason = DropReason::Ipv6Source;

    #[inline(always)]
    fn looks(to: u64) -> Option<Looks> {
        Looks::new(to, &TCP6, &UDP6)
    }

    #[inline(always)]
    fn note_calm<L: Level>(
        level: L,
        frame: &[u8],
        looks: &Looks,
        row: &mut Row<Self>,
        prober: &Prober<'_, Self>,
    ) -> bool {
        const BEFORE: u32 = ipv6::HEADER_LEN as u32;
        let Some(head) = frame.first_chunk::<HEAD6>() else { return false };
        let (len, room) = (u32::from(be16(head, 18)), (frame.len() - Self::L4_AT) as u32);
        // read before the window, as above
        let lives = head[21] > 1;
        if len > u32::from(u16::MAX) - BEFORE {
            return false;
        }
        if level.matches(window(head), &looks.tcp) {
            let calm = lives && is_calm_tcp(head, Self::L4_AT, len, room);
            if calm {
                row.note(key6(head), Noted::CALM_TCP, len + BEFORE, prober);
            }
            calm
        } else if level.matches(window(head), &looks.udp) {
            let calm = lives && is_right_udp(head, Self::L4_AT, len, room);
            if calm {
                row.note(key6(head), Noted::CALM_UDP, len + BEFORE, prober);
            }
            calm
        } else {
            false
        }
    }

    #[inline(always)]
    fn glance(frame: &[u8]) -> Option<(Self, Noted)> {
        let head = frame.first_chunk::<HEAD6>()?;
        let room = be16(head, 18);
        let ip_len = room.checked_add(ipv6::HEADER_LEN as u16)?;
        if usize::from(ip_len) + ethernet::HEADER_LEN > frame.len() {
            return None;
        }
        let noted = transport(head, Self::L4_AT, (head[20], head[21]), ip_len, room.into())?;
        Some((key6(head), noted))
    }

    #[inline]
    fn may_send(&self) -> bool {
        let client = self.client();
        !client.is_unspecified() && ipv6::is_source(client)
    }

    #[inline(always)]
    fn batch(board: &Board) -> &Batch<Self> {
        &board.v6
    }

    #[inline(always)]
    fn batch_mut(board: &mut Board) -> (&mut [Kind; BURST], &mut Batch<Self>) {
        (&mut board.kinds, &mut board.v6)
    }

    #[inline(always)]
    fn count(seen: &mut Seen) -> &mut usize {
        &mut seen.v6
    }

    #[inline]
    fn ttl_and_df(frame: &[u8]) -> (u8, bool) {
        (frame.first_chunk::<HEAD6>().map_or(0, |head| head[21]), true)
    }

    #[inline]
    fn net(flow: Flow<Ipv6Addr>) -> Net {
        Net::Flow6(flow)
    }
}

//! What is kept of a plain packet beside its key.

use crate::parse::L4;
use crate::state::{Event, tcp};
use crate::wire::{PROTOCOL_TCP, PROTOCOL_UDP};

/// What a glance says of a plain packet beside its key.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Whole IP packet, bytes.
    pub ip_len: u16,
    /// TCP's or UDP's.
    pub number: u8,
    pub event: Event,
    /// Nothing but its connection decides about it: its TTL suffices, it begins no connection.
    pub steady: bool,
    /// Its tuple may be that of a server's reply.
    pub reply: bool,
}

impl Facts {
    #[inline(always)]
    pub fn protocol(&self) -> L4 {
        if self.number == PROTOCOL_UDP { L4::Udp } else { L4::Tcp }
    }
}

/// [`Facts`] as they are kept.
///
/// The lower half is the length, at most 65,535. Of the upper one, `what`, bits 0-7 are the protocol, 8-15 the event, then
/// steady, calm, reply: all of it can be compared at once. Calm is what is steady and leaves an established connection as
/// it is: UDP, or TCP of which the ACK alone counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub(crate) struct Noted {
    ip_len: u32,
    what: u32,
}

impl Noted {
    const EVENT: u32 = 8;
    pub(super) const STEADY: u32 = 1 << 16;
    pub(super) const CALM: u32 = 1 << 17;
    const REPLY: u32 = 1 << 18;
    /// What calm packets of TCP and UDP are.
    pub(super) const CALM_TCP: u32 =
        PROTOCOL_TCP as u32 | (tcp::ACK.number() as u32) << Self::EVENT | Self::STEADY | Self::CALM;
    pub(super) const CALM_UDP: u32 = PROTOCOL_UDP as u32 | Self::STEADY | Self::CALM;

    /// `flags`: of those above.
    #[inline(always)]
    pub(super) fn new(ip_len: u16, number: u8, event: Event, flags: u32) -> Self {
        Self::of(u32::from(number) | u32::from(event.number()) << Self::EVENT | flags, ip_len.into())
    }

    /// `ip_len`: at most 65,535.
    #[inline(always)]
    pub(super) const fn of(what: u32, ip_len: u32) -> Self {
        Self { ip_len, what }
    }

    #[inline(always)]
    pub fn number(self) -> u8 {
        self.what() as u8
    }

    #[inline(always)]
    pub fn ip_len(self) -> u32 {
        self.ip_len
    }

    /// All but the length.
    #[inline(always)]
    pub fn what(self) -> u32 {
        self.what
    }

    /// The length, where all else is as `other` says; more than any length where it is not.
    #[inline(always)]
    pub fn ip_len_like(self, other: Bare) -> u64 {
        (u64::from(self.what) << 32 | u64::from(self.ip_len)).wrapping_sub(other.0)
    }

    /// All but the length.
    #[inline(always)]
    pub fn bare(self) -> Bare {
        Bare(u64::from(self.what) << 32)
    }

    /// Whether it is a calm TCP segment that is not taken for a reply.
    #[inline(always)]
    pub fn is_calm_tcp(self) -> bool {
        self.what() == Self::CALM_TCP
    }

    /// The same of a UDP datagram.
    #[inline(always)]
    pub fn is_calm_udp(self) -> bool {
        self.what() == Self::CALM_UDP
    }

    /// Whether it is steady and leaves an established connection as it is.
    #[inline(always)]
    pub fn is_calm(self) -> bool {
        self.what() & Self::CALM != 0
    }

    #[inline(always)]
    pub fn is_reply(self) -> bool {
        self.what() & Self::REPLY != 0
    }

    #[inline(always)]
    pub fn set_reply(&mut self) {
        self.what |= Self::REPLY;
    }

    #[inline(always)]
    pub fn facts(self) -> Facts {
        let has = |flag| self.what() & flag != 0;
        Facts {
            ip_len: self.ip_len() as u16,
            number: self.number(),
            event: Event::of_number((self.what() >> Self::EVENT) as u8),
            steady: has(Self::STEADY),
            reply: has(Self::REPLY),
        }
    }
}

/// A [`Noted`] without its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare(u64);

//! What the table keeps of a connection beside its key: eight bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ids::DestId;
use crate::state::State;
use crate::wire::PROTOCOL_UDP;

/// Time in the table's unit: 1/16 s, modulo 2^20 (18 h 12 min).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    /// Ticks a second.
    pub const PER_SECOND: u64 = 16;
    /// Longest timeout, ticks: 18 h. The rest of the circle (12 min) is the time that the sweep has to find an
    /// entry whose deadline has passed.
    pub const MAX_TIMEOUT: u32 = 18 * 3600 * Self::PER_SECOND as u32;
    const BITS: u32 = 20;
    const MASK: u32 = (1 << Self::BITS) - 1;

    /// From nanoseconds since any fixed point.
    #[inline]
    pub fn from_ns(ns: u64) -> Self {
        Self((ns / (1_000_000_000 / Self::PER_SECOND)) as u32 & Self::MASK)
    }

    /// `timeout` ticks later; a timeout above [`Tick::MAX_TIMEOUT`] counts as that.
    #[inline]
    pub fn after(self, timeout: u32) -> Self {
        Self((self.0 + timeout.min(Self::MAX_TIMEOUT)) & Self::MASK)
    }

    /// [`Tick::after`] of a timeout that is known not to be above [`Tick::MAX_TIMEOUT`].
    #[inline(always)]
    pub(crate) fn later(self, timeout: u32) -> Self {
        Self((self.0 + timeout) & Self::MASK)
    }

    /// Ticks from `now` to `self`, or `None` when it has passed.
    #[inline]
    pub fn left(self, now: Tick) -> Option<u32> {
        let left = self.0.wrapping_sub(now.0) & Self::MASK;
        (left <= Self::MAX_TIMEOUT && left != 0).then_some(left)
    }

    /// Whether it has passed: [`Tick::left`] has none.
    #[inline]
    pub fn is_over(self, now: Tick) -> bool {
        (self.0.wrapping_sub(now.0) & Self::MASK).wrapping_sub(1) >= Self::MAX_TIMEOUT
    }
}

/// State of a connection, packed in a word. The zero word is an empty slot.
///
/// | bits | what |
/// |---|---|
/// | 0-19 | deadline, [`Tick`] |
/// | 20-23 | [`State`], its four bits |
/// | 24-31 | protocol, IANA number; tells whose state it is. 0 marks the empty slot |
/// | 32-55 | destination |
/// | 56 | counted as active at its destination |
/// | 58 | its server was chosen by a persistence template, whose child it is |
/// | 59 | the template knows that it was established |
/// | 60 | its server is told of its client by a PROXY header, see [`Stream`](super::Stream) |
/// | 61 | another packet than the first was seen |
/// | 62 | the director did its handshake in the server's place, see [`Splice`](super::Splice) |
/// | 57 | no packet of the server was seen yet, see [`Direction`](crate::state::Direction) |
/// | 63 | another director told of it, and no packet of it was seen here, see [`crate::sync`] |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Meta(u64);

impl Meta {
    const STATE: u32 = 20;
    const PROTOCOL: u32 = 24;
    const DEST: u32 = 32;
    const ACTIVE: u32 = 56;
    const NO_OUTPUT: u32 = 57;
    const CONTROLLED: u32 = 58;
    const ASSURED: u32 = 59;
    const PROXIED: u32 = 60;
    const HEARD: u32 = 61;
    const SPLICED: u32 = 62;
    const FOREIGN: u32 = 63;
    /// The same of a pair, whose upper half is a sequence number.
    const PAIR_PROXIED: u64 = 1 << 1;
    /// No connection.
    pub const EMPTY: Self = Self(0);
    /// Number of destinations that an entry can tell apart.
    pub const MAX_DESTS: u32 = 1 << 24;

    /// A new connection: not yet active, as IPVS creates it.
    #[inline]
    pub fn new(protocol: u8, dest: DestId, state: State, deadline: Tick) -> Self {
        debug_assert!(dest.0 < Self::MAX_DESTS && protocol != 0);
        Self(
            u64::from(deadline.0)
                | u64::from(state.bits()) << Self::STATE
                | u64::from(protocol) << Self::PROTOCOL
                | u64::from(dest.0) << Self::DEST,
        )
    }

    /// What a pair has in place of an entry: it lives as long as its connection, so it has neither state nor time.
    /// `number`: its protocol, or what stands for it, not 0.
    #[inline]
    pub fn of_pair(number: u8) -> Self {
        Self(u64::from(number) << Self::PROTOCOL)
    }

    /// Of a pair: whether the server has answered beyond its SYN.
    #[inline]
    pub fn answered(self) -> bool {
        self.0 & 1 != 0
    }

    /// The same pair with this in place of [`Meta::answered`].
    #[inline]
    pub fn with_answered(self) -> Self {
        Self(self.0 | 1)
    }

    /// Of a pair: whether the server is told of its client by a PROXY header.
    #[inline]
    pub fn is_pair_proxied(self) -> bool {
        self.0 & Self::PAIR_PROXIED != 0
    }

    /// The same pair with [`Meta::is_pair_proxied`].
    #[inline]
    pub fn with_pair_proxied(self) -> Self {
        Self(self.0 | Self::PAIR_PROXIED)
    }

    /// All of it.
    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// What [`Meta::word`] gave.
    #[inline]
    pub(super) fn of_word(word: u64) -> Self {
        Self(word)
    }

    /// Whether the slot holds no connection.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Protocol, IANA number.
    #[inline]
    pub fn protocol(self) -> u8 {
        (self.0 >> Self::PROTOCOL) as u8
    }

    /// Destination.
    #[inline]
    pub fn dest(self) -> DestId {
        DestId((self.0 >> Self::DEST) as u32 & (Self::MAX_DESTS - 1))
    }

    /// State of the protocol.
    #[inline]
    pub fn state(self) -> State {
        State::of(self.protocol(), (self.0 >> Self::STATE) as u8)
    }

    /// Deadline.
    #[inline]
    pub fn deadline(self) -> Tick {
        Tick(self.0 as u32 & Tick::MASK)
    }

    /// Whether the destination counts it as active.
    #[inline]
    pub fn active(self) -> bool {
        self.0 >> Self::ACTIVE & 1 != 0
    }

    /// Whether it stops to count as active while no packet comes, rather than with one: UDP, whose packets do not tell.
    #[inline]
    pub fn may_rest(self) -> bool {
        const UDP: u64 = 1 << Meta::ACTIVE | (PROTOCOL_UDP as u64) << Meta::PROTOCOL;
        self.0 & (1 << Self::ACTIVE | 0xff << Self::PROTOCOL) == UDP
    }

    /// Whether no packet of the server was seen yet; what [`Direction::of`](crate::state::Direction::of) goes by.
    #[inline]
    pub fn no_output(self) -> bool {
        self.0 >> Self::NO_OUTPUT & 1 != 0
    }

    /// The same connection with this in place of [`Meta::no_output`].
    #[inline]
    pub fn with_no_output(self, no_output: bool) -> Self {
        Self(self.0 & !(1 << Self::NO_OUTPUT) | u64::from(no_output) << Self::NO_OUTPUT)
    }

    /// Whether it counts as the child of a persistence template (IPVS: `cp->control`).
    #[inline]
    pub fn controlled(self) -> bool {
        self.0 >> Self::CONTROLLED & 1 != 0
    }

    /// The same connection as a template's child.
    #[inline]
    pub fn with_controlled(self) -> Self {
        Self(self.0 | 1 << Self::CONTROLLED)
    }

    /// Whether its template was told that it was established.
    #[inline]
    pub fn assured(self) -> bool {
        self.0 >> Self::ASSURED & 1 != 0
    }

    /// The same connection after its template was told.
    #[inline]
    pub fn with_assured(self) -> Self {
        Self(self.0 | 1 << Self::ASSURED)
    }

    /// Whether its server is told of its client by a PROXY header.
    #[inline]
    pub fn is_proxied(self) -> bool {
        self.0 >> Self::PROXIED & 1 != 0
    }

    /// The same connection with [`Meta::is_proxied`].
    #[inline]
    pub fn with_proxied(self) -> Self {
        Self(self.0 | 1 << Self::PROXIED)
    }

    /// Whether the connection, of `state`'s protocol, is in that state and its template has been told all that there is.
    #[inline(always)]
    pub fn is_settled(self, state: State) -> bool {
        const CONTROLLED: u64 = 1 << Meta::CONTROLLED;
        const ASSURED: u64 = 1 << Meta::ASSURED;
        let wanted = u64::from(state.bits()) << Self::STATE;
        self.0 & (15 << Self::STATE | CONTROLLED) == wanted
            || self.0 & (15 << Self::STATE | CONTROLLED | ASSURED) == wanted | CONTROLLED | ASSURED
    }

    /// Whether two entries of one connection are in the same state, and [heard](Meta::heard) or not.
    #[inline(always)]
    pub fn is_as(self, other: Self) -> bool {
        (self.0 ^ other.0) & (15 << Self::STATE | 1 << Self::HEARD) == 0
    }

    /// The same connection with another deadline.
    #[inline(always)]
    pub fn with_deadline(self, deadline: Tick) -> Self {
        Self(self.0 & !u64::from(Tick::MASK) | u64::from(deadline.0))
    }

    /// Whether another packet than the first was seen.
    #[inline]
    pub fn heard(self) -> bool {
        self.0 >> Self::HEARD & 1 != 0
    }

    /// The same connection with [`Meta::heard`], this director's own from then on.
    #[inline]
    pub fn with_heard(self) -> Self {
        Self(self.0 & !(1 << Self::FOREIGN) | 1 << Self::HEARD)
    }

    /// Whether another director told of it, and no packet of it was seen here.
    #[inline]
    pub fn is_foreign(self) -> bool {
        self.0 >> Self::FOREIGN & 1 != 0
    }

    /// The same connection as another director's: not [heard](Meta::heard), so that its first packet here takes the way
    /// of those that change something.
    #[inline]
    pub fn with_foreign(self) -> Self {
        Self(self.0 & !(1 << Self::HEARD) | 1 << Self::FOREIGN)
    }

    /// Whether the director did its handshake in the server's place.
    #[inline]
    pub fn is_spliced(self) -> bool {
        self.0 >> Self::SPLICED & 1 != 0
    }

    /// The same connection with [`Meta::is_spliced`].
    #[inline]
    pub fn with_spliced(self) -> Self {
        Self(self.0 | 1 << Self::SPLICED)
    }

    /// A connection of nothing but its protocol, in this state, after another packet than the first; for
    /// [`Meta::differs`].
    #[inline]
    pub(crate) fn settled(protocol: u8, state: State, active: bool, deadline: Tick) -> Self {
        Self::new(protocol, DestId(0), state, deadline).after_packet(state, active, deadline).with_heard()
    }

    /// The bits in which it is not as a [settled](Meta::settled) one after its packet, beside those of which a client's
    /// packet by direct routing takes no notice.
    #[inline(always)]
    pub(crate) fn differs(self, after: Self) -> u64 {
        const NO_MATTER: u64 = (Meta::MAX_DESTS as u64 - 1) << Meta::DEST | 1 << Meta::NO_OUTPUT;
        (self.0 ^ after.0) & !NO_MATTER
    }

    /// What `after` is for connections such as this one: a template's child of which the template has been told is as
    /// any. `None`: more than its deadline changes.
    #[inline]
    pub(crate) fn like(self, after: Self) -> Option<Self> {
        const ASSURED: u64 = 1 << Meta::ASSURED;
        const TOLD: u64 = 1 << Meta::CONTROLLED | ASSURED;
        let rest = self.differs(after) & !u64::from(Tick::MASK);
        matches!(rest, 0 | ASSURED | TOLD).then_some(Self(after.0 ^ rest))
    }

    /// It after its packet, where [`Meta::differs`] has told bits; `None`: more than its deadline changes, or it has
    /// passed.
    #[inline(always)]
    pub(crate) fn put_off(self, differs: u64, now: Tick) -> Option<Self> {
        let more = differs & !u64::from(Tick::MASK) != 0;
        (!more && !self.deadline().is_over(now)).then_some(Self(self.0 ^ differs))
    }

    /// It after its packet, which leaves it as `after` is but for what [`Meta::like`] overlooks; `None`: more than its
    /// deadline changes, or it has passed.
    #[inline]
    pub(crate) fn renewed(self, after: Self, now: Tick) -> Option<Self> {
        let after = self.like(after)?;
        self.put_off(self.differs(after), now)
    }

    /// The same connection after a packet.
    #[inline]
    pub fn after_packet(self, state: State, active: bool, deadline: Tick) -> Self {
        const CHANGING: u64 = 1 << Meta::ACTIVE | 15 << Meta::STATE | Tick::MASK as u64;
        Self(
            self.0 & !CHANGING
                | u64::from(deadline.0)
                | u64::from(state.bits()) << Self::STATE
                | u64::from(active) << Self::ACTIVE,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_deadline_counts_down_and_passes() {
        let now = Tick::from_ns(5_000_000_000);
        let deadline = now.after(16 * 3);
        assert_eq!(deadline.left(now), Some(48));
        assert_eq!(deadline.left(Tick::from_ns(7_000_000_000)), Some(16));
        assert_eq!(deadline.left(Tick::from_ns(8_000_000_000)), None);
        assert_eq!(deadline.left(Tick::from_ns(600_000_000_000)), None);
    }

    proptest! {
        #[test]
        fn deadlines_work_across_the_end_of_the_circle(start in 0u64..200_000, timeout in 1u32..=Tick::MAX_TIMEOUT, late in 0u64..700) {
            let at = |s: u64| Tick::from_ns(s * 1_000_000_000);
            let deadline = at(start).after(timeout);
            prop_assert_eq!(deadline.left(at(start)), Some(timeout));
            prop_assert!(!deadline.is_over(at(start)));
            let past = start + u64::from(timeout).div_ceil(16) + late;
            prop_assert_eq!(deadline.left(at(past)), None);
            prop_assert!(deadline.is_over(at(past)));
        }

        #[test]
        fn an_entry_gives_back_what_it_was_made_of(dest in 0..Meta::MAX_DESTS, protocol in 1u8.., tick: u64, active: bool, no_output: bool, bits in 0u8..16) {
            let deadline = Tick::from_ns(tick);
            let meta = Meta::new(protocol, DestId(dest), State::of(protocol, 0), deadline);
            prop_assert!(!meta.is_empty() && !meta.active() && !meta.no_output());
            let state = State::of(protocol, bits);
            let after = meta.with_no_output(no_output).after_packet(state, active, deadline.after(16));
            prop_assert_eq!((after.dest(), after.protocol(), after.state()), (DestId(dest), protocol, state));
            prop_assert_eq!((after.no_output(), after.with_no_output(false)), (no_output, meta.after_packet(state, active, deadline.after(16))));
            prop_assert_eq!((after.active(), after.deadline()), (active, deadline.after(16)));
        }
    }
}

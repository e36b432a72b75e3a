//! Who makes room in a full table.
//!
//! | class | states | what its loss costs |
//! |---|---|---|
//! | closed | TIME_WAIT, CLOSE, LAST_ACK; SCTP: rejected, closed | a repeated FIN meets a reset |
//! | embryonic | handshake under way | the client begins again |
//! | one-way | UDP, or ping by source NAT, of which one packet was seen | its next packet is scheduled anew |
//! | closing | FIN_WAIT, CLOSE_WAIT; SCTP: shutting down | what one side still sends is lost |
//!
//! They go in this order, within a class the one first that would end soonest. Whatever else there is, established
//! connections above all, is never evicted. With direct routing FIN_WAIT says only that the client closed: the server
//! may still send, so these go last.

use crate::conn::{ConnKey, Meta, Tick};
use crate::state::State;
use crate::wire::{PROTOCOL_SCTP, PROTOCOL_TCP};

/// Connections that may make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Over.
    Closed,
    /// Not yet established.
    Embryonic,
    /// UDP, of which nothing but its first packet was seen.
    OneWay,
    /// One side has closed.
    Closing,
}

impl Class {
    /// Every class, in the order in which they go.
    pub const ALL: [Class; 4] = [Class::Closed, Class::Embryonic, Class::OneWay, Class::Closing];

    /// Name in `lbctl`.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Closed => "closed",
            Class::Embryonic => "embryonic",
            Class::OneWay => "one-way",
            Class::Closing => "closing",
        }
    }
}

/// Whether a handshake is under way.
#[inline]
pub fn is_embryonic(meta: Meta) -> bool {
    matches!(meta.protocol(), PROTOCOL_TCP | PROTOCOL_SCTP)
        && matches!(
            meta.state(),
            State::None
                | State::SynSent
                | State::SynRecv
                | State::SynAck
                | State::Listen
                | State::SctpNone
                | State::SctpInit1
                | State::SctpInit
                | State::SctpCookieSent
                | State::SctpCookieReplied
                | State::SctpCookieWait
                | State::SctpCookie
                | State::SctpCookieEchoed
        )
}

/// The class of a connection; `None`: it stays.
pub fn class(meta: Meta) -> Option<Class> {
    if is_embryonic(meta) {
        return Some(Class::Embryonic);
    }
    match meta.state() {
        State::Established | State::SctpEstablished => None,
        State::TimeWait | State::Close | State::LastAck | State::SctpRejected | State::SctpClosed => {
            Some(Class::Closed)
        }
        State::FinWait
        | State::CloseWait
        | State::SctpShutdownSent
        | State::SctpShutdownReceived
        | State::SctpShutdownAckSent => Some(Class::Closing),
        // UDP, and ping by source NAT
        _ => (!meta.heard() && !meta.is_foreign()).then_some(Class::OneWay),
    }
}

/// How dispensable a connection is, the more the higher; `None`: it stays.
pub fn rank(meta: Meta, now: Tick) -> Option<u8> {
    let class = class(meta)?;
    // two seconds a step, as far as five bits go
    let left = meta.deadline().left(now).map_or(0, |left| (left >> 5).min(31)) as u8;
    Some((3 - class as u8) << 5 | (31 - left))
}

/// [`rank`] as a table asks for it.
pub(crate) fn ranking<K: ConnKey>(now: Tick) -> impl Fn(&K, Meta) -> Option<u8> + Copy {
    move |_, meta| rank(meta, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DestId;
    use crate::wire::{PROTOCOL_ICMP, PROTOCOL_UDP};

    fn meta(state: State, left: u32) -> Meta {
        let protocol = match state as u8 >> 4 {
            1 => PROTOCOL_UDP,
            2 => PROTOCOL_SCTP,
            _ => PROTOCOL_TCP,
        };
        Meta::new(protocol, DestId(1), state, Tick::from_ns(0).after(left))
    }

    #[test]
    fn the_dispensable_go_by_class_and_age_and_the_established_never() {
        let rank = |state, left| super::rank(meta(state, left), Tick::from_ns(0));
        let order = [
            (State::TimeWait, 16),
            (State::Close, 160),
            (State::TimeWait, 1920),
            (State::SynRecv, 16),
            (State::SynRecv, 900),
            (State::Udp, 160),
            (State::Udp, 4800),
            (State::FinWait, 16),
            (State::CloseWait, 900),
        ];
        let ranks = order.map(|(state, left)| rank(state, left).expect("dispensable"));
        assert!(ranks.windows(2).all(|pair| pair[0] > pair[1]), "{ranks:?}");
        assert_eq!(rank(State::Established, 1), None);
        assert_eq!(rank(State::SctpEstablished, 1), None);
        assert_eq!(super::rank(meta(State::Udp, 16).with_heard(), Tick::from_ns(0)), None);
        let ping = Meta::new(PROTOCOL_ICMP, DestId(1), State::None, Tick::from_ns(0).after(16));
        assert!(!is_embryonic(ping));
        assert_eq!([class(ping), class(ping.with_heard())], [Some(Class::OneWay), None]);
    }
}

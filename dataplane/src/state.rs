//! The state of a connection, followed by peeking at its packets.
//!
//! Names, transitions and default timeouts are those of IPVS (Linux 6.1, `ip_vs_proto_tcp.c`), because its users
//! read them in `-lnc`. With direct routing the director sees the client's packets alone, so the table is IPVS's
//! INPUT-ONLY one. TCP options, sequence numbers and windows are not looked at.

use lb_config::{ServiceTimeouts, Timeouts};

use crate::conn::entry::Tick;

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Before the first packet has been judged.
    None = 0,
    /// Data flows.
    Established = 1,
    /// The server's SYN alone was seen; not reached in one-directional flows.
    SynSent = 2,
    /// The client's SYN was seen.
    SynRecv = 3,
    /// One side closed.
    FinWait = 4,
    /// Both sides closed.
    TimeWait = 5,
    /// Reset, or a packet without any flag.
    Close = 6,
    /// The server closed first; not reached in one-directional flows.
    CloseWait = 7,
    /// Waiting for the last ACK; not reached in one-directional flows.
    LastAck = 8,
    /// Kept for the numbering.
    Listen = 9,
    /// Handshake under `secure_tcp`; kept for the numbering.
    SynAck = 10,
    /// A UDP flow.
    Udp = 11,
}

impl State {
    /// Number of values that four bits hold.
    pub const SLOTS: usize = 16;

    /// The state with this number; numbers that have no state count as [`State::None`].
    #[inline]
    pub fn from_bits(bits: u8) -> Self {
        const BY_NUMBER: [State; State::SLOTS] = [
            State::None,
            State::Established,
            State::SynSent,
            State::SynRecv,
            State::FinWait,
            State::TimeWait,
            State::Close,
            State::CloseWait,
            State::LastAck,
            State::Listen,
            State::SynAck,
            State::Udp,
            State::None,
            State::None,
            State::None,
            State::None,
        ];
        BY_NUMBER[usize::from(bits & 15)]
    }

    /// Whether a connection in this state counts as active. UDP never does, as in IPVS.
    #[inline]
    pub fn is_active(self) -> bool {
        matches!(self, State::Established | State::SynSent | State::SynRecv | State::SynAck)
    }

    /// Name as `ipvsadm -Lnc` prints it.
    pub fn name(self) -> &'static str {
        match self {
            State::None => "NONE",
            State::Established => "ESTABLISHED",
            State::SynSent => "SYN_SENT",
            State::SynRecv => "SYN_RECV",
            State::FinWait => "FIN_WAIT",
            State::TimeWait => "TIME_WAIT",
            State::Close => "CLOSE",
            State::CloseWait => "CLOSE_WAIT",
            State::LastAck => "LAST_ACK",
            State::Listen => "LISTEN",
            State::SynAck => "SYNACK",
            State::Udp => "UDP",
        }
    }
}

/// TCP flags in their places in the header's flag byte (RFC 9293 section 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// What a TCP packet means to the state machine; RST, SYN, FIN, ACK count in this order (IPVS: `tcp_state_idx`).
#[derive(Clone, Copy)]
enum Event {
    Syn,
    Fin,
    Ack,
    Rst,
}

#[inline]
fn event(flags: u8) -> Option<Event> {
    if flags & flag::RST != 0 {
        Some(Event::Rst)
    } else if flags & flag::SYN != 0 {
        Some(Event::Syn)
    } else if flags & flag::FIN != 0 {
        Some(Event::Fin)
    } else if flags & flag::ACK != 0 {
        Some(Event::Ack)
    } else {
        None
    }
}

/// State after a client's TCP packet, in a flow of which only the client's side is seen.
///
/// Source: IPVS, `tcp_states`, INPUT-ONLY; a packet without flags leads to CLOSE.
#[inline]
pub fn tcp_input_only(state: State, flags: u8) -> State {
    use State::{
        Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
        None as NO, SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
    };
    const TABLE: [[State; State::SLOTS]; 4] = [
        /*       NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA */
        /* syn */
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR, NO, NO, NO, NO, NO],
        /* fin */ [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW, NO, NO, NO, NO, NO],
        /* ack */ [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES, NO, NO, NO, NO, NO],
        /* rst */ [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL, NO, NO, NO, NO, NO],
    ];
    const _: State = SA;
    match event(flags) {
        Some(event) => TABLE[event as usize][state as usize & (State::SLOTS - 1)],
        None => CL,
    }
}

/// Whether a TCP packet may open a connection (IPVS without `sloppy_tcp`: SYN and not RST).
#[inline]
pub fn opens_tcp(flags: u8) -> bool {
    flags & (flag::SYN | flag::RST) == flag::SYN
}

/// Timeout of every state, ticks, by [`State`]'s number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutTable([u32; State::SLOTS]);

impl TimeoutTable {
    /// The director's timeouts with a service's own in place of them.
    pub fn new(director: &Timeouts, service: &ServiceTimeouts) -> Self {
        let ticks = |d: std::time::Duration| {
            let ticks = (d.as_nanos() * u128::from(Tick::PER_SECOND)).div_ceil(1_000_000_000);
            u32::try_from(ticks).unwrap_or(u32::MAX).clamp(1, Tick::MAX_TIMEOUT)
        };
        // IPVS: NONE 2 s. The states that a one-directional flow does not reach have no setting and stay at it
        let mut table = [2 * Tick::PER_SECOND as u32; State::SLOTS];
        let mut set = |state: State, timeout| table[state as usize] = ticks(timeout);
        set(State::Established, service.tcp_established.unwrap_or(director.tcp_established));
        set(State::SynRecv, service.tcp_syn_recv.unwrap_or(director.tcp_syn_recv));
        set(State::FinWait, service.tcp_fin_wait.unwrap_or(director.tcp_fin_wait));
        set(State::TimeWait, director.tcp_time_wait);
        set(State::Close, director.tcp_close);
        set(State::Udp, service.udp.unwrap_or(director.udp));
        Self(table)
    }

    /// Timeout of `state`, ticks.
    #[inline]
    pub fn of(&self, state: State) -> u32 {
        self.0[state as usize & (State::SLOTS - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_sided_life_goes_through_the_states_of_ipvs() {
        let mut state = State::None;
        for (flags, next) in [
            (flag::SYN, State::SynRecv),
            (flag::SYN, State::SynRecv),
            (flag::ACK, State::Established),
            (flag::ACK, State::Established),
            (flag::FIN | flag::ACK, State::FinWait),
            (flag::ACK, State::FinWait),
            (flag::SYN, State::SynRecv),
            (flag::RST, State::SynRecv),
            (flag::ACK, State::Established),
            (flag::RST | flag::ACK, State::Close),
            (0, State::Close),
        ] {
            state = tcp_input_only(state, flags);
            assert_eq!(state, next, "after flags {flags:#04x}");
        }
    }

    #[test]
    fn only_a_syn_without_rst_opens() {
        assert!(opens_tcp(flag::SYN) && opens_tcp(flag::SYN | flag::ACK) && opens_tcp(flag::SYN | flag::FIN));
        assert!(!opens_tcp(flag::ACK) && !opens_tcp(flag::SYN | flag::RST) && !opens_tcp(0));
    }

    #[test]
    fn every_state_survives_its_four_bits() {
        for bits in 0..12 {
            assert_eq!(State::from_bits(bits) as u8, bits);
        }
    }
}

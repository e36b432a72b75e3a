//! The state of a connection, followed by peeking at its packets.
//!
//! States, events, transitions and default timeouts are those of IPVS (Linux 6.1: `ip_vs_proto_tcp.c`,
//! `ip_vs_proto_udp.c`, `ip_vs_proto_sctp.c`), because its users read them in `-lnc` and its schedulers count by
//! them. [`tcp`] and [`sctp`] hold the tables, [`udp`] says why it has none, [`timeouts`] how long a state lasts. TCP
//! options, sequence numbers and windows are not looked at.

use crate::wire::{L4, PROTOCOL_SCTP, PROTOCOL_UDP};

pub mod sctp;
pub mod tcp;
pub mod timeouts;
pub mod udp;

pub use timeouts::TimeoutTable;

/// State of a connection: of TCP unless the name says otherwise.
///
/// The number's upper half tells the protocol, its lower half is what a connection's entry keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Before the first packet has been judged.
    None = 0,
    /// Data flows.
    Established = 1,
    /// The server's SYN came before the client's.
    SynSent = 2,
    /// The client's SYN was seen.
    SynRecv = 3,
    /// The server closed (or, where the client alone is seen, the client).
    FinWait = 4,
    /// Both sides closed.
    TimeWait = 5,
    /// Reset, or a packet without any flag.
    Close = 6,
    /// The client closed first.
    CloseWait = 7,
    /// No packet leads here; kept for the numbering.
    LastAck = 8,
    /// No packet leads here; kept for the numbering.
    Listen = 9,
    /// Handshake under `secure_tcp`.
    SynAck = 10,
    /// A UDP flow.
    Udp = 0x10,
    /// SCTP: before the first packet has been judged.
    SctpNone = 0x20,
    /// SCTP: the client's INIT was seen.
    SctpInit1 = 0x21,
    /// SCTP: the client's INIT was seen again.
    SctpInit = 0x22,
    /// SCTP: the server answered with INIT ACK, and with it a cookie.
    SctpCookieSent = 0x23,
    /// SCTP: the client gave the cookie back.
    SctpCookieReplied = 0x24,
    /// SCTP: the server opens, the client has not answered.
    SctpCookieWait = 0x25,
    /// SCTP: the server opens, the client answered with a cookie.
    SctpCookie = 0x26,
    /// SCTP: the server opens and gave the cookie back.
    SctpCookieEchoed = 0x27,
    /// SCTP: data flows.
    SctpEstablished = 0x28,
    /// SCTP: the server shuts down.
    SctpShutdownSent = 0x29,
    /// SCTP: the client shuts down.
    SctpShutdownReceived = 0x2a,
    /// SCTP: the server agreed to the shutdown.
    SctpShutdownAckSent = 0x2b,
    /// SCTP: aborted during the handshake.
    SctpRejected = 0x2c,
    /// SCTP: over.
    SctpClosed = 0x2d,
}

/// Connection states that a packet's direction and kind lead to, by the present state's lower half.
type Row = [State; State::SLOTS];

/// A row of a table; bits that are no state lead to `none`.
const fn row<const N: usize>(none: State, states: [State; N]) -> Row {
    let mut row = [none; State::SLOTS];
    let mut at = 0;
    while at < N {
        row[at] = states[at];
        at += 1;
    }
    row
}

impl State {
    /// Number of values that the four bits in an entry hold.
    pub const SLOTS: usize = 16;

    /// Every state, in the order of the numbers.
    pub const ALL: [State; 26] = [
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
        State::SctpNone,
        State::SctpInit1,
        State::SctpInit,
        State::SctpCookieSent,
        State::SctpCookieReplied,
        State::SctpCookieWait,
        State::SctpCookie,
        State::SctpCookieEchoed,
        State::SctpEstablished,
        State::SctpShutdownSent,
        State::SctpShutdownReceived,
        State::SctpShutdownAckSent,
        State::SctpRejected,
        State::SctpClosed,
    ];

    /// Of a protocol (IANA number), the state with these four bits; bits without a state count as its first one.
    ///
    /// Protocols that have no states of their own count as TCP: IPVS keeps templates of several protocols in NONE.
    #[inline]
    pub fn of(protocol: u8, bits: u8) -> Self {
        const TCP: Row = filled(State::None, 0);
        const SCTP: Row = filled(State::SctpNone, 12);
        match protocol {
            PROTOCOL_UDP => State::Udp,
            PROTOCOL_SCTP => SCTP[usize::from(bits & 15)],
            _ => TCP[usize::from(bits & 15)],
        }
    }

    /// The four bits that an entry keeps beside the protocol; [`State::of`] reads them.
    #[inline]
    pub fn bits(self) -> u8 {
        self as u8 & 15
    }

    /// The state of a connection before its first packet.
    #[inline]
    pub fn initial(protocol: L4) -> Self {
        Self::of(protocol as u8, 0)
    }

    /// Whether a connection in this state counts as active at its server. UDP's never does here, as in IPVS: its state
    /// does not tell; see [`TimeoutTable::is_active`].
    ///
    /// Source: IPVS, `tcp_state_active_table` and `set_sctp_state`.
    #[inline]
    pub fn is_active(self) -> bool {
        matches!(
            self,
            State::Established | State::SynSent | State::SynRecv | State::SynAck | State::SctpEstablished
        )
    }

    /// Whether a packet that [is the first](Event::is_new) of a connection replaces one in this state.
    ///
    /// `reuse_mode`: IPVS's `conn_reuse_mode`, 0: never; bit 1 (value 2) adds what is in FIN_WAIT while `no_output`,
    /// when the server's side is not seen. Source: IPVS, `is_new_conn_expected`.
    #[inline]
    pub fn is_over(self, no_output: bool, reuse_mode: u8) -> bool {
        match self {
            State::TimeWait | State::Close | State::SctpClosed => reuse_mode != 0,
            State::FinWait => reuse_mode & 2 != 0 && no_output,
            _ => false,
        }
    }

    /// Whether either side has begun to end the connection, or it never came about: a first packet on its ports is of a
    /// new one. An SCTP association that shuts down answers such a packet itself (RFC 9260 section 9.2).
    #[inline]
    pub fn is_closing(self) -> bool {
        matches!(
            self,
            State::FinWait
                | State::TimeWait
                | State::Close
                | State::CloseWait
                | State::LastAck
                | State::SctpRejected
                | State::SctpClosed
        )
    }

    /// Name as `ipvsadm -Lnc` prints it.
    pub fn name(self) -> &'static str {
        match self {
            State::None | State::SctpNone => "NONE",
            State::Established | State::SctpEstablished => "ESTABLISHED",
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
            State::SctpInit1 => "INIT1",
            State::SctpInit => "INIT",
            State::SctpCookieSent => "C-SENT",
            State::SctpCookieReplied => "C-REPLIED",
            State::SctpCookieWait => "C-WAIT",
            State::SctpCookie => "COOKIE",
            State::SctpCookieEchoed => "C-ECHOED",
            State::SctpShutdownSent => "S-SENT",
            State::SctpShutdownReceived => "S-RECEIVED",
            State::SctpShutdownAckSent => "S-ACK-SENT",
            State::SctpRejected => "REJECTED",
            State::SctpClosed => "CLOSED",
        }
    }
}

/// The states of one protocol by their bits, from `ALL[from]`, which is `first`, on; the rest is `first`.
const fn filled(first: State, from: usize) -> Row {
    let mut row = [first; State::SLOTS];
    let mut at = from;
    while at < State::ALL.len() {
        let number = State::ALL[at] as usize;
        if number >> 4 == first as usize >> 4 {
            row[number & 15] = State::ALL[at];
        }
        at += 1;
    }
    row
}

/// Which way a packet goes, as far as the tables care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the client, and the server's packets are seen too.
    Input = 0,
    /// From the server.
    Output = 1,
    /// From the client, and no packet of the server was seen: direct routing, tunnels, a local server.
    InputOnly = 2,
}

impl Direction {
    /// Of a packet: `outbound`, from the server; `no_output`, no packet of the server was seen until now, which the
    /// first one ends (IPVS: `IP_VS_CONN_F_NOOUTPUT`, set unless the forwarding is NAT).
    #[inline]
    pub fn of(outbound: bool, no_output: &mut bool) -> Self {
        match (outbound, *no_output) {
            (true, _) => {
                *no_output = false;
                Direction::Output
            }
            (false, true) => Direction::InputOnly,
            (false, false) => Direction::Input,
        }
    }
}

/// What a packet means to the state machine of its protocol: the number of a row in its table, and whether a new connection begins with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event(u8);

impl Event {
    /// Marks what begins a connection.
    const NEW: u8 = 0x10;

    /// Whether the packet is the first of a connection: TCP's SYN, also with RST, or SCTP's INIT.
    ///
    /// For a known connection it asks [`State::is_over`]; a new one asks [`opens`], which an RST may not pass.
    /// Source: IPVS, `is_new_conn`.
    #[inline]
    pub fn is_new(self) -> bool {
        self.0 & Self::NEW != 0
    }

    /// As a number, for [`Event::of_number`].
    #[inline(always)]
    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    /// What [`Event::number`] gave.
    #[inline(always)]
    pub(crate) const fn of_number(number: u8) -> Self {
        Self(number)
    }

    /// Row in a table of so many.
    #[inline]
    fn row(self, rows: usize) -> usize {
        usize::from(self.0 & (Self::NEW - 1)).min(rows - 1)
    }
}

/// What a packet means. `detail`: TCP's flag byte, the deciding SCTP chunk's type (see [`crate::wire::sctp`]).
#[inline]
pub fn event(protocol: L4, detail: u8) -> Event {
    match protocol {
        L4::Tcp => tcp::event(detail),
        L4::Udp => Event(0),
        L4::Sctp => sctp::event(detail),
    }
}

/// Whether a packet may open a connection.
///
/// `sloppy`: IPVS's `sloppy_tcp` or `sloppy_sctp`, all but a reset may. Without it TCP wants a SYN (with ACK or FIN
/// as well, not with RST), SCTP an INIT.
#[inline]
pub fn opens(protocol: L4, event: Event, sloppy: bool) -> bool {
    match protocol {
        L4::Tcp => event == tcp::SYN || sloppy && event != tcp::RST && event != tcp::SYN_RST,
        L4::Udp => true,
        L4::Sctp => event == sctp::INIT || sloppy && event != sctp::ABORT,
    }
}

/// What the first packet of a connection means.
#[inline]
pub fn first(protocol: L4) -> Event {
    match protocol {
        L4::Tcp => tcp::SYN,
        L4::Udp => Event(0),
        L4::Sctp => sctp::INIT,
    }
}

/// Whether a packet other than the first shows that its sender takes part in a connection that is not ending.
#[inline]
pub fn confirms(protocol: L4, event: Event) -> bool {
    match protocol {
        L4::Tcp => event == tcp::ACK,
        L4::Udp => true,
        L4::Sctp => event != sctp::ABORT,
    }
}

/// The state after a packet.
///
/// `state` must be of `protocol` (another one counts as the state with the same bits); `dos`: IPVS's `secure_tcp` is
/// in force, TCP alone knows it.
#[inline]
pub fn advance(protocol: L4, state: State, direction: Direction, event: Event, dos: bool) -> State {
    match protocol {
        L4::Tcp => tcp::next(state, direction, event, dos),
        L4::Udp => udp::next(),
        L4::Sctp => sctp::next(state, direction, event),
    }
}

#[cfg(test)]
mod tests;

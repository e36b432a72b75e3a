//! The states of TCP.
//!
//! Source: IPVS, `tcp_states`, `tcp_states_dos` and `tcp_state_idx`; confirmed by recordings of every transition
//! that a packet can reach.

use super::{Direction, Event, Row, State};
use State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI, None as NO,
    SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
};

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

/// Opens a connection.
pub const SYN: Event = Event(Event::NEW);
/// Ends one side.
pub const FIN: Event = Event(1);
/// All else that has ACK.
pub const ACK: Event = Event(2);
/// Aborts.
pub const RST: Event = Event(3);
/// RST that says to open a connection as well.
pub const SYN_RST: Event = Event(Event::NEW | RST.0);
/// None of these flags: leads to CLOSE from everywhere.
pub const NO_FLAG: Event = Event(4);

/// Number of events.
const EVENTS: usize = 5;

/// By the flag byte's five low bits; RST counts before SYN, SYN before FIN, FIN before ACK.
const EVENT: [Event; 32] = {
    let mut events = [NO_FLAG; 32];
    let mut flags = 0;
    while flags < 32 {
        let bits = flags as u8;
        events[flags] = if bits & flag::RST != 0 {
            if bits & flag::SYN != 0 { SYN_RST } else { RST }
        } else if bits & flag::SYN != 0 {
            SYN
        } else if bits & flag::FIN != 0 {
            FIN
        } else if bits & flag::ACK != 0 {
            ACK
        } else {
            NO_FLAG
        };
        flags += 1;
    }
    events
};

/// What a packet with this flag byte means.
#[inline]
pub fn event(flags: u8) -> Event {
    EVENT[usize::from(flags & 31)]
}

/// As [`super::row`], of this protocol's states.
const fn row(states: [State; 11]) -> Row {
    super::row(NO, states)
}

// From the states                NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA

#[rustfmt::skip]
const NORMAL: [[Row; EVENTS]; 3] = [
    // input
    [
        /* syn */ row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]),
        /* fin */ row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW]),
        /* ack */ row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]),
        /* rst */ row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR]),
        /* no flag */ row([CL; 11]),
    ],
    // output
    [
        /* syn */ row([SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR]),
        /* fin */ row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]),
        /* ack */ row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]),
        /* rst */ row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]),
        /* no flag */ row([CL; 11]),
    ],
    // input only
    [
        /* syn */ row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]),
        /* fin */ row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]),
        /* ack */ row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]),
        /* rst */ row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]),
        /* no flag */ row([CL; 11]),
    ],
];

/// Under `secure_tcp`: a client is believed once the server has answered it.
#[rustfmt::skip]
const DOS: [[Row; EVENTS]; 3] = [
    // input
    [
        /* syn */ row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA]),
        /* fin */ row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA]),
        /* ack */ row([ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA]),
        /* rst */ row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]),
        /* no flag */ row([CL; 11]),
    ],
    // output
    [
        /* syn */ row([SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA]),
        /* fin */ row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]),
        /* ack */ row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]),
        /* rst */ row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]),
        /* no flag */ row([CL; 11]),
    ],
    // input only
    [
        /* syn */ row([SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA]),
        /* fin */ row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]),
        /* ack */ row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]),
        /* rst */ row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]),
        /* no flag */ row([CL; 11]),
    ],
];

/// The state after a packet; `dos`: `secure_tcp` is in force.
#[inline]
pub fn next(state: State, direction: Direction, event: Event, dos: bool) -> State {
    let table = if dos { &DOS } else { &NORMAL };
    table[direction as usize][event.row(EVENTS)][usize::from(state.bits())]
}

//! The states of SCTP.
//!
//! Source: IPVS, `sctp_states` and `sctp_events`; confirmed by recordings of every transition that a packet can
//! reach.

use super::{Direction, Event, Row, State};
use State::{
    SctpClosed as CL, SctpCookie as CO, SctpCookieEchoed as CE, SctpCookieReplied as CR,
    SctpCookieSent as CS, SctpCookieWait as CW, SctpEstablished as ES, SctpInit as IN, SctpInit1 as I1,
    SctpNone as NO, SctpRejected as RJ, SctpShutdownAckSent as SA, SctpShutdownReceived as SR,
    SctpShutdownSent as SS,
};

/// Types of chunks (RFC 9260 section 3.2).
pub mod chunk {
    /// Payload data.
    pub const DATA: u8 = 0;
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// Answers INIT with a cookie.
    pub const INIT_ACK: u8 = 2;
    /// Aborts.
    pub const ABORT: u8 = 6;
    /// Begins the shutdown.
    pub const SHUTDOWN: u8 = 7;
    /// Agrees to the shutdown.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Reports an error.
    pub const ERROR: u8 = 9;
    /// Gives the cookie back.
    pub const COOKIE_ECHO: u8 = 10;
    /// Ends the handshake.
    pub const COOKIE_ACK: u8 = 11;
    /// Ends the shutdown.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// DATA, and every chunk that moves nothing: SACK, HEARTBEAT, ECN, types that IPVS does not know.
pub const DATA: Event = Event(0);
/// Opens an association.
pub const INIT: Event = Event(Event::NEW | 1);
/// Aborts.
pub const ABORT: Event = Event(9);

/// Number of events.
const EVENTS: usize = 10;

/// By the chunk's type; types from 15 on are data.
const EVENT: [Event; 16] = {
    let mut events = [DATA; 16];
    events[chunk::INIT as usize] = INIT;
    events[chunk::INIT_ACK as usize] = Event(2);
    events[chunk::COOKIE_ECHO as usize] = Event(3);
    events[chunk::COOKIE_ACK as usize] = Event(4);
    events[chunk::SHUTDOWN as usize] = Event(5);
    events[chunk::SHUTDOWN_ACK as usize] = Event(6);
    events[chunk::SHUTDOWN_COMPLETE as usize] = Event(7);
    events[chunk::ERROR as usize] = Event(8);
    events[chunk::ABORT as usize] = ABORT;
    events
};

/// What a packet means in which this type of chunk decides.
#[inline]
pub fn event(chunk: u8) -> Event {
    EVENT[usize::from(chunk.min(15))]
}

/// As [`super::row`], of this protocol's states.
const fn row(states: [State; 14]) -> Row {
    super::row(NO, states)
}

// From the states   NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL

#[rustfmt::skip]
const TABLE: [[Row; EVENTS]; 3] = [
    // input
    [
        /* data */ row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* init */ row([I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN]),
        /* init ack */ row([CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* cookie echo */ row([CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* cookie ack */ row([ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL]),
        /* shutdown */ row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]),
        /* shutdown ack */ row([CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL]),
        /* shutdown complete */ row([CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL]),
        /* error */ row([CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL]),
        /* abort */ row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]),
    ],
    // output
    [
        /* data */ row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* init */ row([CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW]),
        /* init ack */ row([CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* cookie echo */ row([CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL]),
        /* cookie ack */ row([ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL]),
        /* shutdown */ row([SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL]),
        /* shutdown ack */ row([SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL]),
        /* shutdown complete */ row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* error */ row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* abort */ row([CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL]),
    ],
    // input only
    [
        /* data */ row([ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* init */ row([I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN]),
        /* init ack */ row([CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* cookie echo */ row([ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* cookie ack */ row([ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL]),
        /* shutdown */ row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]),
        /* shutdown ack */ row([CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL]),
        /* shutdown complete */ row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL]),
        /* error */ row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* abort */ row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]),
    ],
];

/// The state after a packet.
#[inline]
pub fn next(state: State, direction: Direction, event: Event) -> State {
    TABLE[direction as usize][event.row(EVENTS)][usize::from(state.bits())]
}

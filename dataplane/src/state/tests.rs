use std::collections::HashSet;
use std::time::Duration;

use lb_config::{ServiceTimeouts, Timeouts};
use proptest::prelude::*;

use super::sctp::chunk;
use super::tcp::flag;
use super::*;
use crate::conn::Tick;

const PROTOCOLS: [L4; 3] = [L4::Tcp, L4::Udp, L4::Sctp];
const DIRECTIONS: [Direction; 3] = [Direction::Input, Direction::Output, Direction::InputOnly];

/// The protocol of a state, by what its name says.
fn protocol_of(state: State) -> L4 {
    match state {
        State::Udp => L4::Udp,
        other if format!("{other:?}").starts_with("Sctp") => L4::Sctp,
        _ => L4::Tcp,
    }
}

#[test]
fn every_state_survives_its_four_bits() {
    assert!(State::ALL.is_sorted_by_key(|state| *state as u8));
    for state in State::ALL {
        assert_eq!(State::of(protocol_of(state) as u8, state.bits()), state);
    }
    for (protocol, first) in [(6, State::None), (17, State::Udp), (132, State::SctpNone), (0, State::None)] {
        assert_eq!(State::of(protocol, 15), first);
    }
    assert_eq!(PROTOCOLS.map(State::initial), [State::None, State::Udp, State::SctpNone]);
}

#[test]
fn names_within_a_protocol_differ() {
    for protocol in PROTOCOLS {
        let states = State::ALL.into_iter().filter(|state| protocol_of(*state) == protocol);
        let names: Vec<_> = states.map(State::name).collect();
        assert_eq!(names.len(), names.iter().collect::<HashSet<_>>().len(), "{names:?}");
    }
}

#[test]
fn a_one_sided_life_goes_through_the_states_of_ipvs() {
    let (mut state, mut no_output) = (State::None, true);
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
        let direction = Direction::of(false, &mut no_output);
        state = advance(L4::Tcp, state, direction, event(L4::Tcp, flags), false);
        assert_eq!(state, next, "after flags {flags:#04x}");
    }
}

#[test]
fn the_first_packet_of_the_server_ends_the_one_sided_view() {
    let mut no_output = true;
    assert_eq!(Direction::of(false, &mut no_output), Direction::InputOnly);
    assert_eq!(Direction::of(true, &mut no_output), Direction::Output);
    assert!(!no_output);
    assert_eq!(Direction::of(false, &mut no_output), Direction::Input);
}

#[test]
fn rst_counts_before_syn_before_fin_before_ack() {
    for flags in 0..=255u8 {
        let want = if flags & 6 == 6 {
            tcp::SYN_RST
        } else if flags & 4 != 0 {
            tcp::RST
        } else if flags & 2 != 0 {
            tcp::SYN
        } else if flags & 1 != 0 {
            tcp::FIN
        } else if flags & 16 != 0 {
            tcp::ACK
        } else {
            tcp::NO_FLAG
        };
        assert_eq!(event(L4::Tcp, flags), want, "flags {flags:#04x}");
        assert_eq!(event(L4::Tcp, flags).is_new(), flags & 2 != 0, "flags {flags:#04x}");
        for state in State::ALL.into_iter().filter(|state| protocol_of(*state) == L4::Tcp) {
            for (direction, dos) in DIRECTIONS.into_iter().flat_map(|way| [(way, false), (way, true)]) {
                let row = if want == tcp::SYN_RST { tcp::RST } else { want };
                let next = |event| advance(L4::Tcp, state, direction, event, dos);
                assert_eq!(next(want), next(row), "an RST is an RST");
            }
        }
    }
}

#[test]
fn chunks_that_move_nothing_count_as_data() {
    let own = [1, 2, 6, 7, 8, 9, 10, 11, 14];
    let mut events = HashSet::new();
    for kind in 0..=255u8 {
        let event = event(L4::Sctp, kind);
        assert_eq!(event == sctp::DATA, !own.contains(&kind), "chunk {kind}");
        assert_eq!(event.is_new(), kind == chunk::INIT, "chunk {kind}");
        events.insert(event.0);
    }
    assert_eq!(events.len(), 10, "every other chunk is an event of its own");
}

#[test]
fn a_syn_or_an_init_opens_and_a_sloppy_director_takes_all_but_a_reset() {
    let tcp = |flags, sloppy| opens(L4::Tcp, event(L4::Tcp, flags), sloppy);
    for flags in [flag::SYN, flag::SYN | flag::ACK, flag::SYN | flag::FIN] {
        assert!(tcp(flags, false) && tcp(flags, true));
    }
    for flags in [0, flag::ACK, flag::FIN, flag::FIN | flag::ACK] {
        assert!(!tcp(flags, false) && tcp(flags, true));
    }
    for flags in [flag::RST, flag::SYN | flag::RST, flag::RST | flag::ACK] {
        assert!(!tcp(flags, false) && !tcp(flags, true));
    }
    let sctp = |chunk, sloppy| opens(L4::Sctp, event(L4::Sctp, chunk), sloppy);
    for kind in 0..=255 {
        assert_eq!(sctp(kind, false), kind == chunk::INIT);
        assert_eq!(sctp(kind, true), kind != chunk::ABORT);
    }
    assert!(opens(L4::Udp, Event::default(), false) && !event(L4::Udp, 0).is_new());
}

#[test]
fn a_port_is_reused_once_its_connection_is_over() {
    for state in State::ALL {
        let closed = matches!(state, State::TimeWait | State::Close | State::SctpClosed);
        for no_output in [false, true] {
            assert!(!state.is_over(no_output, 0));
            assert_eq!(state.is_over(no_output, 1), closed);
            assert_eq!(state.is_over(no_output, 2), closed || state == State::FinWait && no_output);
            assert_eq!(state.is_over(no_output, 3), state.is_over(no_output, 2));
        }
    }
}

/// All states that packets lead to from the first state of `protocol`.
fn reachable(protocol: L4, dos: bool) -> HashSet<State> {
    let mut found = HashSet::from([State::initial(protocol)]);
    let mut todo: Vec<_> = found.iter().copied().collect();
    while let Some(state) = todo.pop() {
        for direction in DIRECTIONS {
            for detail in 0..=255 {
                let next = advance(protocol, state, direction, event(protocol, detail), dos);
                if found.insert(next) {
                    todo.push(next);
                }
            }
        }
    }
    found
}

#[test]
fn no_packet_leads_to_last_ack_or_listen() {
    let all = |protocol| State::ALL.into_iter().filter(move |state| protocol_of(*state) == protocol);
    for dos in [false, true] {
        let tcp = reachable(L4::Tcp, dos);
        let missing: Vec<_> = all(L4::Tcp).filter(|state| !tcp.contains(state)).collect();
        let only_under_dos = [State::SynAck].into_iter().filter(|_| !dos);
        let want: Vec<_> = [State::LastAck, State::Listen].into_iter().chain(only_under_dos).collect();
        assert_eq!(missing, want, "secure_tcp: {dos}: these have no timeout in the configuration");
        assert_eq!(reachable(L4::Udp, dos), HashSet::from([State::Udp]));
        assert_eq!(reachable(L4::Sctp, dos), all(L4::Sctp).collect());
    }
}

/// By state, IPVS's timeout in seconds and the key that changes it.
const TIMEOUTS: [(State, u64, &str); 26] = [
    (State::None, 2, ""),
    (State::Established, 900, "tcp_established"),
    (State::SynSent, 120, "tcp_syn_sent"),
    (State::SynRecv, 60, "tcp_syn_recv"),
    (State::FinWait, 120, "tcp_fin_wait"),
    (State::TimeWait, 120, "tcp_time_wait"),
    (State::Close, 10, "tcp_close"),
    (State::CloseWait, 60, "tcp_close_wait"),
    (State::LastAck, 30, ""),
    (State::Listen, 120, ""),
    (State::SynAck, 120, "tcp_synack"),
    (State::Udp, 300, "udp"),
    (State::SctpNone, 2, ""),
    (State::SctpInit1, 4, "sctp_init"),
    (State::SctpInit, 61, "sctp_handshake"),
    (State::SctpCookieSent, 61, "sctp_handshake"),
    (State::SctpCookieReplied, 61, "sctp_handshake"),
    (State::SctpCookieWait, 61, "sctp_handshake"),
    (State::SctpCookie, 61, "sctp_handshake"),
    (State::SctpCookieEchoed, 61, "sctp_handshake"),
    (State::SctpEstablished, 900, "sctp_established"),
    (State::SctpShutdownSent, 61, "sctp_shutdown"),
    (State::SctpShutdownReceived, 61, "sctp_shutdown"),
    (State::SctpShutdownAckSent, 61, "sctp_shutdown"),
    (State::SctpRejected, 4, "sctp_rejected"),
    (State::SctpClosed, 61, "sctp_closed"),
];

#[test]
fn timeouts_are_those_of_ipvs_until_somebody_sets_them() {
    let table = TimeoutTable::new(&Timeouts::default(), &ServiceTimeouts::default());
    for (state, seconds, _) in TIMEOUTS {
        assert_eq!(u64::from(table.of(state)), seconds * Tick::PER_SECOND, "{state:?}");
    }
}

#[test]
fn every_timeout_of_director_and_service_reaches_its_states() {
    let keys: HashSet<_> = TIMEOUTS.iter().map(|timeout| timeout.2).filter(|key| !key.is_empty()).collect();
    for key in keys {
        let config = format!(
            "[[ports]]\nname='p'\ndevice='null'\naddresses=['10.0.0.1/8']\n[timeouts]\n{key} = '7s'\n\
             [[services]]\nname='s'\nvip='10.9.9.9'\nport=1\nprotocol='{}'\ntimeouts.{key} = '9s'\n",
            key.split('_').next().unwrap()
        );
        let model = lb_config::parse(&config).unwrap_or_else(|faults| panic!("{key}: {faults}"));
        let own = TimeoutTable::new(&model.timeouts, &ServiceTimeouts::default());
        let service = TimeoutTable::new(&model.timeouts, &model.services[0].timeouts);
        for (state, default, of) in TIMEOUTS {
            let want = |set| if of == key { set } else { default } * Tick::PER_SECOND;
            assert_eq!(u64::from(own.of(state)), want(7), "{key}, {state:?}");
            assert_eq!(u64::from(service.of(state)), want(9), "{key}, {state:?}");
        }
    }
}

#[test]
fn timeouts_are_rounded_up_and_bounded() {
    let of = |established| {
        let timeouts = Timeouts { tcp_established: established, ..Timeouts::default() };
        TimeoutTable::new(&timeouts, &ServiceTimeouts::default()).of(State::Established)
    };
    assert_eq!(of(Duration::from_millis(250)), 4);
    assert_eq!(of(Duration::from_millis(251)), 5);
    assert_eq!(of(Duration::ZERO), 1);
    assert_eq!(of(Duration::MAX), Tick::MAX_TIMEOUT);
}

proptest! {
    /// Whatever comes, a connection stays in the states of its protocol, and only an active one is active.
    #[test]
    fn any_packets_lead_to_states_of_the_protocol(
        protocol in prop::sample::select(PROTOCOLS.to_vec()),
        mut no_output: bool,
        packets in prop::collection::vec((any::<bool>(), any::<u8>(), any::<bool>()), 0..100),
    ) {
        let mut state = State::initial(protocol);
        let mut server_seen = !no_output;
        for (outbound, detail, dos) in packets {
            server_seen |= outbound;
            let direction = Direction::of(outbound, &mut no_output);
            prop_assert_eq!(no_output, !server_seen);
            prop_assert_eq!(direction == Direction::Output, outbound);
            prop_assert_eq!(direction == Direction::InputOnly, !outbound && !server_seen);
            state = advance(protocol, state, direction, event(protocol, detail), dos);
            prop_assert_eq!(protocol_of(state), protocol);
            prop_assert_eq!(State::of(protocol as u8, state.bits()), state);
            prop_assert!(state != State::initial(protocol) || protocol != L4::Tcp, "NONE is left for good");
        }
    }

    /// What was aborted or reset is not active any more, or never was.
    #[test]
    fn a_reset_of_either_side_ends_activity(
        details in prop::collection::vec((any::<bool>(), any::<u8>()), 0..20),
        outbound: bool,
        dos: bool,
    ) {
        for (protocol, reset) in [(L4::Tcp, flag::RST), (L4::Sctp, chunk::ABORT)] {
            let (mut state, mut no_output) = (State::initial(protocol), false);
            for (outbound, detail) in &details {
                let direction = Direction::of(*outbound, &mut no_output);
                state = advance(protocol, state, direction, event(protocol, *detail), dos);
            }
            let before = state;
            state = advance(protocol, state, Direction::of(outbound, &mut no_output), event(protocol, reset), dos);
            // IPVS believes no reset of a client whose handshake is not finished, nor one in SYN_SENT of the server
            let doubted = matches!(before, State::SynRecv | State::SynAck) && !outbound
                || before == State::SynSent && outbound;
            prop_assert!(!state.is_active() || doubted, "{:?} after {:?}", state, before);
        }
    }

    /// A sloppy director opens what a strict one opens.
    #[test]
    fn sloppy_is_wider(protocol in prop::sample::select(PROTOCOLS.to_vec()), detail: u8) {
        let event = event(protocol, detail);
        prop_assert!(opens(protocol, event, true) || !opens(protocol, event, false));
    }
}

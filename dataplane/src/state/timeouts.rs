//! How long a connection is kept in each state without a packet.

use std::time::Duration;

use lb_config::{EffectivePolicy, ServiceTimeouts, Timeouts};

use super::State;
use crate::conn::entry::Tick;

/// Timeout of every state, ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeoutTable([u32; TimeoutTable::STATES]);

impl TimeoutTable {
    /// One more than the largest number of a state.
    const STATES: usize = 0x30;
    /// Where FIN_WAIT's timeout is while no packet of the server was seen: the number of no state.
    const UNANSWERED_FIN: usize = 0x0f;
    /// Where the time is for which a UDP connection counts as active after a packet (0: never): the number of no state.
    const UDP_ACTIVITY: usize = 0x0e;

    /// The director's timeouts with a service's own in place of them.
    pub fn new(director: &Timeouts, service: &ServiceTimeouts) -> Self {
        let (d, s) = (director, service);
        let mut table = [0; Self::STATES];
        for state in State::ALL {
            let timeout = match state {
                // no connection stays in these: a packet leads out of them, none leads there
                State::None | State::SctpNone => Duration::from_secs(2),
                State::LastAck => Duration::from_secs(30),
                State::Listen => Duration::from_secs(120),
                State::Established => s.tcp_established.unwrap_or(d.tcp_established),
                State::SynSent => s.tcp_syn_sent.unwrap_or(d.tcp_syn_sent),
                State::SynRecv => s.tcp_syn_recv.unwrap_or(d.tcp_syn_recv),
                State::FinWait => s.tcp_fin_wait.unwrap_or(d.tcp_fin_wait),
                State::TimeWait => s.tcp_time_wait.unwrap_or(d.tcp_time_wait),
                State::Close => s.tcp_close.unwrap_or(d.tcp_close),
                State::CloseWait => s.tcp_close_wait.unwrap_or(d.tcp_close_wait),
                State::SynAck => s.tcp_synack.unwrap_or(d.tcp_synack),
                State::Udp => s.udp.unwrap_or(d.udp),
                State::SctpInit1 => s.sctp_init.unwrap_or(d.sctp_init),
                State::SctpInit
                | State::SctpCookieSent
                | State::SctpCookieReplied
                | State::SctpCookieWait
                | State::SctpCookie
                | State::SctpCookieEchoed => s.sctp_handshake.unwrap_or(d.sctp_handshake),
                State::SctpEstablished => s.sctp_established.unwrap_or(d.sctp_established),
                State::SctpShutdownSent | State::SctpShutdownReceived | State::SctpShutdownAckSent => {
                    s.sctp_shutdown.unwrap_or(d.sctp_shutdown)
                }
                State::SctpRejected => s.sctp_rejected.unwrap_or(d.sctp_rejected),
                State::SctpClosed => s.sctp_closed.unwrap_or(d.sctp_closed),
            };
            table[state as usize] = ticks(timeout);
        }
        table[Self::UNANSWERED_FIN] = table[State::FinWait as usize];
        Self(table)
    }

    /// The same with a service's `dr_close_timeout`, FIN_WAIT's when no packet of the server was seen, and its
    /// `udp_activity`.
    pub fn with_policy(mut self, policy: &EffectivePolicy) -> Self {
        if let Some(timeout) = policy.dr_close_timeout {
            self.0[Self::UNANSWERED_FIN] = ticks(timeout);
        }
        self.0[Self::UDP_ACTIVITY] = policy.udp_activity.map_or(0, ticks);
        self
    }

    /// Whether a connection counts as active when a packet has led it to `state`: with `udp_activity`, UDP too.
    #[inline]
    pub fn is_active(&self, state: State) -> bool {
        state.is_active() || state == State::Udp && self.0[Self::UDP_ACTIVITY] != 0
    }

    /// Whether a UDP connection whose time is over in `left` ticks no longer counts as active: its latest packet came as
    /// long ago as `udp` exceeds `left`. A change of `udp` shifts that until the next packet.
    #[inline]
    pub fn is_idle(&self, left: u32) -> bool {
        self.of(State::Udp).saturating_sub(left) >= self.0[Self::UDP_ACTIVITY]
    }

    /// Timeout of `state`, ticks; `no_output`: no packet of the server was seen.
    #[inline]
    pub fn after(&self, state: State, no_output: bool) -> u32 {
        self.0[if no_output && state == State::FinWait { Self::UNANSWERED_FIN } else { state as usize }]
    }

    /// Timeout of `state`, ticks.
    #[inline]
    pub fn of(&self, state: State) -> u32 {
        self.0[state as usize]
    }
}

fn ticks(timeout: Duration) -> u32 {
    let ticks = (timeout.as_nanos() * u128::from(Tick::PER_SECOND)).div_ceil(1_000_000_000);
    u32::try_from(ticks).unwrap_or(u32::MAX).clamp(1, Tick::MAX_TIMEOUT)
}

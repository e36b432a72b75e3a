//! UDP: one state, in either direction. Its timeout starts anew with every datagram.

use super::State;

/// The state after a datagram.
#[inline]
pub fn next() -> State {
    State::Udp
}

//! BFD control packets. Source: RFC 5880 section 4.1.

/// Length of a packet without authentication, bytes.
pub const LEN: usize = 24;

/// State of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionState {
    /// Switched off by its operator.
    AdminDown = 0,
    /// The neighbour is not heard.
    Down = 1,
    /// It is heard, and may not hear us.
    Init = 2,
    /// Both hear each other.
    Up = 3,
}

impl SessionState {
    /// As in `lbctl vrrp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AdminDown => "admin-down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        }
    }

    fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

/// Why a session went down last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Diag {
    /// It never did.
    None = 0,
    /// Nothing was heard for the detection time.
    Expired = 1,
    /// The neighbour said so.
    NeighborDown = 3,
    /// The operator.
    AdminDown = 7,
}

impl Diag {
    /// As in `lbctl vrrp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Expired => "detection time expired",
            Self::NeighborDown => "neighbor signalled down",
            Self::AdminDown => "administratively down",
        }
    }
}

/// A packet. Intervals are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session went down last; numbers of the RFC.
    pub diag: u8,
    /// State at the sender.
    pub state: SessionState,
    /// It wants an answer with `last`.
    pub poll: bool,
    /// It is that answer.
    pub last: bool,
    /// The sender asks for no periodic packets.
    pub demand: bool,
    /// Packets that may be missed.
    pub multiplier: u8,
    /// The sender's number of the session.
    pub mine: u32,
    /// The receiver's, 0: not known.
    pub yours: u32,
    /// Interval at which the sender would send.
    pub min_tx_us: u32,
    /// Interval that the sender can take.
    pub min_rx_us: u32,
}

fn word(bytes: &[u8; LEN], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|tail| tail.first_chunk::<4>());
    word.map_or(0, |word| u32::from_be_bytes(*word))
}

impl Packet {
    /// Reads a UDP payload. `None`: RFC 5880 section 6.8.6 has it discarded, whatever the session; or it is
    /// authenticated, which no session here is.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let bytes = payload.first_chunk::<LEN>()?;
        let (version, flags, multiplier, len) = (bytes[0] >> 5, bytes[1], bytes[2], usize::from(bytes[3]));
        let (authenticated, multipoint) = (flags & 4 != 0, flags & 1 != 0);
        if version != 1 || len < LEN || len > payload.len() || multiplier == 0 || authenticated || multipoint
        {
            return None;
        }
        let packet = Self {
            diag: bytes[0] & 31,
            state: SessionState::of(flags >> 6),
            poll: flags & 32 != 0,
            last: flags & 16 != 0,
            demand: flags & 2 != 0,
            multiplier,
            mine: word(bytes, 4),
            yours: word(bytes, 8),
            min_tx_us: word(bytes, 12),
            min_rx_us: word(bytes, 16),
        };
        let begun = matches!(packet.state, SessionState::Init | SessionState::Up);
        (packet.mine != 0 && (packet.yours != 0 || !begun)).then_some(packet)
    }

    /// The packet as a UDP payload.
    pub fn emit(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        bytes[0] = 1 << 5 | self.diag & 31;
        bytes[1] = (self.state as u8) << 6 | flag(self.poll, 32) | flag(self.last, 16) | flag(self.demand, 2);
        bytes[2] = self.multiplier;
        bytes[3] = LEN as u8;
        bytes[4..8].copy_from_slice(&self.mine.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.yours.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.min_tx_us.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.min_rx_us.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Packet {
        Packet {
            diag: 1,
            state: SessionState::Up,
            poll: true,
            last: false,
            demand: false,
            multiplier: 3,
            mine: 0x0102_0304,
            yours: 0x0506_0708,
            min_tx_us: 10_000,
            min_rx_us: 50_000,
        }
    }

    #[test]
    fn a_packet_is_as_rfc_5880_draws_it() {
        let bytes =
            [0x21, 0xe0, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x27, 0x10, 0, 0, 0xc3, 0x50, 0, 0, 0, 0];
        assert_eq!(sample().emit(), bytes);
        assert_eq!(Packet::parse(&bytes), Some(sample()));
    }

    #[test]
    fn what_rfc_5880_has_discarded_is() {
        let good = sample().emit();
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            Packet::parse(&bytes)
        };
        assert_eq!(with(0, 0x41), None, "version");
        assert_eq!(with(3, 23), None, "length below the minimum");
        assert_eq!(with(3, 25), None, "length past the end");
        assert_eq!(with(2, 0), None, "multiplier");
        assert_eq!(with(1, 0xe1), None, "multipoint");
        assert_eq!(with(1, 0xe4), None, "authenticated");
        assert_eq!(Packet::parse(&good[..23]), None);
        assert_eq!(Packet::parse(&Packet { mine: 0, ..sample() }.emit()), None, "no discriminator");
        assert_eq!(Packet::parse(&Packet { yours: 0, ..sample() }.emit()), None, "up to nobody");
        assert!(Packet::parse(&Packet { yours: 0, state: SessionState::Down, ..sample() }.emit()).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert_eq!(Packet::parse(&packet.emit()), Some(packet));
            }
        }
    }
}

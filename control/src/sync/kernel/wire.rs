//! The kernel's datagrams: version 1 to read and to write, version 0 to read.
//!
//! ```text
//! version 1   0  | sync id | size  | entries | 1 | 0 0 |      entry, padded to 4 bytes | entry ...
//! version 0   entries | sync id | size |                      entry of 24 or 48 bytes  | entry ...
//! entry       type | protocol | 0, size | flags | state | cport | vport | dport | mark | timeout | addresses | options
//! option      type | length | data
//! ```
//!
//! All numbers are in network order; sizes are bytes. [`Message::parse`] and [`Message::entries`] take any bytes and
//! never panic; what they give has passed the kernel's checks, in its order, so that both refuse the same.
//! Source: Linux 6.1 `net/netfilter/ipvs/ip_vs_sync.c`, `include/uapi/linux/ip_vs.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_dataplane::wire::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};

/// Bytes before the first entry.
const HEAD: usize = 8;
/// The same of version 0.
const HEAD_0: usize = 4;
/// Bytes of an IPv4 entry without options.
const V4: usize = 36;
/// Bytes of an IPv6 entry without options.
const V6: usize = 72;
/// Bytes of an entry of version 0 without its sequence numbers.
const ENTRY_0: usize = 24;
/// Bytes of the data of [`OPTION_SEQ`].
const SEQ: usize = 24;
/// `SYNC_PROTO_VER`.
const VERSION: u8 = 1;
/// Bit of an entry's type: its addresses are IPv6.
const TYPE_IPV6: u8 = 1;
/// `IPVS_OPT_SEQ_DATA`.
const OPTION_SEQ: u8 = 1;
/// `IPVS_OPT_PE_DATA`.
const OPTION_PE_DATA: u8 = 2;
/// `IPVS_OPT_PE_NAME`.
const OPTION_PE_NAME: u8 = 3;
/// `IPVS_OPT_F_PARAM`: who does not know the option may pass it by.
const OPTION_MAY_SKIP: u8 = 0x40;
/// `IP_VS_PENAME_MAXLEN`.
const PE_NAME_MAX: usize = 16;
/// Most entries of a message: their number has one byte.
const ENTRIES_MAX: u8 = u8::MAX;

/// `IP_VS_CONN_F_*`: what a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// Bits of the forwarding method.
    pub const FORWARDING: u32 = 7;
    /// NAT.
    pub const MASQ: u32 = 0;
    /// The server is the director.
    pub const LOCAL_NODE: u32 = 1;
    /// Tunnel.
    pub const TUNNEL: u32 = 2;
    /// Direct routing.
    pub const DIRECT: u32 = 3;
    /// Forwarded to where the client wanted.
    pub const BYPASS: u32 = 4;
    /// It came by such a message.
    pub const SYNC: u32 = 0x20;
    /// It is in the hash table: not sent.
    pub const HASHED: u32 = 0x40;
    /// No packet of the server was seen.
    pub const NO_OUTPUT: u32 = 0x80;
    /// Its server does not count it as active.
    pub const INACTIVE: u32 = 0x100;
    /// Sequence numbers from the server are changed.
    pub const OUT_SEQ: u32 = 0x200;
    /// Sequence numbers from the client are changed.
    pub const IN_SEQ: u32 = 0x400;
    /// The client's port is not known yet (FTP).
    pub const NO_CPORT: u32 = 0x800;
    /// A persistence template.
    pub const TEMPLATE: u32 = 0x1000;
    /// What a backup takes over (`IP_VS_CONN_F_BACKUP_MASK`).
    const BACKUP: u32 = Self::FORWARDING
        | Self::NO_OUTPUT
        | Self::INACTIVE
        | Self::OUT_SEQ
        | Self::IN_SEQ
        | Self::NO_CPORT
        | Self::TEMPLATE;

    /// Whether all of these are set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// The forwarding method.
    pub fn forwarding(self) -> u32 {
        self.0 & Self::FORWARDING
    }
}

/// How sequence numbers are changed in one direction: `delta` is added from `init` on, `previous` before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seq {
    /// First number to which `delta` applies.
    pub init: u32,
    /// Difference from there on.
    pub delta: u32,
    /// Difference before.
    pub previous: u32,
}

/// What a persistence engine (`--pe`) knows a client by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Its name, at most 16 bytes.
    pub name: Vec<u8>,
    /// The data, at most 255 bytes; empty: none.
    pub data: Vec<u8>,
}

/// A connection, or a persistence template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// IANA protocol number; 0 for a template of a mark.
    pub protocol: u8,
    /// What it is.
    pub flags: Flags,
    /// State: the number within its protocol's states, of a template 0 or 1 (assured).
    pub state: u16,
    /// Client; of a template its network and port 0.
    pub client: (IpAddr, u16),
    /// Virtual address; of a mark's template the mark as an address.
    pub vip: (IpAddr, u16),
    /// Real server.
    pub server: (IpAddr, u16),
    /// Firewall mark; 0: none.
    pub mark: u32,
    /// Timeout of its state, s; 0: the receiver's.
    pub timeout: u32,
    /// Changes of sequence numbers, from the client and from the server.
    pub seq: Option<[Seq; 2]>,
    /// Persistence engine.
    pub engine: Engine,
}

/// Why a message, or an entry, is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than a message, or not as long as it says.
    #[error("length")]
    Length,
    /// An entry goes beyond the message, or is shorter than its kind.
    #[error("entry length")]
    EntryLength,
    /// An entry's version is not 0.
    #[error("entry version")]
    EntryVersion,
    /// Neither IPv4 nor IPv6.
    #[error("entry type")]
    EntryType,
    /// An option is empty, too long, goes beyond its entry or comes twice.
    #[error("option")]
    Option,
    /// An option that one has to understand.
    #[error("unknown option")]
    UnknownOption,
    /// A protocol without states.
    #[error("protocol")]
    Protocol,
    /// A number that is no state of the protocol.
    #[error("state")]
    State,
    /// Data of a persistence engine without its name.
    #[error("persistence engine")]
    Engine,
}

impl WireError {
    /// Whether the entry alone is dropped, not all that follow.
    pub fn is_of_entry_alone(self) -> bool {
        matches!(self, Self::UnknownOption | Self::Protocol | Self::State | Self::Engine)
    }
}

/// A datagram whose head has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Which group of directors it is for.
    pub sync_id: u8,
    /// 0 or 1.
    pub version: u8,
    count: u8,
    entries: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks the head.
    ///
    /// Errors: [`WireError::Length`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        let &[first, sync_id, high, low, ..] = datagram else { return Err(WireError::Length) };
        if usize::from(u16::from_be_bytes([high, low])) != datagram.len() {
            return Err(WireError::Length);
        }
        if let &[0, _, _, _, count, VERSION, 0, 0, ref entries @ ..] = datagram {
            return Ok(Self { sync_id, version: VERSION, count, entries });
        }
        Ok(Self { sync_id, version: 0, count: first, entries: &datagram[HEAD_0..] })
    }

    /// Its entries. After an error that is not [of the entry alone](WireError::is_of_entry_alone) there are no more.
    pub fn entries(&self) -> Entries<'a> {
        Entries { version: self.version, left: self.count, rest: self.entries }
    }
}

/// The entries of a message.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    version: u8,
    left: u8,
    rest: &'a [u8],
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = if self.version == VERSION { self.entry() } else { self.entry_0() };
        if entry.as_ref().is_err_and(|error| !error.is_of_entry_alone()) {
            self.left = 0;
        }
        Some(entry)
    }
}

impl Entries<'_> {
    fn entry(&mut self) -> Result<Entry, WireError> {
        let head = self.rest.first_chunk::<V4>().ok_or(WireError::EntryLength)?;
        let ver_size = u16::from_be_bytes([head[2], head[3]]);
        let size = usize::from(ver_size & 0xfff);
        let whole = self.rest.get(..size).ok_or(WireError::EntryLength)?;
        if ver_size >> 12 != 0 {
            return Err(WireError::EntryVersion);
        }
        // the last one need not be padded
        self.rest = self.rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        let (fixed, addresses): (usize, [IpAddr; 3]) = match head[0] {
            kind if kind & TYPE_IPV6 != 0 => (V6, addresses::<16>(whole).ok_or(WireError::EntryLength)?),
            0 => (V4, addresses::<4>(whole).ok_or(WireError::EntryLength)?),
            _ => return Err(WireError::EntryType),
        };
        let (seq, engine) = options(whole.get(fixed..).ok_or(WireError::EntryLength)?)?;
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let [client, vip, server] = addresses;
        let entry = Entry {
            protocol: head[1],
            flags: Flags(word(4) & Flags::BACKUP),
            state: half(8),
            client: (client, half(10)),
            vip: (vip, half(12)),
            server: (server, half(14)),
            mark: word(16),
            timeout: word(20),
            seq,
            engine,
        };
        entry.checked()
    }

    /// Of version 0, whose sequence numbers are in the order of the sender's machine; all that runs IPVS with version 0
    /// today is little-endian.
    fn entry_0(&mut self) -> Result<Entry, WireError> {
        let head = self.rest.first_chunk::<ENTRY_0>().ok_or(WireError::EntryLength)?;
        self.rest = &self.rest[ENTRY_0..];
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let ip = |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let flags = Flags(u32::from(half(20)) & !Flags::HASHED);
        let mut seq = None;
        if flags.0 & (Flags::IN_SEQ | Flags::OUT_SEQ) != 0 {
            let data = self.rest.first_chunk::<SEQ>().ok_or(WireError::EntryLength)?;
            self.rest = &self.rest[SEQ..];
            seq = Some(sequence(data, u32::from_le_bytes));
        }
        let entry = Entry {
            protocol: head[1],
            flags: Flags(flags.0 & Flags::BACKUP),
            state: half(22),
            client: (ip(8), half(2)),
            vip: (ip(12), half(4)),
            server: (ip(16), half(6)),
            mark: 0,
            timeout: 0,
            seq,
            engine: Engine::default(),
        };
        entry.checked()
    }
}

/// Client's, virtual and server's address of an entry; `None`: it is too short.
fn addresses<const N: usize>(entry: &[u8]) -> Option<[IpAddr; 3]>
where
    [u8; N]: Address,
{
    let mut found = [IpAddr::V4(Ipv4Addr::UNSPECIFIED); 3];
    for (at, address) in found.iter_mut().enumerate() {
        *address = entry.get(24 + at * N..)?.first_chunk::<N>()?.ip();
    }
    Some(found)
}

trait Address {
    fn ip(&self) -> IpAddr;
}

impl Address for [u8; 4] {
    fn ip(&self) -> IpAddr {
        Ipv4Addr::from(*self).into()
    }
}

impl Address for [u8; 16] {
    fn ip(&self) -> IpAddr {
        Ipv6Addr::from(*self).into()
    }
}

fn sequence(data: &[u8; SEQ], number: fn([u8; 4]) -> u32) -> [Seq; 2] {
    let word = |at: usize| number([data[at], data[at + 1], data[at + 2], data[at + 3]]);
    [0, 12].map(|at| Seq { init: word(at), delta: word(at + 4), previous: word(at + 8) })
}

fn options(mut rest: &[u8]) -> Result<(Option<[Seq; 2]>, Engine), WireError> {
    let (mut seq, mut name, mut data) = (None, None, None);
    while !rest.is_empty() {
        let &[kind, length, ref behind @ ..] = rest else { return Err(WireError::Option) };
        let value = behind.get(..usize::from(length)).filter(|value| !value.is_empty());
        let value = value.ok_or(WireError::Option)?;
        rest = &behind[value.len()..];
        let twice = match kind & !OPTION_MAY_SKIP {
            OPTION_SEQ => {
                let value = <&[u8; SEQ]>::try_from(value).map_err(|_| WireError::Option)?;
                seq.replace(sequence(value, u32::from_be_bytes)).is_some()
            }
            OPTION_PE_DATA => data.replace(value).is_some(),
            OPTION_PE_NAME if value.len() > PE_NAME_MAX => return Err(WireError::Option),
            OPTION_PE_NAME => name.replace(value).is_some(),
            _ if kind & OPTION_MAY_SKIP != 0 => false,
            _ => return Err(WireError::UnknownOption),
        };
        if twice {
            return Err(WireError::Option);
        }
    }
    let owned = |value: Option<&[u8]>| value.unwrap_or_default().to_vec();
    Ok((seq, Engine { name: owned(name), data: owned(data) }))
}

impl Entry {
    /// Whether it is a persistence template.
    pub fn is_template(&self) -> bool {
        self.flags.has(Flags::TEMPLATE)
    }

    /// The same, if its numbers mean something.
    fn checked(self) -> Result<Self, WireError> {
        let states = match self.protocol {
            _ if self.is_template() => 2,
            PROTOCOL_TCP => 11,
            PROTOCOL_UDP => 1,
            PROTOCOL_SCTP => 14,
            _ => return Err(WireError::Protocol),
        };
        if self.state >= states {
            return Err(WireError::State);
        }
        if !self.engine.data.is_empty() && self.engine.name.is_empty() {
            return Err(WireError::Engine);
        }
        Ok(self)
    }

    /// Appends it as bytes of version 1, without padding. The addresses must be of one family.
    fn emit(&self, to: &mut Vec<u8>) {
        let start = to.len();
        let kind = if self.client.0.is_ipv6() { TYPE_IPV6 } else { 0 };
        // the size comes last
        to.extend([kind, self.protocol, 0, 0]);
        to.extend((self.flags.0 & !Flags::HASHED).to_be_bytes());
        for half in [self.state, self.client.1, self.vip.1, self.server.1] {
            to.extend(half.to_be_bytes());
        }
        to.extend(self.mark.to_be_bytes());
        to.extend(self.timeout.to_be_bytes());
        for address in [self.client.0, self.vip.0, self.server.0] {
            match address {
                IpAddr::V4(address) => to.extend(address.octets()),
                IpAddr::V6(address) => to.extend(address.octets()),
            }
        }
        if let Some(seq) = self.seq {
            to.extend([OPTION_SEQ, SEQ as u8]);
            for word in seq.iter().flat_map(|seq| [seq.init, seq.delta, seq.previous]) {
                to.extend(word.to_be_bytes());
            }
        }
        if !self.engine.data.is_empty() {
            for (kind, most, value) in [
                (OPTION_PE_DATA, usize::from(u8::MAX), &self.engine.data),
                (OPTION_PE_NAME, PE_NAME_MAX, &self.engine.name),
            ] {
                let value = value.get(..most).unwrap_or(value);
                to.extend([kind, value.len() as u8]);
                to.extend(value);
            }
        }
        let size = (to.len() - start) as u16;
        if let Some(field) = to.get_mut(start + 2..start + 4) {
            field.copy_from_slice(&size.to_be_bytes());
        }
    }
}

/// A message that is being filled.
#[derive(Clone, Debug)]
pub struct Builder {
    sync_id: u8,
    /// Longest message, bytes.
    max: usize,
    bytes: Vec<u8>,
}

impl Builder {
    /// An empty message of at most `max` bytes; one entry always fits, as in the kernel.
    pub fn new(sync_id: u8, max: usize) -> Self {
        Self { sync_id, max, bytes: Vec::with_capacity(max.min(usize::from(u16::MAX))) }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds an entry; gives the message that was full before it, to be sent.
    pub fn push(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        if self.is_empty() {
            self.begin();
        }
        let before = self.bytes.len();
        self.bytes.resize(before.next_multiple_of(4), 0);
        let at = self.bytes.len();
        entry.emit(&mut self.bytes);
        let count = self.bytes.get(4).copied().unwrap_or_default();
        let full = if count > 0 && (self.bytes.len() > self.max || count == ENTRIES_MAX) {
            let rest = self.bytes.split_off(at);
            self.bytes.truncate(before);
            let full = self.take();
            self.begin();
            self.bytes.extend(rest);
            full
        } else {
            None
        };
        if let Some(count) = self.bytes.get_mut(4) {
            *count += 1;
        }
        full
    }

    /// The message as it is, if there is one; the next one begins.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if self.is_empty() {
            return None;
        }
        let size = self.bytes.len() as u16;
        if let Some(field) = self.bytes.get_mut(2..4) {
            field.copy_from_slice(&size.to_be_bytes());
        }
        Some(std::mem::take(&mut self.bytes))
    }

    fn begin(&mut self) {
        self.bytes.extend([0, self.sync_id, 0, 0, 0, VERSION, 0, 0]);
        debug_assert_eq!(self.bytes.len(), HEAD);
    }
}

#[cfg(test)]
mod tests;

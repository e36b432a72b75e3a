//! Interfaces, addresses and routes by rtnetlink (RFC 3549; rtnetlink(7)): the few requests that lbd makes.
//!
//! A request is built as bytes, sent, and its acknowledgement waited for, which the kernel gives before `send` returns.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use lb_config::{IfAddr, IpPrefix};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

/// Source: linux/rtnetlink.h.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
/// Source: linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const HEADER: usize = 16;
/// Source: linux/if_link.h, linux/if.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFF_UP: u32 = 1;
/// Source: linux/if_addr.h.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
/// Source: linux/rtnetlink.h.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
/// Index of `lo`, in every network namespace.
const LOOPBACK: u32 = 1;

/// Metric of default routes: one that is there beside them, over another interface, comes first.
pub const METRIC: u32 = 4096;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Everything of a family, over this next hop.
    Default(IpAddr),
    /// These addresses are stations on the interface.
    OnLink(IpPrefix),
    /// These addresses are the machine's own.
    Here(IpPrefix),
}

/// A request under construction.
#[derive(Debug)]
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = 4 + value.len() as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }) as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Sets MAC address and MTU.
fn set_link(index: u32, mac: [u8; 6], mtu: u16) -> Vec<u8> {
    Message::new(RTM_NEWLINK, 0, &link_body(index, 0, 0))
        .with(IFLA_ADDRESS, &mac)
        .with(IFLA_MTU, &u32::from(mtu).to_ne_bytes())
        .finish()
}

fn set_up(index: u32) -> Vec<u8> {
    Message::new(RTM_NEWLINK, 0, &link_body(index, IFF_UP, IFF_UP)).finish()
}

/// `struct ifinfomsg`.
fn link_body(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

fn address(index: u32, address: IfAddr, add: bool) -> Vec<u8> {
    let (kind, flags) = if add { (RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE) } else { (RTM_DELADDR, 0) };
    // struct ifaddrmsg
    let head = [family(address.addr), address.prefix_len, 0, RT_SCOPE_UNIVERSE];
    let ip = octets(address.addr);
    let message = Message::new(kind, flags, &[head, index.to_ne_bytes()].concat())
        .with(IFA_LOCAL, &ip)
        .with(IFA_ADDRESS, &ip);
    // nobody else may have the director's address, and who has is told of in the log
    if address.addr.is_ipv6() { message.with(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes()) } else { message }
        .finish()
}

fn route(index: u32, route: Route, add: bool) -> Vec<u8> {
    let (kind, flags) = if add { (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE) } else { (RTM_DELROUTE, 0) };
    // struct rtmsg
    let body = |of: IpAddr, len: u8, table: u8, scope: u8, kind: u8| -> Vec<u8> {
        vec![family(of), len, 0, 0, table, RTPROT_STATIC, scope, kind, 0, 0, 0, 0]
    };
    let start = |body: &[u8]| Message::new(kind, flags, body);
    match route {
        Route::Default(gateway) => start(&body(gateway, 0, RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, RTN_UNICAST))
            .with(RTA_GATEWAY, &octets(gateway))
            .with(RTA_OIF, &index.to_ne_bytes())
            .with(RTA_PRIORITY, &METRIC.to_ne_bytes()),
        Route::OnLink(prefix) => {
            let of = prefix.network();
            start(&body(of, prefix.prefix_len(), RT_TABLE_MAIN, RT_SCOPE_LINK, RTN_UNICAST))
                .with(RTA_DST, &octets(of))
                .with(RTA_OIF, &index.to_ne_bytes())
        }
        Route::Here(prefix) => {
            let of = prefix.network();
            start(&body(of, prefix.prefix_len(), RT_TABLE_LOCAL, RT_SCOPE_HOST, RTN_LOCAL))
                .with(RTA_DST, &octets(of))
                .with(RTA_TABLE, &u32::from(RT_TABLE_LOCAL).to_ne_bytes())
                .with(RTA_OIF, &LOOPBACK.to_ne_bytes())
        }
    }
    .finish()
}

/// The error in an acknowledgement; `None`: it is none.
fn acknowledged(answer: &[u8]) -> Option<io::Result<()>> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let code = i32::from_ne_bytes(*answer.get(HEADER..)?.first_chunk()?);
    (kind == NLMSG_ERROR).then(|| match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    })
}

/// A way to the kernel's network configuration.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one in this network namespace.
    ///
    /// Errors: the system gives none.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(fd))
    }

    /// Errors: what the kernel says.
    fn ask(&self, request: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), request, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        loop {
            let len = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            if let Some(result) = acknowledged(answer.get(..len).unwrap_or_default()) {
                return result;
            }
        }
    }

    /// Gives an interface its MAC address and MTU.
    pub fn set_link(&self, index: u32, mac: [u8; 6], mtu: u16) -> io::Result<()> {
        self.ask(&set_link(index, mac, mtu))
    }

    /// Switches it on.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        self.ask(&set_up(index))
    }

    /// Adds an address, or takes it away.
    pub fn address(&self, index: u32, of: IfAddr, add: bool) -> io::Result<()> {
        self.ask(&address(index, of, add))
    }

    /// Adds a route, or takes it away.
    pub fn route(&self, index: u32, of: Route, add: bool) -> io::Result<()> {
        self.ask(&route(index, of, add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_the_kernel_reads_them() {
        let message = set_link(7, [2, 0, 0, 0, 0, 0x11], 1500);
        assert_eq!(message.len(), 16 + 16 + 12 + 8);
        assert_eq!(message[..4], 52_u32.to_ne_bytes());
        assert_eq!(message[4..6], 16_u16.to_ne_bytes());
        assert_eq!(message[20..24], 7_u32.to_ne_bytes());
        assert_eq!(message[32..44], [10, 0, 1, 0, 2, 0, 0, 0, 0, 0x11, 0, 0]);
        assert_eq!(message[44..48], [8, 0, 4, 0]);
        let v4 = address(7, "192.168.150.11/24".parse().unwrap(), true);
        assert_eq!(v4[16..24], [2, 24, 0, 0, 7, 0, 0, 0]);
        assert_eq!(v4[24..32], [8, 0, 2, 0, 192, 168, 150, 11]);
        let v6 = address(7, "fd00::11/64".parse().unwrap(), false);
        assert_eq!((v6[4], v6[16], v6[17]), (21, 10, 64));
        assert_eq!(v6[v6.len() - 8..], [8, 0, 8, 0, 2, 0, 0, 0], "no duplicate address detection");
        let default = route(7, Route::Default("192.168.150.1".parse().unwrap()), true);
        assert_eq!(default[16..28], [2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn an_acknowledgement_carries_the_errno() {
        let answer = |kind: u16, code: i32| {
            [&[0; 4][..], &kind.to_ne_bytes(), &[0; 10], &code.to_ne_bytes(), &[0; 16]].concat()
        };
        assert!(matches!(acknowledged(&answer(2, 0)), Some(Ok(()))));
        let refused = acknowledged(&answer(2, -17)).unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert!(acknowledged(&answer(16, 0)).is_none());
        assert!(acknowledged(&[0; 5]).is_none());
    }
}

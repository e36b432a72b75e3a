//! The multicast sockets, on an interface of the kernel's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use lb_config::IpvsSync;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

/// How long a receiver waits before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Messages that wait while the receiver is busy, bytes: a burst of 100,000 connections. The kernel gives what
/// `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Index of an interface.
///
/// Errors: there is none of this name.
pub fn index(interface: &str) -> Result<u32, Errno> {
    if_nametoindex(interface)
}

fn socket(daemon: &IpvsSync) -> io::Result<(Socket, SocketAddr)> {
    // before the socket is bound to it: its error is the clearer one
    let index = index(&daemon.interface)?;
    let (domain, group): (_, SocketAddr) = match daemon.group {
        IpAddr::V4(group) => (Domain::IPV4, (group, daemon.port).into()),
        IpAddr::V6(group) => (Domain::IPV6, SocketAddrV6::new(group, daemon.port, 0, index).into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    // Linux binds the backup's; for the master's it stands for IP_MULTICAST_IF by index
    socket.bind_device(Some(daemon.interface.as_bytes()))?;
    Ok((socket, group))
}

/// A socket that sends to the group, not to itself.
///
/// Errors: the interface is missing or has no address, or may not be used.
pub fn sender(daemon: &IpvsSync) -> io::Result<UdpSocket> {
    let (socket, group) = socket(daemon)?;
    match daemon.group {
        IpAddr::V4(_) => {
            socket.set_multicast_loop_v4(false)?;
            socket.set_multicast_ttl_v4(daemon.ttl.into())?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        }
        IpAddr::V6(_) => {
            socket.set_multicast_if_v6(index(&daemon.interface)?)?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_hops_v6(daemon.ttl.into())?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        }
    }
    socket.connect(&group.into())?;
    socket.set_write_timeout(Some(LOOK))?;
    Ok(socket.into())
}

/// A socket that hears the group. Receiving ends after a short time with [`io::ErrorKind::WouldBlock`].
///
/// Errors: the interface is missing, or may not be used.
pub fn receiver(daemon: &IpvsSync) -> io::Result<UdpSocket> {
    let (socket, group) = socket(daemon)?;
    // the other daemon of a director with both, or another director on this machine
    socket.set_reuse_address(true)?;
    if socket.set_recv_buffer_size(RECEIVE_BUFFER).is_err() {
        tracing::debug!("the kernel's own buffer has to do");
    }
    socket.bind(&group.into())?;
    let index = index(&daemon.interface)?;
    match &daemon.group {
        IpAddr::V4(group) => socket.join_multicast_v4_n(group, &InterfaceIndexOrAddress::Index(index))?,
        IpAddr::V6(group) => socket.join_multicast_v6(group, index)?,
    }
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket.into())
}

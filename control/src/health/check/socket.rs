//! Sockets of checks: bound, marked and sent out as configured.
//!
//! The one place that decides by which way checks leave the machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_config::health::FullTarget;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// A socket of this type towards the target, non-blocking, not yet connected.
fn open(target: &FullTarget, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target.to), kind.nonblocking().cloexec(), Some(protocol))?;
    if target.mark != 0 {
        socket.set_mark(target.mark)?;
    }
    if let Some(device) = &target.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if target.bind.is_some() || target.bind_port != 0 {
        let any = match target.to {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // Checks that follow each other quickly come from the same port.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(target.bind.unwrap_or(any), target.bind_port).into())?;
    }
    Ok(socket)
}

/// A TCP connection.
pub(in crate::health) async fn connect(target: &FullTarget) -> io::Result<TcpStream> {
    let socket = open(target, Type::STREAM, Protocol::TCP)?;
    socket.set_tcp_nodelay(true)?;
    if target.path.is_some() {
        // The next one comes from the same port to the same VIP: no TIME_WAIT may be in its way.
        socket.set_linger(Some(std::time::Duration::ZERO))?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(target.to).await
}

/// A UDP socket that hears the target alone, ICMP errors included.
pub(super) fn udp(target: &FullTarget) -> io::Result<UdpSocket> {
    let socket = open(target, Type::DGRAM, Protocol::UDP)?;
    socket.connect(&target.to.into())?;
    UdpSocket::from_std(socket.into())
}

/// An ICMP socket that hears the target alone, and whether what it receives begins with an IPv4 header.
///
/// Errors: neither `net.ipv4.ping_group_range` nor CAP_NET_RAW allows one.
pub(super) fn icmp(target: &FullTarget) -> io::Result<(UdpSocket, bool)> {
    let v4 = target.to.is_ipv4();
    let protocol = if v4 { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let (socket, header) = match open(target, Type::DGRAM, protocol) {
        Ok(socket) => (socket, false),
        Err(_) => (open(target, Type::RAW, protocol)?, v4),
    };
    socket.connect(&SocketAddr::new(target.to.ip(), 0).into())?;
    Ok((UdpSocket::from_std(socket.into())?, header))
}

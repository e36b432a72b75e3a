//! Segments for the tests of what is inside TCP and UDP.

use std::net::Ipv4Addr;

use crate::parse::{Flow, Net, parse};
use crate::wire::checksum;
use crate::wire::samples::frame;

/// A TCP segment over IPv4 with these options, this data and right checksums, and what it parses to.
pub fn segment(options: &[u8], data: &[u8]) -> (Vec<u8>, Flow<Ipv4Addr>) {
    let mut bytes = frame("tcp4");
    bytes.extend(options);
    bytes.extend(data);
    bytes[46] = (((20 + options.len()) / 4) << 4) as u8;
    let len = (bytes.len() - 14) as u16;
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    bytes[24..26].fill(0);
    let sum = checksum::finish(checksum::add(0, &bytes[14..34]));
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[50..52].fill(0);
    let sum = sum4(&bytes);
    bytes[50..52].copy_from_slice(&checksum::finish(sum).to_be_bytes());
    let flow = flow(&bytes);
    (bytes, flow)
}

pub fn flow(frame: &[u8]) -> Flow<Ipv4Addr> {
    let Net::Flow4(flow) = parse(frame).unwrap().net else { panic!("no flow over IPv4") };
    flow
}

/// Sum of transport packet and pseudo header of an untagged frame without IP options.
pub fn sum4(frame: &[u8]) -> u64 {
    let pseudo = checksum::pseudo_header(&frame[26..34], &[], frame[23], frame.len() - 34);
    checksum::add(pseudo, &frame[34..])
}

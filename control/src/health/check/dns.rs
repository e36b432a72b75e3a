//! DNS over UDP: a query and whether the answer is one without an error.
//!
//! Source: RFC 1035 section 4.

use std::hash::{BuildHasher, RandomState};

use lb_config::health::{DnsCheck, FullTarget};

use super::{Failure, Outcome, socket};

const HEADER: usize = 12;

pub(super) async fn check(dns: &DnsCheck, target: &FullTarget) -> Result<Outcome, Failure> {
    let socket = socket::udp(target)?;
    let id = RandomState::new().hash_one(()) as u16;
    socket.send(&query(dns, id)).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // An answer to a former question is not one to this.
        if let Some(result) = answer(buffer.get(..length).unwrap_or_default(), id) {
            return result.map(|records| Outcome::pass(format!("{records} records"))).map_err(Failure);
        }
    }
}

/// A recursive query.
fn query(dns: &DnsCheck, id: u16) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + dns.name.len() + 6);
    packet.extend_from_slice(&id.to_be_bytes());
    // RD; one question, nothing else.
    packet.extend_from_slice(&[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in dns.name.split('.').filter(|label| !label.is_empty()) {
        // A Model has no label above 63 bytes.
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&dns.record.number().to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

/// Number of records in the answer, or its error; `None`: it is not the answer to the question `id`.
fn answer(packet: &[u8], id: u16) -> Option<Result<u16, String>> {
    let Some([i0, i1, f0, f1, _, _, a0, a1, ..]) = packet.get(..HEADER) else { return None };
    if u16::from_be_bytes([*i0, *i1]) != id || f0 & 0x80 == 0 {
        return None;
    }
    // RFC 1035 section 4.1.1, RCODE.
    let error = match f1 & 0x0f {
        0 => return Some(Ok(u16::from_be_bytes([*a0, *a1]))),
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "an error",
    };
    Some(Err(format!("answer {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_config::health::RecordType;

    #[test]
    fn a_query_is_as_on_the_wire() {
        let dns = DnsCheck { record: RecordType::Mx, name: "example.org.".into() };
        let want = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x0f\x00\x01";
        assert_eq!(query(&dns, 0x1234), want);
        let root = DnsCheck { record: RecordType::Soa, name: ".".into() };
        assert_eq!(query(&root, 1)[HEADER..], [0, 0, 6, 0, 1]);
    }

    #[test]
    fn an_answer_is_the_one_to_the_question() {
        let packet = |flags: [u8; 2]| [0x12, 0x34, flags[0], flags[1], 0, 1, 0, 2, 0, 0, 0, 0];
        assert_eq!(answer(&packet([0x81, 0x80]), 0x1234), Some(Ok(2)));
        assert_eq!(answer(&packet([0x81, 0x80]), 0x1235), None);
        assert_eq!(answer(&packet([0x01, 0x00]), 0x1234), None, "a query is no answer");
        assert_eq!(answer(&packet([0x81, 0x82]), 0x1234), Some(Err("answer SERVFAIL".into())));
        assert_eq!(answer(&packet([0x81, 0x83]), 0x1234), Some(Err("answer NXDOMAIN".into())));
        assert_eq!(answer(&[0x12, 0x34], 0x1234), None);
    }
}

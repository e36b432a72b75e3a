//! This project's authentication of adverts: an HMAC-SHA256 trailer behind the VRRP message.
//!
//! ```text
//! offset  bytes
//!  0      4      "SLV1"
//!  4      1      id of the key
//!  5      3      0
//!  8      8      time at the sender, nanoseconds since 1970, big-endian
//! 16      32     HMAC-SHA256 over: source and destination address (4 or 16 bytes each), the VRRP message with its
//!                checksum, the first 16 bytes of the trailer
//! ```
//! The trailer is within the IP packet. A receiver takes an advert when its key is known, the HMAC right, the time
//! within `window` of its own clock and later than that of the last advert of the same source: adverts can neither
//! be made without the key nor be replayed. Directors without this option (keepalived before 2.4 included, whose
//! trailer is another one) drop adverts that are longer than they say.

use std::net::IpAddr;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Length of the trailer, bytes.
pub const LEN: usize = 48;
const MAGIC: &[u8; 4] = b"SLV1";
const HEAD: usize = 16;

/// A trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Id of the key.
    pub key: u8,
    /// Time at the sender, nanoseconds since 1970.
    pub time_ns: u64,
    head: [u8; HEAD],
    mac: [u8; 32],
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn mac(key: &[u8], ends: (IpAddr, IpAddr), message: &[u8], head: &[u8; HEAD]) -> Option<Hmac<Sha256>> {
    // any length is taken; the error is the trait's
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(&octets(ends.0));
    mac.update(&octets(ends.1));
    mac.update(message);
    mac.update(head);
    Some(mac)
}

/// The trailer for `message` from the first of `ends` to the second.
pub fn sign(key: (u8, &[u8]), time_ns: u64, ends: (IpAddr, IpAddr), message: &[u8]) -> Vec<u8> {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(MAGIC);
    head[4] = key.0;
    head[8..].copy_from_slice(&time_ns.to_be_bytes());
    let mut trailer = head.to_vec();
    if let Some(mac) = mac(key.1, ends, message, &head) {
        trailer.extend(mac.finalize().into_bytes());
    }
    trailer
}

/// The trailer that `rest`, what is behind the VRRP message, begins with; bytes behind it make it none.
pub fn parse(rest: &[u8]) -> Option<Trailer> {
    let (head, mac) = rest.split_first_chunk::<HEAD>()?;
    let mac = <[u8; 32]>::try_from(mac).ok()?;
    let [a, b, c, d, key, x, y, z, time @ ..] = *head;
    if [a, b, c, d] != *MAGIC || [x, y, z] != [0; 3] {
        return None;
    }
    Some(Trailer { key, time_ns: u64::from_be_bytes(time), head: *head, mac })
}

impl Trailer {
    /// Whether it was made with `key` for this message. Takes the same time whatever is different.
    pub fn verify(&self, key: &[u8], ends: (IpAddr, IpAddr), message: &[u8]) -> bool {
        mac(key, ends, message, &self.head).is_some_and(|mac| mac.verify_slice(&self.mac).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_holds_for_its_message_key_and_ends_alone() {
        let ends = ("10.0.0.1".parse().unwrap(), "224.0.0.18".parse().unwrap());
        let bytes = sign((7, b"0123456789abcdef"), 42, ends, b"message");
        assert_eq!(bytes.len(), LEN);
        let trailer = parse(&bytes).unwrap();
        assert_eq!((trailer.key, trailer.time_ns), (7, 42));
        assert!(trailer.verify(b"0123456789abcdef", ends, b"message"));
        assert!(!trailer.verify(b"0123456789abcdeg", ends, b"message"));
        assert!(!trailer.verify(b"0123456789abcdef", ends, b"massage"));
        assert!(!trailer.verify(b"0123456789abcdef", (ends.1, ends.0), b"message"));
        for at in 0..LEN {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let taken = parse(&other).is_some_and(|t| t.verify(b"0123456789abcdef", ends, b"message"));
            assert!(!taken, "byte {at} counts");
        }
        assert_eq!(parse(&bytes[..47]), None);
        assert_eq!(parse(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn the_hmac_is_that_of_rfc_2104() {
        // RFC 4231 test case 2 covers the library; this ties our order of fields to a value made by Python's hmac
        let ends = ("10.0.0.1".parse().unwrap(), "224.0.0.18".parse().unwrap());
        let bytes = sign((1, b"0123456789abcdef"), 0x0102_0304_0506_0708, ends, b"\x31\x01");
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(text.starts_with("534c5631010000000102030405060708"), "{text}");
        assert_eq!(&text[32..], EXPECTED);
    }

    const EXPECTED: &str = "94fe6ee83706787eedf51909ecfca07156314dafcc04fa4e7ad88c98084d72c1";
}

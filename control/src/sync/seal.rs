//! Authentication of datagrams.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Length of what authenticates a datagram, bytes. Source: RFC 2104 section 5, no less than half of the hash.
pub const SEAL: usize = 16;

/// What both directors know.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Of a secret of any length.
    pub fn new(secret: &[u8]) -> Option<Self> {
        Some(Self(Hmac::new_from_slice(secret).ok()?))
    }

    /// Adds the seal to a datagram.
    pub fn seal(&self, datagram: &mut Vec<u8>) {
        let mut mac = self.0.clone();
        mac.update(datagram);
        datagram.extend(mac.finalize().into_bytes().into_iter().take(SEAL));
    }

    /// What is before a datagram's seal; `None`: it is not from who knows the key. Takes the same time whatever is
    /// different.
    pub fn open<'d>(&self, datagram: &'d [u8]) -> Option<&'d [u8]> {
        let (text, seal) = datagram.split_last_chunk::<SEAL>()?;
        let mut mac = self.0.clone();
        mac.update(text);
        mac.verify_truncated_left(seal).is_ok().then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_or_another_key_breaks_the_seal() {
        let (key, other) = (Key::new(b"0123456789abcdef").unwrap(), Key::new(b"0123456789abcdeg").unwrap());
        let mut datagram = b"hello".to_vec();
        key.seal(&mut datagram);
        assert_eq!(key.open(&datagram), Some(&b"hello"[..]));
        assert_eq!(other.open(&datagram), None);
        for at in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(key.open(&changed), None);
        }
        (0..datagram.len()).for_each(|len| assert_eq!(key.open(&datagram[..len]), None));
    }
}

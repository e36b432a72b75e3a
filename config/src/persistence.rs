//! Text form of a service's persistence: `300s/24`.

use std::fmt;
use std::time::Duration;

use crate::duration;
use crate::fields::DEFAULT_PERSISTENCE;
use crate::model::Persistence;
use crate::text::{ValueError, show};

impl Persistence {
    /// IPVS's persistence for clients of a family: 300 s, each address for itself.
    pub const fn default_for(ipv6: bool) -> Self {
        Self { timeout: DEFAULT_PERSISTENCE, prefix_len: if ipv6 { 128 } else { 32 } }
    }

    /// Reads `300`, `300s`, `5m`, or one of these and a prefix length as in `300s/24`.
    ///
    /// Units: a number alone is in seconds, as for `ipvsadm --persistent`. The ranges are not checked here.
    /// Errors: the text is none of these.
    pub fn parse(text: &str, ipv6: bool) -> Result<Self, ValueError> {
        let (time, prefix) = match text.split_once('/') {
            Some((time, prefix)) => (time, Some(prefix)),
            None => (text, None),
        };
        let timeout = match time.parse::<u32>() {
            Ok(seconds) if time.bytes().all(|b| b.is_ascii_digit()) => Duration::from_secs(seconds.into()),
            _ => duration::parse(time)?,
        };
        let whole = Self::default_for(ipv6).prefix_len;
        let prefix_len = match prefix.map(str::parse::<u8>) {
            None => whole,
            Some(Ok(prefix)) => prefix,
            Some(Err(_)) => {
                return Err(ValueError(format!("{}: the prefix length is not 0 to {whole}", show(text))));
            }
        };
        Ok(Self { timeout, prefix_len })
    }
}

/// `300s/32`: the timeout and the bits of a client's address that count.
impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", duration::format(self.timeout), self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_in_seconds_and_the_prefix_may_be_left_out() {
        let read = |text: &str, vip: &str| {
            Persistence::parse(text, vip.contains(':')).map(|p| p.to_string()).map_err(|e| e.to_string())
        };
        for (text, want) in [("300", "300s/32"), ("300s", "300s/32"), ("5m/24", "300s/24"), ("1/0", "1s/0")] {
            assert_eq!(read(text, "10.0.0.1"), Ok(want.to_owned()));
        }
        assert_eq!(read("60", "fd00::1"), Ok("60s/128".to_owned()));
        assert_eq!(
            read("60/300", "10.0.0.1"),
            Err("\"60/300\": the prefix length is not 0 to 32".to_owned())
        );
        for text in ["", "/24", "+5", "5x", "-1"] {
            let error = read(text, "10.0.0.1").unwrap_err();
            assert!(error.contains("is not a duration"), "{text}: {error}");
        }
    }
}

//! Values of checks with a text form of their own: status codes, digests, byte patterns.

use std::fmt;
use std::str::FromStr;

use crate::text::{ValueError, show};

/// Status codes from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// 200 to 299.
    pub const SUCCESS: Self = Self { first: 200, last: 299 };

    /// Status codes from `first` to `last`. Errors: not 100 to 599, or the wrong way round.
    pub fn new(first: u16, last: u16) -> Result<Self, ValueError> {
        let text = || match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        if !(100..=599).contains(&first) || !(100..=599).contains(&last) {
            return Err(ValueError(format!(
                "{} is not a status code, or two with a \"-\", of 100 to 599",
                text()
            )));
        }
        if first > last {
            return Err(ValueError(format!("{} ends before it begins", text())));
        }
        Ok(Self { first, last })
    }

    /// Whether `code` is one of them.
    pub fn contains(&self, code: u16) -> bool {
        (self.first..=self.last).contains(&code)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for StatusRange {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let code = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match (code(first), code(last)) {
            (Some(first), Some(last)) => Self::new(first, last),
            _ => Err(ValueError(format!("{} is not a status code, or two with a \"-\"", show(text)))),
        }
    }
}

/// Digest of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// As keepalived's genhash prints it.
    Md5([u8; 16]),
    /// As sha256sum prints it.
    Sha256([u8; 32]),
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes): (_, &[u8]) = match self {
            Self::Md5(bytes) => ("md5", bytes),
            Self::Sha256(bytes) => ("sha256", bytes),
        };
        write!(f, "{name}:")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = ValueError;
    /// Reads `md5:HEX`, `sha256:HEX`, or either's hex digits alone.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError(format!("{} is not a digest: md5: and 32 hex digits or sha256: and 64", show(text)))
        };
        let (name, hex) = text.split_once(':').unwrap_or(("", text));
        let bytes = hex_bytes(hex).ok_or_else(wrong)?;
        match (name, bytes.len()) {
            ("md5" | "", 16) => bytes.try_into().map(Self::Md5).map_err(|_| wrong()),
            ("sha256" | "", 32) => bytes.try_into().map(Self::Sha256).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

fn hex_bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks(2).map(|pair| pair.iter().fold(0, |a, d| a << 4 | d)).collect())
}

/// Bytes as hex digits; what may be anything is `xx`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pattern(Vec<(u8, u8)>);

impl Pattern {
    /// Whether `bytes` begin with it.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() >= self.0.len()
            && self.0.iter().zip(bytes).all(|((value, mask), byte)| byte & mask == *value)
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, when none is left open.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        self.0.iter().map(|(value, mask)| (*mask == 0xff).then_some(*value)).collect()
    }

    /// A pattern of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|byte| (*byte, 0xff)).collect())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (value, mask) in &self.0 {
            for shift in [4, 0] {
                match mask >> shift & 0xf {
                    0 => f.write_str("x")?,
                    _ => write!(f, "{:x}", value >> shift & 0xf)?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Pattern {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let nibble = |c: char| match c {
            'x' | 'X' => Some((0, 0)),
            c => c.to_digit(16).map(|digit| (digit as u8, 0xf)),
        };
        let nibbles: Option<Vec<(u8, u8)>> = text.chars().filter(|c| *c != ' ').map(nibble).collect();
        match nibbles {
            Some(nibbles) if nibbles.len().is_multiple_of(2) => Ok(Self(
                nibbles
                    .chunks(2)
                    .map(|pair| pair.iter().fold((0, 0), |all, one| (all.0 << 4 | one.0, all.1 << 4 | one.1)))
                    .collect(),
            )),
            _ => Err(ValueError(format!("{} is not pairs of hex digits (x: any)", show(text)))),
        }
    }
}

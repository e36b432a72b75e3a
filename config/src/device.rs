//! The text form of a [`Device`]: `KIND:ARGUMENT`.
//!
//! What passes here is safe to build DPDK arguments from: no argument holds a comma, a square bracket (both split
//! or join arguments there), white space or a control character.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::bounds::{INTERFACE_NAME_LEN, RING_NAME_LEN, SOCKET_PATH_LEN};
use crate::model::Device;
use crate::text::{ValueError, nearest, show};

/// The kinds of device, as written before the colon.
const KINDS: [&str; 8] = ["pci", "af_packet", "af_xdp", "tap", "memif", "ring", "pcap", "null"];

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => write!(f, "pci:{address}"),
            Self::AfPacket(name) => write!(f, "af_packet:{name}"),
            Self::AfXdp(name) => write!(f, "af_xdp:{name}"),
            Self::Tap(name) => write!(f, "tap:{name}"),
            Self::Memif(path) => write!(f, "memif:{}", path.display()),
            Self::Ring(name) => write!(f, "ring:{name}"),
            Self::Pcap(path) => write!(f, "pcap:{}", path.display()),
            Self::Null => f.write_str("null"),
        }
    }
}

/// Reads `KIND:ARGUMENT`, or `null`. A PCI address is completed and lower-cased: `3B:00.0` is `0000:3b:00.0`.
///
/// Errors: an unknown kind, or an argument that the kind cannot have.
impl FromStr for Device {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (kind, argument) = text.split_once(':').unwrap_or((text, ""));
        let whole = |reason: String| ValueError(format!("{}: {reason}", show(text)));
        match kind {
            "pci" => pci_address(argument).map(Self::Pci).ok_or_else(|| {
                whole(
                    "not a PCI address: write pci:DOMAIN:BUS:DEVICE.FUNCTION, such as \"pci:0000:3b:00.0\""
                        .to_owned(),
                )
            }),
            "af_packet" => interface(argument).map(Self::AfPacket).map_err(whole),
            "af_xdp" => interface(argument).map(Self::AfXdp).map_err(whole),
            "tap" => interface(argument).map(Self::Tap).map_err(whole),
            "memif" => file_path(argument, SOCKET_PATH_LEN).map(|p| Self::Memif(p.into())).map_err(whole),
            "pcap" => file_path(argument, PATH_LEN).map(|p| Self::Pcap(p.into())).map_err(whole),
            "ring" => ring_name(argument).map(Self::Ring).map_err(whole),
            "null" if text == "null" => Ok(Self::Null),
            "null" => Err(whole("null takes no argument".to_owned())),
            _ => Err(unknown_kind(text, kind)),
        }
    }
}

/// Longest path of a file, bytes. Source: `PATH_MAX` of linux/limits.h less its zero.
const PATH_LEN: usize = 4095;

fn unknown_kind(text: &str, kind: &str) -> ValueError {
    let hint = match nearest(kind, KINDS) {
        Some(near) => format!("; did you mean \"{near}\"?"),
        None => String::new(),
    };
    ValueError(format!(
        "{} is not a device (KIND:ARGUMENT with a kind of {}){hint}",
        show(text),
        KINDS.join(", ")
    ))
}

/// Canonical form of `[DOMAIN:]BUS:DEVICE.FUNCTION`. Source: lspci(8), `-D`; device below 32, function below 8.
fn pci_address(text: &str) -> Option<String> {
    let hex = |part: &str, width: usize| {
        let digits = !part.is_empty() && part.len() <= width && part.bytes().all(|b| b.is_ascii_hexdigit());
        if digits { u32::from_str_radix(part, 16).ok() } else { None }
    };
    let (rest, function) = text.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let device = hex(parts.next()?, 2).filter(|d| *d < 32)?;
    let bus = hex(parts.next()?, 2)?;
    let domain = parts.next().map_or(Some(0), |part| hex(part, 4))?;
    let function = hex(function, 1).filter(|f| *f < 8)?;
    match parts.next() {
        None => Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}")),
        Some(_) => None,
    }
}

/// Checks the name of a kernel interface. Source: `dev_valid_name` of Linux; comma and brackets are ours (DPDK arguments).
pub(crate) fn interface(name: &str) -> Result<String, String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | ',' | '[' | ']');
    if name.is_empty() || name.len() > INTERFACE_NAME_LEN || name == "." || name == ".." || name.contains(bad)
    {
        return Err(format!(
            "not an interface name: 1 to {INTERFACE_NAME_LEN} bytes without white space and / : , [ ]"
        ));
    }
    Ok(name.to_owned())
}

fn ring_name(name: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if name.is_empty() || name.len() > RING_NAME_LEN || !name.bytes().all(good) {
        return Err(format!("not a ring name: 1 to {RING_NAME_LEN} of A-Z a-z 0-9 _ -"));
    }
    Ok(name.to_owned())
}

/// Checks an absolute path that may stand in a DPDK argument; `limit` in bytes.
fn file_path(path: &str, limit: usize) -> Result<String, String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '[' | ']');
    if !Path::new(path).is_absolute() || path.len() > limit || path.contains(bad) {
        return Err(format!("not an absolute path of at most {limit} bytes without white space and , [ ]"));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back() {
        for text in [
            "pci:0000:3b:00.0",
            "af_packet:eth0",
            "af_xdp:ens3f0np0",
            "tap:lb0",
            "memif:/run/memif.sock",
            "ring:a-1",
            "pcap:/tmp/in.pcap",
            "null",
        ] {
            assert_eq!(text.parse::<Device>().map(|d| d.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("pci:3B:0.1".parse(), Ok(Device::Pci("0000:3b:00.1".to_owned())));
    }

    #[test]
    fn each_fault_is_named() {
        let err = |text: &str| text.parse::<Device>().map_err(|e| e.to_string()).unwrap_err();
        let pci = "not a PCI address: write pci:DOMAIN:BUS:DEVICE.FUNCTION, such as \"pci:0000:3b:00.0\"";
        for text in [
            "pci:",
            "pci:0000:3b:20.0",
            "pci:0000:3b:00.8",
            "pci:0:0000:3b:00.0",
            "pci:g:00.0",
            "pci:+1:00.0",
        ] {
            assert_eq!(err(text), format!("\"{text}\": {pci}"));
        }
        let interface = "not an interface name: 1 to 15 bytes without white space and / : , [ ]";
        for text in [
            "af_packet:",
            "tap:a,b=c",
            "af_xdp:a b",
            "tap:0123456789abcdef",
            "af_packet:a/b",
            "tap:..",
            "tap:[a",
        ] {
            assert_eq!(err(text), format!("\"{text}\": {interface}"));
        }
        assert_eq!(err("ring:a,b"), "\"ring:a,b\": not a ring name: 1 to 20 of A-Z a-z 0-9 _ -");
        assert_eq!(
            err("memif:run/x"),
            "\"memif:run/x\": not an absolute path of at most 107 bytes without white space and , [ ]"
        );
        assert_eq!(
            err("pcap:/a,b"),
            "\"pcap:/a,b\": not an absolute path of at most 4095 bytes without white space and , [ ]"
        );
        assert_eq!(err("null:x"), "\"null:x\": null takes no argument");
        assert_eq!(
            err("af_paket:eth0"),
            "\"af_paket:eth0\" is not a device (KIND:ARGUMENT with a kind of pci, af_packet, af_xdp, tap, memif, \
             ring, pcap, null); did you mean \"af_packet\"?"
        );
    }
}

//! Tests of the crate as a whole: the documented example, properties; and helpers for the others.

mod example;
mod full_nat;
mod ha;
mod ipvs_sync;
mod properties;
mod sync;

use crate::{Model, parse};

/// The smallest configuration, with room for more at its end.
pub(crate) const SMALL: &str = "\
[[ports]]
name = \"lan\"
device = \"null\"
addresses = [\"192.168.150.11/24\", \"fd00::11/64\"]

[[services]]
name = \"web\"
vip = \"192.168.150.100\"
port = 80

[[services.servers]]
address = \"192.168.150.12\"

[[services.servers]]
address = \"192.168.150.13\"
";

/// The Model of [`SMALL`].
pub(crate) fn small() -> Model {
    parse(SMALL).unwrap()
}

/// The faults of a text, one per line.
pub(crate) fn faults(text: &str) -> String {
    match parse(text) {
        Ok(_) => "no fault".to_owned(),
        Err(faults) => faults.to_string(),
    }
}

/// The faults of [`SMALL`] with one piece of its text replaced, one per line.
pub(crate) fn faults_with(piece: &str, by: &str) -> String {
    assert!(SMALL.contains(piece), "{piece} is in the small configuration");
    faults(&SMALL.replacen(piece, by, 1))
}

/// The faults of [`SMALL`] with more text at its end, one per line. The text begins on line 16.
pub(crate) fn faults_after(more: &str) -> String {
    faults(&format!("{SMALL}{more}"))
}

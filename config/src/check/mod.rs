//! What values mean, alone and together: the one set of checks that files and edits pass through.
//!
//! A check looks at a [`Draft`], passes by what is `None` (its fault is reported), and names the object, the
//! value and the limit.

mod address;
mod appliance;
mod full_nat;
mod ipvs_sync;
mod lease;
mod networks;
mod path;
mod ports;
mod servers;
mod services;
mod snat;
mod sync;
mod vrrp;

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::bounds::{MAX_TIMEOUT, MIN_TIMEOUT, NAME_LEN};
use crate::draft::Draft;
use crate::duration;
use crate::fault::Problems;
use crate::path::{Path, toml_path};
use crate::text::show;

/// Runs every check.
pub(crate) fn check(draft: &Draft, problems: &mut Problems) {
    appliance::check(draft, problems);
    let wire = ports::check(draft, problems);
    address::marks(draft, &wire, problems);
    services::check(draft, &wire, problems);
    snat::check(draft, &wire, problems);
    crate::health::check_notify(&draft.notify, problems);
    if let Some(mail) = &draft.notify.mail {
        crate::health::check_mail(mail, problems);
    }
    vrrp::check(draft, &wire, problems);
    sync::check(draft, problems);
    ipvs_sync::check(draft, problems);
}

/// Whether `name` is 1 to `max` letters, digits, `.`, `_` and `-`.
fn name(name: &str, max: usize) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > max || !name.bytes().all(good) {
        return Err(format!("{} is not a name: 1 to {max} of A-Z a-z 0-9 . _ -", show(name)));
    }
    Ok(())
}

/// Checks the names of ports or services: their letters, and that none is used twice.
fn names<'d>(names: impl Iterator<Item = Option<&'d str>>, section: &'static str, problems: &mut Problems) {
    let mut firsts = Firsts::default();
    for (index, text) in names.enumerate() {
        let Some(text) = text else { continue };
        if let Err(message) = name(text, NAME_LEN) {
            problems.add(toml_path!(section, index, "name"), message);
        }
        if let Some(first) = firsts.repeats(text, index) {
            let message = format!("{} is already the name of {section}[{first}]", show(text));
            problems.add(toml_path!(section, index, "name"), message);
        }
    }
}

/// Checks the range of a timeout, and that its text form is exact.
fn timeout(timeout: Duration, path: impl FnOnce() -> Path, problems: &mut Problems) {
    if !timeout.subsec_nanos().is_multiple_of(1_000_000) {
        problems.add(path(), format!("{timeout:?} is not a whole number of milliseconds"));
    } else if timeout < MIN_TIMEOUT {
        let (got, limit) = (duration::format(timeout), duration::format(MIN_TIMEOUT));
        problems.add(path(), format!("{got} is below the limit {limit}"));
    } else if timeout > MAX_TIMEOUT {
        let (got, limit) = (duration::format(timeout), duration::format(MAX_TIMEOUT));
        problems.add(path(), format!("{got} is above the limit {limit} (18h)"));
    }
}

/// Remembers where each value was seen first.
struct Firsts<K>(HashMap<K, usize>);

impl<K> Default for Firsts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Firsts<K> {
    /// Where `key` was seen before, if it was.
    fn repeats(&mut self, key: K, index: usize) -> Option<usize> {
        let first = *self.0.entry(key).or_insert(index);
        (first != index).then_some(first)
    }
}

#[cfg(test)]
mod tests;

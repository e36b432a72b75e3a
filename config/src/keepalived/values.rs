//! Values of keepalived's keys.

use std::net::IpAddr;
use std::time::Duration;

use super::Import;
use super::lex::{Entry, arguments};
use crate::bounds;

impl Import {
    /// Notes why an entry is not carried over.
    pub(super) fn note(&mut self, entry: &Entry, why: impl AsRef<str>) {
        self.notes.add(entry.at, entry.key(), why.as_ref());
    }

    /// Notes that nothing here stands for an entry.
    pub(super) fn skip(&mut self, entry: &Entry) {
        self.notes.skip(entry.at, entry.key());
    }

    /// The first word behind the key.
    pub(super) fn word<'e>(&mut self, entry: &'e Entry) -> Option<&'e str> {
        let word = entry.arg(1);
        if word.is_none() {
            self.note(entry, "has no value");
        }
        word
    }

    /// A whole number from `min` to `max`, in place `at`.
    pub(super) fn number_at<T: TryFrom<i64>>(
        &mut self,
        entry: &Entry,
        at: usize,
        min: i64,
        max: i64,
    ) -> Option<T> {
        let Some(text) = entry.arg(at) else {
            self.note(entry, "has no value");
            return None;
        };
        match text.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => T::try_from(number).ok(),
            Ok(number) => {
                self.note(entry, format!("{number} is not {min} to {max}"));
                None
            }
            Err(_) => {
                self.note(entry, format!("{} is no whole number", crate::text::show(text)));
                None
            }
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, entry: &Entry, min: i64, max: i64) -> Option<T> {
        self.number_at(entry, 1, min, max)
    }

    /// A yes or no; nothing is a yes.
    pub(super) fn flag(&mut self, entry: &Entry) -> bool {
        match entry.arg(1).map(str::to_ascii_lowercase).as_deref() {
            None | Some("on" | "true" | "yes" | "1") => true,
            Some("off" | "false" | "no" | "0") => false,
            Some(_) => {
                self.note(entry, "is neither on nor off; taken for on");
                true
            }
        }
    }

    /// Seconds with a fraction, in place `at`, as milliseconds.
    pub(super) fn timer_at(&mut self, entry: &Entry, at: usize) -> Option<Duration> {
        let Some(text) = entry.arg(at) else {
            self.note(entry, "has no value");
            return None;
        };
        match seconds(text) {
            Some(time) if time.subsec_nanos().is_multiple_of(1_000_000) => Some(time),
            Some(time) => {
                let rounded = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0) + 1);
                self.note(entry, format!("{text} is rounded up to whole milliseconds"));
                Some(rounded)
            }
            None => {
                self.note(entry, format!("{} is no time in seconds", crate::text::show(text)));
                None
            }
        }
    }

    /// Seconds from `min` to `max`.
    pub(super) fn timer(&mut self, entry: &Entry, min: Duration, max: Duration) -> Option<Duration> {
        let time = self.timer_at(entry, 1)?;
        if (min..=max).contains(&time) {
            return Some(time);
        }
        let text = crate::duration::format;
        self.note(entry, format!("{} is not {} to {}", text(time), text(min), text(max)));
        None
    }

    /// A time of a health check.
    pub(super) fn check_time(&mut self, entry: &Entry) -> Option<Duration> {
        self.timer(entry, bounds::MIN_CHECK_TIME, bounds::MAX_CHECK_TIME)
    }

    /// An address in place `at`; the length of a prefix behind it is passed by.
    pub(super) fn ip_at(&mut self, entry: &Entry, at: usize) -> Option<IpAddr> {
        let Some(text) = entry.arg(at) else {
            self.note(entry, "has no address");
            return None;
        };
        let address = text.split_once('/').map_or(text, |(address, _)| address).parse().ok();
        if address.is_none() {
            self.note(entry, format!("{} is no address", crate::text::show(text)));
        }
        address
    }

    /// A program with its arguments, all words of the entry.
    pub(super) fn command(&mut self, entry: &Entry) -> Vec<String> {
        match entry.args() {
            [one] => command(one),
            words => command(&words.join(" ")),
        }
    }

    /// A program (one word, in quotes if it has arguments) and the user that it runs as.
    pub(super) fn program(&mut self, entry: &Entry) -> (Vec<String>, Option<String>) {
        let Some(text) = self.word(entry) else { return (Vec::new(), None) };
        if entry.arg(3).is_some() {
            self.note(entry, "runs with the groups of its user, not with the one given");
        }
        (command(text), entry.arg(2).map(str::to_owned))
    }

    /// Port of the director that stands for an interface.
    pub(super) fn port_of(&mut self, entry: &Entry, interface: &str) -> String {
        let interface = interface.split(':').next().unwrap_or_default();
        if let Some(port) = self.base.ports.get(interface) {
            return port.clone();
        }
        let port = name_of(interface);
        if self.base.given {
            self.note(
                entry,
                format!("{} is no interface of a port in [[ports]]", crate::text::show(interface)),
            );
        } else if !self.interfaces.contains(&port) {
            self.interfaces.push(port.clone());
        }
        port
    }

    /// Gives an object its name here: letters that names may have, none twice. `kind`: the key of its list.
    pub(super) fn named(&mut self, kind: &'static str, there: &str) -> String {
        let plain = name_of(there);
        let taken = |name: &str, names: &std::collections::HashMap<(&'static str, String), String>| {
            names.iter().any(|((of, _), here)| *of == kind && here == name)
        };
        let mut name = plain.clone();
        let mut count = 1;
        while taken(&name, &self.names) {
            count += 1;
            let end = format!("-{count}");
            let room = bounds::NAME_LEN.saturating_sub(end.len());
            name = plain.chars().take(room).collect::<String>() + &end;
        }
        self.names.insert((kind, there.to_owned()), name.clone());
        name
    }
}

/// Seconds as keepalived reads them: digits, and six behind a point at most.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.is_empty() && part.is_empty() || whole.len() > 9 {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let micros: u32 = format!("{part:0<6}").get(..6)?.parse().ok()?;
    Some(Duration::new(whole, micros * 1000))
}

/// Words of a command. keepalived looks for a program in `PATH`, which env(1) does here; what needs a shell gets one.
pub(super) fn command(text: &str) -> Vec<String> {
    let text = text.trim();
    if text.contains(['|', '&', ';', '<', '>']) {
        // The shell's own devices are those of bash.
        let shell =
            if text.contains("/dev/tcp/") || text.contains("/dev/udp/") { "/bin/bash" } else { "/bin/sh" };
        return vec![shell.to_owned(), "-c".to_owned(), text.to_owned()];
    }
    let mut words = arguments(text);
    if words.first().is_some_and(|program| !program.starts_with('/')) {
        words.insert(0, "/usr/bin/env".to_owned());
    }
    words
}

/// A text as a name: other characters become `-`.
pub(super) fn name_of(text: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = text.chars().map(good).take(bounds::NAME_LEN).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

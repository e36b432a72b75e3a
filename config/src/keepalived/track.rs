//! What instances track: `vrrp_script`, `vrrp_track_process`, `track_file`, `bfd_instance`.

use std::time::Duration;

use super::Import;
use super::lex::Entry;
use super::note::At;
use crate::bounds;
use crate::vrrp::{Bfd, Track, Tracked, VrrpFile, VrrpProcess, VrrpScript};

/// A script without one: 4,294,967,295 s at most, as keepalived; here a day.
const DAY: Duration = bounds::CHECK_TIME.1;

impl Import {
    /// Reads all objects that instances may track.
    pub(super) fn tracked(&mut self, tree: &[Entry]) {
        for entry in tree {
            match entry.key() {
                "vrrp_script" => self.script(entry),
                "vrrp_track_process" => self.process(entry),
                "track_file" | "vrrp_track_file" => self.file(entry),
                "bfd_instance" => self.bfd(entry),
                _ => {}
            }
        }
    }

    /// Names the object of a block. `kind`: the key of its list.
    fn object(&mut self, entry: &Entry, kind: &'static str) -> Option<String> {
        let name = self.word(entry)?;
        if self.names.contains_key(&(kind, name.to_owned())) {
            self.note(entry, format!("{} is there already", crate::text::show(name)));
            return None;
        }
        Some(self.named(kind, name))
    }

    pub(super) fn place(&mut self, kind: &'static str, at: At) {
        self.places.entry(kind).or_default().push(at);
    }

    /// `weight N [reverse]`. Reversed weights are those of what is tracked.
    pub(super) fn weight(&mut self, entry: &Entry) -> Option<i16> {
        if entry.arg(2) == Some("reverse") {
            self.note(entry, "reverse is carried over where the object is tracked only");
        }
        let most = i64::from(bounds::TRACK_WEIGHT);
        self.number(entry, -most, most)
    }

    fn script(&mut self, entry: &Entry) {
        let Some(name) = self.object(entry, "vrrp_scripts") else { return };
        let user = self.global.user.clone();
        let mut script = VrrpScript { name, user, ..VrrpScript::default() };
        let mut timeout = None;
        for entry in entry.inner() {
            match entry.key() {
                "script" => script.command = self.command(entry),
                "interval" => {
                    script.interval = self.timer(entry, bounds::CHECK_TIME.0, DAY).unwrap_or(script.interval);
                }
                "timeout" => timeout = self.timer(entry, Duration::ZERO, DAY).filter(|time| !time.is_zero()),
                "rise" => script.rise = self.number(entry, 1, 255).unwrap_or(script.rise),
                "fall" => script.fall = self.number(entry, 1, 255).unwrap_or(script.fall),
                "weight" => script.weight = self.weight(entry).unwrap_or(script.weight),
                "user" => script.user = self.user(entry),
                "init_fail" => script.init_fail = true,
                _ => self.skip(entry),
            }
        }
        script.timeout = timeout.unwrap_or(script.interval);
        if script.command.is_empty() {
            self.names.remove(&("vrrp_scripts", entry.arg(1).unwrap_or_default().to_owned()));
            return self.note(entry, "has no script");
        }
        self.ha.scripts.push(script);
        self.place("vrrp_scripts", entry.at);
    }

    /// `user NAME [GROUP]`
    pub(super) fn user(&mut self, entry: &Entry) -> Option<String> {
        if entry.arg(2).is_some() {
            self.note(entry, "runs with the groups of its user, not with the one given");
        }
        self.word(entry).map(str::to_owned)
    }

    fn process(&mut self, entry: &Entry) {
        let Some(name) = self.object(entry, "vrrp_processes") else { return };
        let mut process = VrrpProcess { name, ..VrrpProcess::default() };
        for entry in entry.inner() {
            match entry.key() {
                "process" => {
                    process.command = match entry.args() {
                        [one] => super::lex::arguments(one),
                        words => words.to_vec(),
                    };
                }
                "param_match" => {
                    if entry.arg(1) != Some("initial") {
                        self.note(
                            entry,
                            "is not offered: the arguments given must be among the process's own",
                        );
                    }
                }
                "full_command" => {}
                "weight" => process.weight = self.weight(entry).unwrap_or(process.weight),
                "quorum" => process.quorum = self.number(entry, 0, 65_535).unwrap_or(process.quorum),
                "quorum_max" => {
                    process.quorum_max = self.number(entry, 0, 65_535).unwrap_or(process.quorum_max)
                }
                "delay" => process.delay = self.timer(entry, Duration::ZERO, DAY).unwrap_or(process.delay),
                _ => self.skip(entry),
            }
        }
        self.ha.processes.push(process);
        self.place("vrrp_processes", entry.at);
    }

    fn file(&mut self, entry: &Entry) {
        let Some(name) = self.object(entry, "vrrp_files") else { return };
        let mut file = VrrpFile { name, ..VrrpFile::default() };
        for entry in entry.inner() {
            match entry.key() {
                "file" => file.path = self.word(entry).unwrap_or_default().to_owned(),
                "weight" => file.weight = self.weight(entry).unwrap_or(file.weight),
                _ => self.skip(entry),
            }
        }
        self.ha.files.push(file);
        self.place("vrrp_files", entry.at);
    }

    fn bfd(&mut self, entry: &Entry) {
        let Some(name) = self.object(entry, "bfd") else { return };
        // keepalived's default.
        let mut bfd = Bfd { name, multiplier: 5, ..Bfd::default() };
        let mut neighbor = None;
        let (least, most) = bounds::BFD_INTERVAL;
        for entry in entry.inner() {
            let mut time = |of: &mut Duration| {
                let range = (least.as_millis() as i64, most.as_millis() as i64);
                // Milliseconds, unlike all other times.
                if let Some(ms) = self.number(entry, range.0, range.1) {
                    *of = Duration::from_millis(ms);
                }
            };
            match entry.key() {
                "neighbor_ip" | "neighbour_ip" => neighbor = self.ip_at(entry, 1),
                "source_ip" => bfd.source = self.ip_at(entry, 1),
                "min_rx" => time(&mut bfd.min_rx),
                "min_tx" => time(&mut bfd.min_tx),
                "idle_tx" => time(&mut bfd.idle_tx),
                "multiplier" => bfd.multiplier = self.number(entry, 1, 255).unwrap_or(bfd.multiplier),
                "passive" => bfd.passive = true,
                "max_hops" => {
                    if let Some(hops) = self.number::<u8>(entry, 0, 254) {
                        bfd.min_ttl = 255 - hops;
                    }
                }
                "ttl" | "hoplimit" if entry.arg(1) == Some("255") => {}
                "ttl" | "hoplimit" => {
                    self.note(entry, "is not offered: packets leave with 255, as RFC 5881 has it")
                }
                "multihop" => {
                    self.note(entry, "is not offered: a session is with a direct neighbour (RFC 5881)")
                }
                "weight" => bfd.weight = self.weight(entry).unwrap_or(bfd.weight),
                "vrrp" => {}
                "checker" => self.note(entry, "is not offered: servers are not checked by BFD"),
                _ => self.skip(entry),
            }
        }
        let Some(neighbor) = neighbor else {
            self.names.remove(&("bfd", entry.arg(1).unwrap_or_default().to_owned()));
            return self.note(entry, "has no neighbor_ip");
        };
        bfd.neighbor = neighbor;
        let near = self.base.port_to(bfd.source.unwrap_or(neighbor)).map(str::to_owned);
        bfd.port = match near {
            Some(port) => port,
            // Of the file's interfaces nothing tells which it is; a wrong one is told when the whole is checked.
            None => {
                let port = self.global.interface.clone().unwrap_or_else(|| "lan".to_owned());
                self.note(entry, format!("is put on port {port}: the file does not say which it is over"));
                port
            }
        };
        self.ha.bfd.push(bfd);
        self.place("bfd", entry.at);
    }

    /// `track_script`, `track_interface` and their like: a line each, `NAME [weight N] [reverse]`.
    pub(super) fn tracks(&mut self, entry: &Entry) -> Vec<Track> {
        let mut tracks: Vec<Track> = Vec::new();
        for line in entry.inner() {
            let name = line.key().to_owned();
            let kind = match entry.key() {
                "track_script" => "vrrp_scripts",
                "track_process" => "vrrp_processes",
                "track_file" => "vrrp_files",
                "track_bfd" => "bfd",
                _ => "ports",
            };
            let here = match kind {
                "ports" => {
                    let port = self.port_of(line, &name);
                    if self.base.given && !self.base.ports.contains_key(&name) {
                        continue;
                    }
                    port
                }
                _ => match self.names.get(&(kind, name.clone())) {
                    Some(here) => here.clone(),
                    None => {
                        self.note(line, format!("is not the name of one of {kind}"));
                        continue;
                    }
                },
            };
            let what = match kind {
                "vrrp_scripts" => Tracked::Script(here),
                "vrrp_processes" => Tracked::Process(here),
                "vrrp_files" => Tracked::File(here),
                "bfd" => Tracked::Bfd(here),
                _ => Tracked::Port(here),
            };
            let mut track = Track { what, weight: None, reverse: false };
            let mut words = line.words.iter().enumerate().skip(1);
            while let Some((at, word)) = words.next() {
                match word.as_str() {
                    "weight" => {
                        let most = i64::from(bounds::TRACK_WEIGHT);
                        track.weight = self.number_at(line, at + 1, -most, most);
                        words.next();
                    }
                    "reverse" => track.reverse = true,
                    "no_reverse" | "noreverse" => track.reverse = false,
                    _ => {
                        self.note(line, format!("{} is neither weight nor reverse", crate::text::show(word)))
                    }
                }
            }
            if tracks.iter().any(|other| other.what == track.what) {
                self.note(line, "is tracked already");
            } else {
                tracks.push(track);
            }
        }
        tracks
    }
}

//! The end of an import: what the checks would refuse is taken out and noted, the rest is written.

use std::fmt::Write;
use std::time::Duration;

use toml::de::DeTable;

use super::note::At;
use super::{Import, Imported};
use crate::check::check;
use crate::draft::DraftService;
use crate::fault::{Problem, Problems};
use crate::fields::TIMEOUTS;
use crate::path::{Path, Step};
use crate::{Tracked, duration, services_to_toml};

impl Import {
    /// Takes out what a configuration cannot have, and writes what is left.
    pub(super) fn finish(mut self) -> Imported {
        // Every round takes out something; what is taken out may be missed by something else.
        while let Some(problems) = self.problems() {
            let mut done: Vec<String> = Vec::new();
            // From the last to the first: places in front of what goes stay what they are.
            for problem in problems.iter().rev() {
                self.take_out(problem, &mut done);
            }
            if done.is_empty() {
                break;
            }
        }
        let toml = self.toml();
        Imported { toml, notes: self.notes.sorted() }
    }

    /// What the checks find of what was imported, whatever the ports are.
    fn problems(&self) -> Option<Vec<Problem>> {
        let empty = DeTable::parse("").ok()?;
        let mut draft = crate::read::document(empty.get_ref(), &mut Problems::default());
        draft.ports = None;
        draft.services = self.services.iter().map(|from| DraftService::from(&from.service)).collect();
        draft.ha = self.ha.clone();
        draft.notify = self.notify.clone();
        let mut problems = Problems::default();
        check(&draft, &mut problems);
        problems
            .list
            .sort_by_key(|problem| place(problem).map(|(_, index, inner)| (index, inner.unwrap_or(0))));
        (!problems.list.is_empty()).then_some(problems.list)
    }

    /// Takes out the object of a problem, once in a round.
    fn take_out(&mut self, problem: &Problem, done: &mut Vec<String>) {
        let inside = Path(problem.path.0.iter().skip(2).cloned().collect());
        let message = format!("is left out: {inside}: {}", problem.message);
        let Some((key, index, inner)) = place(problem) else {
            let at = self.places.get("notify").and_then(|places| places.first()).copied().unwrap_or_default();
            if problem.path.0.first() == Some(&Step::Key("notify".into())) && self.notify.mail.is_some() {
                self.notes.add(at, "global_defs", &format!("mails: {}: {message}", problem.path));
                self.notify.mail = None;
                done.push("notify".to_owned());
            } else if problem.path.0.first() == Some(&Step::Key("notify".into()))
                && self.notify.user.is_some()
            {
                self.notes.add(at, "script_user", &message);
                self.notify.user = None;
                done.push("notify".to_owned());
            }
            return;
        };
        let object = format!("{key}[{index}]");
        if done.contains(&object) {
            return;
        }
        if key == "services" {
            let Some(from) = self.services.get_mut(index) else { return };
            match inner.filter(|at| *at < from.service.servers.len()) {
                Some(at) => {
                    if done.contains(&format!("{object}.{at}")) {
                        return;
                    }
                    done.push(format!("{object}.{at}"));
                    from.service.servers.remove(at);
                    let line = if at < from.servers.len() { from.servers.remove(at) } else { from.at };
                    self.notes.add(line, "real_server", &message);
                }
                None => {
                    let from = self.services.remove(index);
                    self.notes.add(from.at, "virtual_server", &message);
                    done.push(object);
                }
            }
            return;
        }
        if key == "vrrp" && self.leave_out_part(index, problem) {
            let at = self.places.get(key).and_then(|places| places.get(index)).copied().unwrap_or_default();
            self.notes.add(at, "vrrp_instance", &message);
            // One part in a round: places behind it are others then.
            done.push(object);
            return;
        }
        let places = self.places.entry(key).or_default();
        let at = if index < places.len() { places.remove(index) } else { At::default() };
        let there = match key {
            "vrrp" if index < self.ha.vrrp.len() => {
                self.leave(index);
                "vrrp_instance"
            }
            "vrrp_groups" if index < self.ha.groups.len() => {
                self.ha.groups.remove(index);
                "vrrp_sync_group"
            }
            "vrrp_scripts" if index < self.ha.scripts.len() => {
                let gone = self.ha.scripts.remove(index).name;
                self.forget(&Tracked::Script(gone));
                "vrrp_script"
            }
            "vrrp_processes" if index < self.ha.processes.len() => {
                let gone = self.ha.processes.remove(index).name;
                self.forget(&Tracked::Process(gone));
                "vrrp_track_process"
            }
            "vrrp_files" if index < self.ha.files.len() => {
                let gone = self.ha.files.remove(index).name;
                self.forget(&Tracked::File(gone));
                "track_file"
            }
            "bfd" if index < self.ha.bfd.len() => {
                let gone = self.ha.bfd.remove(index).name;
                self.forget(&Tracked::Bfd(gone));
                "bfd_instance"
            }
            "ipvs_sync" if index < self.ha.ipvs_sync.len() => {
                self.ha.ipvs_sync.remove(index);
                "lvs_sync_daemon"
            }
            _ => return,
        };
        self.notes.add(at, there, &message);
        done.push(object);
    }

    /// Takes out the address, peer or tracked object of an instance that a problem is about; false: it is about no such.
    fn leave_out_part(&mut self, index: usize, problem: &Problem) -> bool {
        let (Some(Step::Key(list)), Some(Step::Index(at))) = (problem.path.0.get(2), problem.path.0.get(3))
        else {
            return false;
        };
        let Some(vrrp) = self.ha.vrrp.get_mut(index) else { return false };
        let at = *at;
        match list.as_ref() {
            "virtual_addresses" if at < vrrp.virtual_addresses.len() => {
                drop(vrrp.virtual_addresses.remove(at))
            }
            "excluded_addresses" if at < vrrp.excluded_addresses.len() => {
                drop(vrrp.excluded_addresses.remove(at))
            }
            "peers" if at < vrrp.peers.len() => drop(vrrp.peers.remove(at)),
            "track" if at < vrrp.track.len() => drop(vrrp.track.remove(at)),
            _ => return false,
        }
        true
    }

    /// Takes out an instance, from its group too.
    fn leave(&mut self, index: usize) {
        let gone = self.ha.vrrp.remove(index).name;
        self.ha.groups.iter_mut().for_each(|group| group.instances.retain(|name| *name != gone));
    }

    /// Has nothing track what is not there.
    fn forget(&mut self, gone: &Tracked) {
        self.ha.vrrp.iter_mut().for_each(|vrrp| vrrp.track.retain(|track| track.what != *gone));
        self.ha.groups.iter_mut().for_each(|group| group.track.retain(|track| track.what != *gone));
    }

    fn toml(&self) -> String {
        let absent = |table: &str| !self.base.tables.iter().any(|there| there == table);
        let mut out = self.base.text.clone();
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        if !self.base.given {
            self.ports(&mut out);
        }
        if let Some(name) = self.name.as_ref().filter(|_| absent("appliance")) {
            header(&mut out, "[appliance]");
            // A name needs no escapes.
            let _ = writeln!(out, "name = \"{name}\"");
        }
        if !self.timeouts.is_empty() && absent("timeouts") {
            header(&mut out, "[timeouts]");
            for field in &TIMEOUTS {
                let last = self.timeouts.iter().rev().find(|(key, _)| *key == field.key);
                if let Some((key, seconds)) = last {
                    let _ = writeln!(
                        out,
                        "{key} = \"{}\"",
                        duration::format(Duration::from_secs((*seconds).into()))
                    );
                }
            }
        }
        if self.notify != Default::default() && absent("notify") {
            header(&mut out, "[notify]");
            for (key, value) in &self.notify.entries().0 {
                let _ = writeln!(out, "{key} = {value}");
            }
        }
        if !self.services.is_empty() {
            let services: Vec<_> = self.services.iter().map(|from| from.service.clone()).collect();
            out.push_str(if out.is_empty() { "" } else { "\n" });
            out.push_str(&services_to_toml(&services));
        }
        for (name, entries) in self.ha.sections() {
            header(&mut out, &format!("[[{name}]]"));
            for (key, value) in entries {
                let _ = writeln!(out, "{key} = {value}");
            }
        }
        out
    }

    /// What the ports may be, to be filled in.
    fn ports(&self, out: &mut String) {
        out.push_str(
            "# Ports: keepalived leaves interfaces and their addresses to the kernel. Fill these in.\n",
        );
        let lan = ["lan".to_owned()];
        let interfaces = if self.interfaces.is_empty() { &lan[..] } else { &self.interfaces };
        for interface in interfaces {
            let device = if self.interfaces.is_empty() { "eth0" } else { interface };
            let _ = write!(
                out,
                "# [[ports]]\n# name = \"{interface}\"\n# device = \"af_packet:{device}\"\n# addresses = [\"ADDRESS/LENGTH\"]\n"
            );
        }
    }
}

fn header(out: &mut String, header: &str) {
    out.push_str(if out.is_empty() { "" } else { "\n" });
    out.push_str(header);
    out.push('\n');
}

/// The list that a problem is in, the place there, and of a service the server's.
fn place(problem: &Problem) -> Option<(&'static str, usize, Option<usize>)> {
    let mut steps = problem.path.0.iter();
    let (Some(Step::Key(key)), Some(Step::Index(index))) = (steps.next(), steps.next()) else { return None };
    let lists = [
        "services",
        "vrrp",
        "vrrp_groups",
        "vrrp_scripts",
        "vrrp_processes",
        "vrrp_files",
        "bfd",
        "ipvs_sync",
    ];
    let key = lists.into_iter().find(|list| list == key)?;
    let inner = match (steps.next(), steps.next()) {
        (Some(Step::Key(inner)), Some(Step::Index(at))) if inner == "servers" => Some(*at),
        _ => None,
    };
    Some((key, *index, inner))
}

//! `lvs_sync_daemon` of `global_defs`.

use super::Import;
use super::lex::Entry;
use crate::bounds;
use crate::ipvs_sync::{IpvsSync, IpvsSyncState};
use crate::text::show;

/// Words that a value follows.
const WORDS: [&str; 6] = ["inst", "id", "maxlen", "port", "ttl", "group"];

/// What stands behind the interface.
#[derive(Default)]
struct Said {
    instance: Option<String>,
    id: Option<u8>,
    max_length: Option<u16>,
    port: Option<u16>,
    ttl: Option<u8>,
    group: Option<std::net::IpAddr>,
}

impl Import {
    /// `lvs_sync_daemon INTERFACE [[inst] VRRP_INSTANCE] [id ID] [maxlen BYTES] [port PORT] [ttl TTL] [group ADDRESS]`
    ///
    /// As by keepalived, both daemons are there: with an instance one of them at a time runs, by its state, else both.
    pub(super) fn lvs_sync(&mut self) {
        let Some(entry) = self.global.lvs_sync.take() else { return };
        if self.base.tables.iter().any(|table| table == "ipvs_sync") {
            return self.note(&entry, "is left out: [[ipvs_sync]] is there already");
        }
        let Some(interface) = self.word(&entry).map(str::to_owned) else { return };
        let Some(interface) = self.kernel_interface(&entry, &interface) else { return };
        let said = self.said(&entry);
        let vrrp = match &said.instance {
            None => None,
            Some(there) => {
                let here = self.names.get(&("vrrp", there.clone()));
                match here.and_then(|here| self.ha.vrrp.iter().find(|vrrp| vrrp.name == *here)) {
                    Some(vrrp) => Some((vrrp.name.clone(), vrrp.vrid)),
                    None => {
                        let why = format!("is left out: there is no vrrp_instance {}", show(there));
                        return self.note(&entry, why);
                    }
                }
            }
        };
        // keepalived's default; without an instance it is the kernel's.
        let id = said.id.or(vrrp.as_ref().map(|(_, vrid)| *vrid)).unwrap_or(0);
        for state in IpvsSyncState::ALL {
            let mut daemon = IpvsSync::new(state, interface.clone());
            daemon.vrrp = vrrp.as_ref().map(|(name, _)| name.clone());
            daemon.sync_id = id;
            daemon.group = said.group.unwrap_or(daemon.group);
            daemon.max_length = said.max_length.unwrap_or(IpvsSync::default_length(daemon.group));
            daemon.port = said.port.unwrap_or(daemon.port);
            daemon.ttl = said.ttl.unwrap_or(daemon.ttl);
            self.ha.ipvs_sync.push(daemon);
            self.place("ipvs_sync", entry.at);
        }
    }

    /// By which interface the kernel is on the network of one that the file names: a port may hold that one.
    fn kernel_interface(&mut self, entry: &Entry, there: &str) -> Option<String> {
        let Some(port) = self.base.ports.get(there).filter(|port| *port != there) else {
            return Some(there.to_owned());
        };
        if let Some(interface) = self.base.kernel.get(port) {
            return Some(interface.clone());
        }
        let why = format!(
            "is left out: {} is held by port {port}, and the kernel, whose interfaces the daemons use, reaches it with \
             exception = \"tap\" only",
            show(there)
        );
        self.note(entry, why);
        None
    }

    fn said(&mut self, entry: &Entry) -> Said {
        let mut said = Said::default();
        let mut words = entry.words.iter().enumerate().skip(2).peekable();
        while let Some((at, word)) = words.next() {
            let value = at + 1;
            let number = (1, i64::from(u16::MAX));
            match word.as_str() {
                "inst" => said.instance = entry.arg(value).map(str::to_owned),
                "id" => said.id = self.number_at(entry, value, 0, 255),
                "maxlen" => {
                    said.max_length = self.number_at(entry, value, 1, bounds::IPVS_SYNC_LENGTH.max.into());
                }
                "port" => said.port = self.number_at(entry, value, number.0, number.1),
                "ttl" => said.ttl = self.number_at(entry, value, 1, 255),
                "group" => said.group = self.ip_at(entry, value),
                // Without the word before them, as in older files: the instance, then the number.
                name if at == 2 => said.instance = Some(name.to_owned()),
                digits if at == 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                    said.id = self.number_at(entry, at, 0, 255);
                }
                other => {
                    let why = format!("{} is none of {}", show(other), WORDS.join(", "));
                    self.note(entry, why);
                }
            }
            if WORDS.contains(&word.as_str()) {
                words.next();
            }
        }
        said
    }
}

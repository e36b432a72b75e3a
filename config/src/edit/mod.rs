//! Imperative edits of a Model: what `lbctl service` and `lbctl server` do.
//!
//! An edit either leaves a valid Model, checked by the same checks as a file, or returns an error and has changed
//! nothing.
//!
//! Cost: a copy of the list of services, and a check of those that changed and of those that they may clash with (`partly`).

mod changes;
mod partly;
mod server_ref;
mod service_ref;

use std::net::IpAddr;
use std::time::Duration;

use crate::check::check;
use crate::draft::Draft;
use crate::fault::Problems;
use crate::fields::SERVICE_TIMEOUTS;
use crate::forwarding::{ClientAddress, Forwarding};
use crate::model::{Model, Persistence, Scheduler, SchedulerFlags, ServiceTimeouts};
use crate::path::{Path, Step, toml_path};
use crate::policy::ServicePolicy;
use crate::text::{ValueError, nearest, show};
pub use changes::*;
pub use partly::validate_change;
pub use server_ref::ServerRef;
pub use service_ref::ServiceRef;

/// Why an edit was refused. The Model is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is no such service.
    #[error("there is no service {0}")]
    NoService(ServiceRef),
    /// The service has no such server.
    #[error("service {service} has no server {server}")]
    NoServer {
        /// Name of the service.
        service: String,
        /// The server asked for.
        server: ServerRef,
    },
    /// A service has this name or key already.
    #[error("service {0} exists already")]
    ServiceExists(ServiceRef),
    /// The service has this server already.
    #[error("service {service} has the server {server} already")]
    ServerExists {
        /// Name of the service.
        service: String,
        /// The server given.
        server: ServerRef,
    },
    /// The Model would break these rules; each names the object, the value and the limit.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
}

/// What to change of a service. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEdit {
    /// New scheduler.
    pub scheduler: Option<Scheduler>,
    /// New flags of the scheduler.
    pub scheduler_flags: Option<SchedulerFlags>,
    /// New forwarding, which the servers that had the old one get too.
    pub forwarding: Option<Forwarding>,
    /// New persistence; `Some(None)`: none.
    pub persistence: Option<Option<Persistence>>,
    /// Whether every packet is scheduled anew.
    pub one_packet: Option<bool>,
    /// New policies, all of them.
    pub policy: Option<ServicePolicy>,
    /// New local addresses of full NAT, all of them.
    pub local_addresses: Option<Vec<IpAddr>>,
    /// How servers by full NAT are told who their client is.
    pub client_address: Option<ClientAddress>,
    /// New timeouts.
    pub timeouts: TimeoutsEdit,
}

/// What to change of a service's timeouts: `None` nothing, `Some(None)` back to the director's, else the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutsEdit {
    /// See [`ServiceTimeouts::tcp_established`].
    pub tcp_established: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_syn_sent`].
    pub tcp_syn_sent: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_syn_recv`].
    pub tcp_syn_recv: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_fin_wait`].
    pub tcp_fin_wait: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_time_wait`].
    pub tcp_time_wait: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_close`].
    pub tcp_close: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_close_wait`].
    pub tcp_close_wait: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_synack`].
    pub tcp_synack: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::udp`].
    pub udp: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::sctp_init`].
    pub sctp_init: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::sctp_handshake`].
    pub sctp_handshake: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::sctp_established`].
    pub sctp_established: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::sctp_shutdown`].
    pub sctp_shutdown: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::sctp_rejected`].
    pub sctp_rejected: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::sctp_closed`].
    pub sctp_closed: Option<Option<Duration>>,
}

impl TimeoutsEdit {
    /// Sets the timeout with this key of the file, as in `tcp_close_wait`; `None`: back to the director's.
    ///
    /// Errors: no timeout has this key; the message names those that there are.
    pub fn set(&mut self, key: &str, value: Option<Duration>) -> Result<(), ValueError> {
        let keys = || SERVICE_TIMEOUTS.iter().map(|field| field.key);
        let Some(field) = SERVICE_TIMEOUTS.iter().find(|field| field.key == key) else {
            let known: Vec<_> = keys().collect();
            let hint =
                nearest(key, keys()).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            let message = format!("{} is not a timeout (known: {}){hint}", show(key), known.join(", "));
            return Err(ValueError(message));
        };
        (field.put)(self, Some(value));
        Ok(())
    }

    /// Makes the changes.
    pub fn apply(&self, timeouts: &mut ServiceTimeouts) {
        for field in &SERVICE_TIMEOUTS {
            if let Some(value) = (field.edit)(self) {
                (field.set)(timeouts, value);
            }
        }
    }
}

/// What to change of a server. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerEdit {
    /// New weight, 0 to 65535.
    pub weight: Option<u32>,
    /// New forwarding.
    pub forwarding: Option<Forwarding>,
    /// New upper threshold, connections; 0: none.
    pub upper_threshold: Option<u32>,
    /// New lower threshold, connections; 0: three quarters of the upper one.
    pub lower_threshold: Option<u32>,
    /// New deadline of draining; `Some(None)`: none. A new weight above 0 takes it away as well.
    pub drain_deadline: Option<Option<Duration>>,
}

/// Checks a Model that was made by hand, by the rules for files.
///
/// Errors: [`EditError::Refused`] with every rule that is broken.
pub fn validate(model: &Model) -> Result<(), EditError> {
    let mut problems = Problems::default();
    check(&Draft::from(model), &mut problems);
    for (index, service) in model.services.iter().enumerate() {
        if service.address.canonical() != service.address {
            let message = format!("{} is one address and port, not a range", service.address.canonical());
            problems.add(toml_path!("services", index, "vip"), message);
        }
    }
    if problems.list.is_empty() {
        return Ok(());
    }
    let sentence = |p: &crate::fault::Problem| format!("{}: {}", name_object(model, &p.path), p.message);
    Err(EditError::Refused(problems.list.iter().map(sentence).collect()))
}

/// A path in an operator's words: `service web: server 192.168.150.12:80: weight`.
pub(crate) fn name_object(model: &Model, path: &Path) -> String {
    let (mut words, mut rest) = (Vec::new(), path.0.as_slice());
    if let [Step::Key(section), Step::Index(index), tail @ ..] = rest {
        match section.as_ref() {
            "services" => words.extend(model.services.get(*index).map(|s| format!("service {}", s.name))),
            "snat" => words.extend(model.snat.get(*index).map(|rule| format!("snat {}", rule.name))),
            kind @ ("vrrp" | "vrrp_groups" | "vrrp_scripts" | "vrrp_processes" | "vrrp_files" | "bfd"
            | "sync" | "ipvs_sync") => {
                let object = model.ha.sections().into_iter().filter(|(own, _)| *own == kind).nth(*index);
                let name = object.and_then(|(_, entries)| Some(entries.into_iter().next()?.1));
                words.extend(name.map(|name| format!("{kind} {}", name.trim_matches(['"', '\'']))));
            }
            "marks" => words.push(format!("mark rule {}", index + 1)),
            _ => words.extend(model.ports.get(*index).map(|p| format!("port {}", p.name))),
        }
        rest = tail;
        if let [Step::Key(list), Step::Index(at), Step::Key(_), ..] = rest
            && list == "servers"
        {
            let server = model.services.get(*index).and_then(|s| s.servers.get(*at));
            words.extend(server.map(|s| format!("server {}", s.key())));
            rest = &rest[2..];
        }
    }
    if !rest.is_empty() {
        words.push(Path(rest.to_vec()).to_string());
    }
    words.join(": ")
}

#[cfg(test)]
mod tests;

//! Imperative edits of a Model: what `lbctl service` and `lbctl server` do.
//!
//! An edit either leaves a valid Model, checked by the same checks as a file, or returns an error and has changed
//! nothing.
//!
//! Cost: one copy and one check of the whole Model per edit.

mod service_ref;

use std::net::IpAddr;
use std::time::Duration;

use crate::check::check;
use crate::draft::Draft;
use crate::fault::Problems;
use crate::fields::SERVICE_TIMEOUTS;
use crate::model::{Model, Scheduler, Server, Service, ServiceTimeouts};
use crate::path::{Path, Step};
pub use service_ref::ServiceRef;

/// Why an edit was refused. The Model is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is no such service.
    #[error("there is no service {0}")]
    NoService(ServiceRef),
    /// The service has no such server.
    #[error("service {service} has no server {address}")]
    NoServer {
        /// Name of the service.
        service: String,
        /// The address asked for.
        address: IpAddr,
    },
    /// A service has this name or key already.
    #[error("service {0} exists already")]
    ServiceExists(ServiceRef),
    /// The service has this server already.
    #[error("service {service} has the server {address} already")]
    ServerExists {
        /// Name of the service.
        service: String,
        /// The address given.
        address: IpAddr,
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
    /// New timeouts.
    pub timeouts: TimeoutsEdit,
}

/// What to change of a service's timeouts: `None` nothing, `Some(None)` back to the director's, else the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutsEdit {
    /// See [`ServiceTimeouts::tcp_established`].
    pub tcp_established: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_syn_recv`].
    pub tcp_syn_recv: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::tcp_fin_wait`].
    pub tcp_fin_wait: Option<Option<Duration>>,
    /// See [`ServiceTimeouts::udp`].
    pub udp: Option<Option<Duration>>,
}

impl TimeoutsEdit {
    fn apply(self, timeouts: &mut ServiceTimeouts) {
        let edits = [self.tcp_established, self.tcp_syn_recv, self.tcp_fin_wait, self.udp];
        for (field, edit) in SERVICE_TIMEOUTS.iter().zip(edits) {
            if let Some(value) = edit {
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
}

/// Adds a service after the others, with its servers.
///
/// Errors: its name or key is taken, or it breaks a rule.
pub fn add_service(model: &mut Model, service: Service) -> Result<(), EditError> {
    for taken in [ServiceRef::Name(service.name.clone()), ServiceRef::key_of(&service)] {
        if taken.find(model).is_some() {
            return Err(EditError::ServiceExists(taken));
        }
    }
    change(model, |model| {
        model.services.push(service);
        Ok(())
    })
}

/// Changes a service's settings.
///
/// Errors: no such service, or a value that breaks a rule.
pub fn edit_service(model: &mut Model, service: &ServiceRef, edit: &ServiceEdit) -> Result<(), EditError> {
    change_service(model, service, |service| {
        if let Some(scheduler) = edit.scheduler {
            service.scheduler = scheduler;
        }
        edit.timeouts.apply(&mut service.timeouts);
        Ok(())
    })
}

/// Takes a service out, with its servers, and returns it.
///
/// Errors: no such service.
pub fn delete_service(model: &mut Model, service: &ServiceRef) -> Result<Service, EditError> {
    let index = service.find(model).ok_or_else(|| EditError::NoService(service.clone()))?;
    Ok(model.services.remove(index))
}

/// Adds a server after the others of a service.
///
/// Errors: no such service, it has the server already, or the server breaks a rule.
pub fn add_server(model: &mut Model, service: &ServiceRef, server: Server) -> Result<(), EditError> {
    change_service(model, service, |service| {
        if service.servers.iter().any(|s| s.address == server.address) {
            let service = service.name.clone();
            return Err(EditError::ServerExists { service, address: server.address });
        }
        service.servers.push(server);
        Ok(())
    })
}

/// Changes a server of a service.
///
/// Errors: no such service or server, or a value that breaks a rule.
pub fn edit_server(
    model: &mut Model,
    service: &ServiceRef,
    address: IpAddr,
    edit: &ServerEdit,
) -> Result<(), EditError> {
    change_service(model, service, |service| {
        let index = server_index(service, address)?;
        if let (Some(weight), Some(server)) = (edit.weight, service.servers.get_mut(index)) {
            server.weight = weight;
        }
        Ok(())
    })
}

/// Gives a server weight 0: old connections go on, no new ones.
///
/// Errors: no such service or server.
pub fn drain_server(model: &mut Model, service: &ServiceRef, address: IpAddr) -> Result<(), EditError> {
    edit_server(model, service, address, &ServerEdit { weight: Some(0) })
}

/// Takes a server out of a service and returns it.
///
/// Errors: no such service or server.
pub fn delete_server(model: &mut Model, service: &ServiceRef, address: IpAddr) -> Result<Server, EditError> {
    let at = service.find(model).ok_or_else(|| EditError::NoService(service.clone()))?;
    let service = &mut model.services[at];
    let index = server_index(service, address)?;
    Ok(service.servers.remove(index))
}

fn server_index(service: &Service, address: IpAddr) -> Result<usize, EditError> {
    let missing = || EditError::NoServer { service: service.name.clone(), address };
    service.servers.iter().position(|s| s.address == address).ok_or_else(missing)
}

/// Changes one service, and keeps the change if the Model stays valid.
fn change_service(
    model: &mut Model,
    service: &ServiceRef,
    edit: impl FnOnce(&mut Service) -> Result<(), EditError>,
) -> Result<(), EditError> {
    let index = service.find(model).ok_or_else(|| EditError::NoService(service.clone()))?;
    change(model, |model| edit(&mut model.services[index]))
}

/// Makes a change on a copy, and keeps it if the copy is valid.
fn change(
    model: &mut Model,
    edit: impl FnOnce(&mut Model) -> Result<(), EditError>,
) -> Result<(), EditError> {
    let mut changed = model.clone();
    edit(&mut changed)?;
    validate(&changed)?;
    *model = changed;
    Ok(())
}

/// Checks a Model that was made by hand, by the rules for files.
///
/// Errors: [`EditError::Refused`] with every rule that is broken.
pub fn validate(model: &Model) -> Result<(), EditError> {
    let mut problems = Problems::default();
    check(&Draft::from(model), &mut problems);
    if problems.list.is_empty() {
        return Ok(());
    }
    let sentence = |p: &crate::fault::Problem| format!("{}: {}", name_object(model, &p.path), p.message);
    Err(EditError::Refused(problems.list.iter().map(sentence).collect()))
}

/// A path in an operator's words: `service web: server 192.168.150.12: weight`.
fn name_object(model: &Model, path: &Path) -> String {
    let (mut words, mut rest) = (Vec::new(), path.0.as_slice());
    if let [Step::Key(section), Step::Index(index), tail @ ..] = rest {
        match section.as_ref() {
            "services" => words.extend(model.services.get(*index).map(|s| format!("service {}", s.name))),
            _ => words.extend(model.ports.get(*index).map(|p| format!("port {}", p.name))),
        }
        rest = tail;
        if let [Step::Key(_), Step::Index(at), Step::Key(_)] = rest {
            let server = model.services.get(*index).and_then(|s| s.servers.get(*at));
            words.extend(server.map(|s| format!("server {}", s.address)));
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

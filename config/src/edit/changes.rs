//! Each edit: alone, or several as one.

use std::time::Duration;

use super::{EditError, ServerEdit, ServerRef, ServiceEdit, ServiceRef, validate_change};
use crate::model::{Model, Server, Service, Timeouts};

/// One change of many that are made together, see [`apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// See [`add_service`].
    AddService(Box<Service>),
    /// See [`edit_service`].
    EditService(ServiceRef, Box<ServiceEdit>),
    /// See [`delete_service`].
    DeleteService(ServiceRef),
    /// Takes all services out.
    Clear,
    /// See [`add_server`].
    AddServer(ServiceRef, Server),
    /// See [`edit_server`].
    EditServer(ServiceRef, ServerRef, ServerEdit),
    /// See [`delete_server`].
    DeleteServer(ServiceRef, ServerRef),
    /// New timeouts of the whole director.
    Timeouts(Timeouts),
}

impl Edit {
    /// Makes the change without checking what it leads to.
    fn make(&self, model: &mut Model) -> Result<(), EditError> {
        match self {
            Self::AddService(service) => insert_service(model, (**service).clone()),
            Self::EditService(service, edit) => {
                find(model, service)?.change(edit);
                Ok(())
            }
            Self::DeleteService(service) => delete_service(model, service).map(drop),
            Self::Clear => {
                model.services.clear();
                Ok(())
            }
            Self::AddServer(service, server) => insert_server(find(model, service)?, server.clone()),
            Self::EditServer(service, server, edit) => change_server(find(model, service)?, *server, edit),
            Self::DeleteServer(service, server) => delete_server(model, service, *server).map(drop),
            Self::Timeouts(timeouts) => {
                model.timeouts = *timeouts;
                Ok(())
            }
        }
    }
}

/// Makes all of `edits`, in their order, or none.
///
/// Only what they lead to must be valid, not each step on the way.
/// Errors: the first that cannot be made, or every rule that the outcome breaks.
pub fn apply(model: &mut Model, edits: &[Edit]) -> Result<(), EditError> {
    change(model, |model| edits.iter().try_for_each(|edit| edit.make(model)))
}

/// Adds a service after the others, with its servers.
///
/// Errors: its name or key is taken, or it breaks a rule.
pub fn add_service(model: &mut Model, service: Service) -> Result<(), EditError> {
    change(model, |model| insert_service(model, service))
}

/// Changes a service's settings.
///
/// Errors: no such service, or a value that breaks a rule.
pub fn edit_service(model: &mut Model, service: &ServiceRef, edit: &ServiceEdit) -> Result<(), EditError> {
    change(model, |model| {
        find(model, service)?.change(edit);
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

/// Adds a server before the others of a service, where IPVS puts it (`ip_vs_add_dest`: `list_add_rcu`).
///
/// Errors: no such service, it has the server already, or the server breaks a rule.
pub fn add_server(model: &mut Model, service: &ServiceRef, server: Server) -> Result<(), EditError> {
    change(model, |model| insert_server(find(model, service)?, server))
}

/// Changes a server of a service.
///
/// Errors: no such service or server, or a value that breaks a rule.
pub fn edit_server(
    model: &mut Model,
    service: &ServiceRef,
    server: ServerRef,
    edit: &ServerEdit,
) -> Result<(), EditError> {
    change(model, |model| change_server(find(model, service)?, server, edit))
}

/// Gives a server weight 0: old connections go on, no new ones. At the `deadline`, if there is one, what is left is
/// treated as its service's `on_server_down` says; without one, a deadline that it had is taken away.
///
/// Errors: no such service or server, or a deadline that breaks a rule.
pub fn drain_server(
    model: &mut Model,
    service: &ServiceRef,
    server: ServerRef,
    deadline: Option<Duration>,
) -> Result<(), EditError> {
    let edit = ServerEdit { weight: Some(0), drain_deadline: Some(deadline), ..ServerEdit::default() };
    edit_server(model, service, server, &edit)
}

/// Takes a server out of a service and returns it.
///
/// Errors: no such service or server.
pub fn delete_server(
    model: &mut Model,
    service: &ServiceRef,
    server: ServerRef,
) -> Result<Server, EditError> {
    let service = find(model, service)?;
    let index = server_index(service, server)?;
    Ok(service.servers.remove(index))
}

/// Makes a change on a copy, and keeps it if the copy is valid.
fn change(
    model: &mut Model,
    edit: impl FnOnce(&mut Model) -> Result<(), EditError>,
) -> Result<(), EditError> {
    let mut changed = model.clone();
    edit(&mut changed)?;
    validate_change(model, &changed)?;
    *model = changed;
    Ok(())
}

fn find<'m>(model: &'m mut Model, service: &ServiceRef) -> Result<&'m mut Service, EditError> {
    let at = service.find(model).and_then(|at| model.services.get_mut(at));
    at.ok_or_else(|| EditError::NoService(service.clone()))
}

fn server_index(service: &Service, server: ServerRef) -> Result<usize, EditError> {
    let missing = || EditError::NoServer { service: service.name.clone(), server };
    server.find(service).ok_or_else(missing)
}

fn insert_service(model: &mut Model, service: Service) -> Result<(), EditError> {
    let service = Service { address: service.address.canonical(), ..service };
    for taken in [ServiceRef::Name(service.name.clone()), ServiceRef::key_of(&service)] {
        if taken.find(model).is_some() {
            return Err(EditError::ServiceExists(taken));
        }
    }
    model.services.push(service);
    Ok(())
}

fn insert_server(service: &mut Service, server: Server) -> Result<(), EditError> {
    let key = ServerRef::of(&server);
    if key.find(service).is_some() {
        return Err(EditError::ServerExists { service: service.name.clone(), server: key });
    }
    service.servers.insert(0, server);
    Ok(())
}

fn change_server(service: &mut Service, server: ServerRef, edit: &ServerEdit) -> Result<(), EditError> {
    let index = server_index(service, server)?;
    if let Some(server) = service.servers.get_mut(index) {
        server.change(edit);
    }
    Ok(())
}

fn set<T>(value: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *value = new;
    }
}

impl Service {
    fn change(&mut self, edit: &ServiceEdit) {
        set(&mut self.scheduler, edit.scheduler);
        set(&mut self.scheduler_flags, edit.scheduler_flags);
        set(&mut self.persistence, edit.persistence);
        set(&mut self.one_packet, edit.one_packet);
        set(&mut self.policy, edit.policy);
        set(&mut self.local_addresses, edit.local_addresses.clone());
        set(&mut self.client_address, edit.client_address);
        edit.timeouts.apply(&mut self.timeouts);
        if let Some(forwarding) = edit.forwarding {
            // As in a file, where such servers name no forwarding.
            let old = std::mem::replace(&mut self.forwarding, forwarding);
            let inherit = self.servers.iter_mut().filter(|server| server.forwarding == old);
            inherit.for_each(|server| server.forwarding = forwarding);
        }
    }
}

impl Server {
    fn change(&mut self, edit: &ServerEdit) {
        set(&mut self.weight, edit.weight);
        set(&mut self.forwarding, edit.forwarding);
        set(&mut self.upper_threshold, edit.upper_threshold);
        set(&mut self.lower_threshold, edit.lower_threshold);
        set(&mut self.drain_deadline, edit.drain_deadline);
        if edit.weight.is_some_and(|weight| weight > 0) && edit.drain_deadline.is_none() {
            self.drain_deadline = None;
        }
    }
}

//! Edits as they come over the API, made on a Model.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_config::edit::{self, ServerEdit, ServiceEdit, ServiceRef, TimeoutsEdit};
use lb_config::{
    ClientAddress, Forwarding, Model, Persistence, Scheduler, SchedulerFlags, Server, ServerRef, Service,
    ServiceAddress, ServicePolicy, ServiceTimeouts, ValueError, duration,
};

use crate::api::{
    ApiError, DEFAULT_TIMEOUT, DrainSpec, ErrorKind, NO_FLAGS, NO_PERSISTENCE, Request, ServerRef as Named,
    ServerSpec, ServiceEdit as EditSpec, ServiceSpec, TimeoutSpec,
};

/// The model after an edit.
///
/// Errors: an unknown service or server, a value that is none, or an edit that the rules for files refuse.
pub(super) fn edited(model: &Model, request: Request) -> Result<Model, ApiError> {
    let mut model = model.clone();
    match request {
        Request::ServiceAdd(spec) => edit::add_service(&mut model, service(spec)?)?,
        Request::ServiceEdit(spec) => {
            let name: ServiceRef = spec.service.parse()?;
            let change = service_edit(&model, &name, spec)?;
            edit::edit_service(&mut model, &name, &change)?;
        }
        Request::ServiceDelete { service } => {
            edit::delete_service(&mut model, &service.parse()?)?;
        }
        Request::ServerAdd(spec) => {
            let name: ServiceRef = spec.service.parse()?;
            let server = new_server(&model, &name, &spec)?;
            edit::add_server(&mut model, &name, server)?;
        }
        Request::ServerEdit(spec) => {
            let name: ServiceRef = spec.service.parse()?;
            let server = named(&model, &name, spec.address, spec.port)?;
            let change = ServerEdit {
                weight: spec.weight,
                forwarding: forwarding(spec.forwarding.as_deref())?,
                upper_threshold: spec.upper_threshold,
                lower_threshold: spec.lower_threshold,
                drain_deadline: None,
            };
            edit::edit_server(&mut model, &name, server, &change)?;
        }
        Request::ServerDelete(Named { service, address, port }) => {
            let name: ServiceRef = service.parse()?;
            let server = named(&model, &name, address, port)?;
            edit::delete_server(&mut model, &name, server)?;
        }
        Request::ServerDrain(DrainSpec { service, address, port, deadline }) => {
            let name: ServiceRef = service.parse()?;
            let server = named(&model, &name, address, port)?;
            let deadline = deadline.as_deref().map(duration::parse).transpose()?;
            edit::drain_server(&mut model, &name, server, deadline)?;
        }
        other => return Err(ApiError::new(ErrorKind::Failed, format!("{other:?} is no edit"))),
    }
    Ok(model)
}

fn service(spec: ServiceSpec) -> Result<Service, ApiError> {
    let mut own = ServiceTimeouts::default();
    timeouts(&spec.timeouts)?.apply(&mut own);
    let address: ServiceAddress = spec.address.parse()?;
    let persistence = spec.persistence.as_deref();
    let persistence = persistence.map(|text| Persistence::parse(text, address.is_ipv6())).transpose()?;
    let scheduler = with_hash(Scheduler::from_name(&spec.scheduler)?, spec.maglev_hash.as_deref())?;
    Ok(Service {
        scheduler,
        scheduler_flags: flags(scheduler, spec.scheduler_flags.as_deref())?.unwrap_or_default(),
        forwarding: forwarding(spec.forwarding.as_deref())?.unwrap_or(Forwarding::Dr),
        persistence,
        local_addresses: spec.local_addresses.unwrap_or_default(),
        client_address: client_address(spec.client_address.as_deref())?.unwrap_or_default(),
        one_packet: spec.one_packet,
        timeouts: own,
        policy: policy(ServicePolicy::default(), &spec.policy)?,
        ..Service::new(spec.name, address)
    })
}

/// The policy with what was given of it; `default` is back to the director's.
fn policy(mut policy: ServicePolicy, spec: &BTreeMap<String, String>) -> Result<ServicePolicy, ValueError> {
    for (key, value) in spec {
        policy.set(key, Some(value.as_str()).filter(|value| *value != DEFAULT_TIMEOUT))?;
    }
    Ok(policy)
}

fn flags(scheduler: Scheduler, text: Option<&str>) -> Result<Option<SchedulerFlags>, ValueError> {
    text.map(|text| {
        SchedulerFlags::parse(scheduler, Some(text).filter(|text| *text != NO_FLAGS).unwrap_or_default())
    })
    .transpose()
}

fn forwarding(text: Option<&str>) -> Result<Option<Forwarding>, ValueError> {
    text.map(str::parse).transpose()
}

fn client_address(text: Option<&str>) -> Result<Option<ClientAddress>, ValueError> {
    text.map(str::parse).transpose()
}

/// The service of an edit; the edit itself says when there is none.
fn present<'m>(model: &'m Model, name: &ServiceRef) -> Option<&'m Service> {
    name.find(model).and_then(|at| model.services.get(at))
}

fn new_server(model: &Model, name: &ServiceRef, spec: &ServerSpec) -> Result<Server, ApiError> {
    let service = present(model, name);
    let port = spec.port.or(service.map(Service::port)).unwrap_or_default();
    let forwarding = forwarding(spec.forwarding.as_deref())?.or(service.map(|service| service.forwarding));
    Ok(Server {
        weight: spec.weight.unwrap_or(1),
        upper_threshold: spec.upper_threshold.unwrap_or(0),
        lower_threshold: spec.lower_threshold.unwrap_or(0),
        ..Server::new(spec.address, port, forwarding.unwrap_or(Forwarding::Dr))
    })
}

/// The server that is meant: without a port the one with the service's, or else the only one with the address.
///
/// Errors: several have the address, and none of them the service's port.
fn named(
    model: &Model,
    name: &ServiceRef,
    address: IpAddr,
    port: Option<u16>,
) -> Result<ServerRef, ApiError> {
    let service = present(model, name);
    let own = service.map(Service::port).unwrap_or_default();
    let Some(service) = service.filter(|_| port.is_none()) else {
        return Ok(ServerRef { address, port: port.unwrap_or(own) });
    };
    let ports: Vec<u16> = service.servers.iter().filter(|s| s.address == address).map(|s| s.port).collect();
    match ports.as_slice() {
        [port] => Ok(ServerRef { address, port: *port }),
        ports if ports.is_empty() || ports.contains(&own) => Ok(ServerRef { address, port: own }),
        ports => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            let message = format!(
                "service {} has {} servers {address}: say which port ({})",
                service.name,
                ports.len(),
                ports.join(", ")
            );
            Err(ApiError::new(ErrorKind::Invalid, message))
        }
    }
}

/// A hash without a scheduler changes that of the scheduler which the service has.
fn service_edit(model: &Model, name: &ServiceRef, spec: EditSpec) -> Result<ServiceEdit, ApiError> {
    let service = present(model, name);
    let present = service.map(|service| service.scheduler);
    let named = spec.scheduler.as_deref().map(Scheduler::from_name).transpose()?;
    let scheduler = match (named, present, spec.maglev_hash.as_deref()) {
        (None, Some(present), Some(hash)) => Some(with_hash(present, Some(hash))?),
        (Some(named), _, hash) => Some(with_hash(named, hash)?),
        // Without a service the edit itself says that there is none.
        (None, _, _) => None,
    };
    let persistence = match (spec.persistence.as_deref(), service) {
        (None, _) | (_, None) => None,
        (Some(NO_PERSISTENCE), _) => Some(None),
        (Some(text), Some(service)) => Some(Some(Persistence::parse(text, service.is_ipv6())?)),
    };
    let scheduled = scheduler.or(present).unwrap_or(Scheduler::Rr);
    Ok(ServiceEdit {
        scheduler,
        scheduler_flags: flags(scheduled, spec.scheduler_flags.as_deref())?,
        forwarding: forwarding(spec.forwarding.as_deref())?,
        persistence,
        local_addresses: spec.local_addresses,
        client_address: client_address(spec.client_address.as_deref())?,
        one_packet: spec.one_packet,
        policy: policy(service.map(|service| service.policy).unwrap_or_default(), &spec.policy).map(Some)?,
        timeouts: timeouts(&spec.timeouts)?,
    })
}

fn with_hash(scheduler: Scheduler, hash: Option<&str>) -> Result<Scheduler, ValueError> {
    hash.map_or(Ok(scheduler), |hash| scheduler.with_maglev_hash(hash.parse()?))
}

fn timeouts(spec: &TimeoutSpec) -> Result<TimeoutsEdit, ValueError> {
    let value = |text: &str| match text {
        DEFAULT_TIMEOUT => Ok(None),
        text => duration::parse(text).map(Some),
    };
    let read = |text: &Option<String>| text.as_deref().map(value).transpose();
    let mut edit = TimeoutsEdit {
        tcp_established: read(&spec.tcp_established)?,
        tcp_syn_recv: read(&spec.tcp_syn_recv)?,
        tcp_fin_wait: read(&spec.tcp_fin_wait)?,
        udp: read(&spec.udp)?,
        ..TimeoutsEdit::default()
    };
    for (key, text) in &spec.by_key {
        edit.set(key, value(text)?)?;
    }
    Ok(edit)
}

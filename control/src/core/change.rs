//! Changes of the configuration: whole files and edits end in the same place.

use lb_config::edit::{self, EditError, ServerEdit, ServiceEdit, ServiceRef, TimeoutsEdit};
use lb_config::{
    Forwarding, Model, Protocol, Scheduler, Server, Service, ServiceTimeouts, ValueError, diff, duration,
};
use lb_dataplane::director::ApplyError;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Core, LIVELY_MS, changes, respond};
use crate::api::{ApiError, ChangeRow, DEFAULT_TIMEOUT, ErrorKind, Request, Response, ServerRef, ServerSpec};
use crate::api::{ServiceEdit as EditSpec, ServiceSpec, TimeoutSpec};

/// Longest wait for the workers to take a change up; they look between two bursts.
const SEEN_WITHIN_MS: u64 = 2_000;

/// A change that is made, and whose maker waits until every worker goes by it.
pub(super) struct Waiting {
    generation: u64,
    until_ms: u64,
    rows: Vec<ChangeRow>,
    reply: oneshot::Sender<Response>,
}

impl Core {
    /// Makes `model` the running configuration. The reply comes when every worker goes by it.
    pub(super) fn change(&mut self, model: &Model, reply: oneshot::Sender<Response>, now_ms: u64) {
        self.lively_until_ms = now_ms + LIVELY_MS;
        match self.replace(model) {
            Ok(rows) if rows.is_empty() => respond(reply, Ok(changes(rows))),
            Ok(rows) => {
                let generation = self.director.generation();
                self.changes.push(Waiting { generation, until_ms: now_ms + SEEN_WITHIN_MS, rows, reply });
            }
            Err(error) => respond(reply, Err(error)),
        }
    }

    /// Makes `model` the running configuration and returns what that changed.
    ///
    /// Errors: it needs a restart, or does not fit the sizes fixed at start; nothing was changed.
    fn replace(&mut self, model: &Model) -> Result<Vec<ChangeRow>, ApiError> {
        let rows = self.rehearse(model)?;
        if !rows.is_empty() {
            self.director.apply(model)?;
            rows.iter().for_each(|row| info!(change = %row.text, "configuration changed"));
        }
        Ok(rows)
    }

    /// What [`Core::replace`] would change. Errors: it needs a restart.
    pub(super) fn rehearse(&self, model: &Model) -> Result<Vec<ChangeRow>, ApiError> {
        let rows = rows(self.model(), model);
        let fixed: Vec<&str> =
            rows.iter().filter(|row| row.needs_restart).map(|row| row.text.as_str()).collect();
        if fixed.is_empty() {
            return Ok(rows);
        }
        let message = format!("nothing was changed, this needs a restart of lbd:\n{}", fixed.join("\n"));
        Err(ApiError::new(ErrorKind::NeedsRestart, message))
    }

    /// Answers those whose change every worker goes by.
    pub(super) fn answer_changes(&mut self, now_ms: u64) {
        let seen = self.director.generation_seen();
        let done = |waiting: &mut Waiting| waiting.generation <= seen || waiting.until_ms <= now_ms;
        for waiting in self.changes.extract_if(.., done) {
            if waiting.generation > seen {
                warn!(generation = waiting.generation, seen, "a worker has not taken a change up yet");
            }
            respond(waiting.reply, Ok(changes(waiting.rows)));
        }
    }
}

/// The differences as rows.
pub(super) fn rows(old: &Model, new: &Model) -> Vec<ChangeRow> {
    let row = |change: lb_config::Change| ChangeRow {
        text: change.to_string(),
        needs_restart: change.needs_restart(),
    };
    diff(old, new).into_iter().map(row).collect()
}

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
        Request::ServerAdd(ServerSpec { service, address, weight }) => {
            edit::add_server(&mut model, &service.parse()?, Server { address, weight })?;
        }
        Request::ServerEdit(ServerSpec { service, address, weight }) => {
            let change = ServerEdit { weight: Some(weight) };
            edit::edit_server(&mut model, &service.parse()?, address, &change)?;
        }
        Request::ServerDelete(ServerRef { service, address }) => {
            edit::delete_server(&mut model, &service.parse()?, address)?;
        }
        Request::ServerDrain(ServerRef { service, address }) => {
            edit::drain_server(&mut model, &service.parse()?, address)?;
        }
        other => return Err(ApiError::new(ErrorKind::Failed, format!("{other:?} is no edit"))),
    }
    Ok(model)
}

fn service(spec: ServiceSpec) -> Result<Service, ApiError> {
    let timeouts = timeouts(&spec.timeouts)?;
    Ok(Service {
        name: spec.name,
        vip: spec.vip,
        port: spec.port,
        protocol: spec.protocol.parse::<Protocol>()?,
        scheduler: with_hash(Scheduler::from_name(&spec.scheduler)?, spec.maglev_hash.as_deref())?,
        forwarding: Forwarding::Dr,
        timeouts: ServiceTimeouts {
            tcp_established: timeouts.tcp_established.flatten(),
            tcp_syn_recv: timeouts.tcp_syn_recv.flatten(),
            tcp_fin_wait: timeouts.tcp_fin_wait.flatten(),
            udp: timeouts.udp.flatten(),
        },
        servers: Vec::new(),
    })
}

/// A hash without a scheduler changes that of the scheduler which the service has.
fn service_edit(model: &Model, name: &ServiceRef, spec: EditSpec) -> Result<ServiceEdit, ApiError> {
    let present = name.find(model).and_then(|at| model.services.get(at)).map(|service| service.scheduler);
    let named = spec.scheduler.as_deref().map(Scheduler::from_name).transpose()?;
    let scheduler = match (named, present, spec.maglev_hash.as_deref()) {
        (None, Some(present), Some(hash)) => Some(with_hash(present, Some(hash))?),
        (Some(named), _, hash) => Some(with_hash(named, hash)?),
        // Without a service the edit itself says that there is none.
        (None, _, _) => None,
    };
    Ok(ServiceEdit { scheduler, timeouts: timeouts(&spec.timeouts)? })
}

fn with_hash(scheduler: Scheduler, hash: Option<&str>) -> Result<Scheduler, ValueError> {
    hash.map_or(Ok(scheduler), |hash| scheduler.with_maglev_hash(hash.parse()?))
}

fn timeouts(spec: &TimeoutSpec) -> Result<TimeoutsEdit, ValueError> {
    let read = |text: &Option<String>| match text.as_deref() {
        None => Ok(None),
        Some(DEFAULT_TIMEOUT) => Ok(Some(None)),
        Some(text) => duration::parse(text).map(|value| Some(Some(value))),
    };
    Ok(TimeoutsEdit {
        tcp_established: read(&spec.tcp_established)?,
        tcp_syn_recv: read(&spec.tcp_syn_recv)?,
        tcp_fin_wait: read(&spec.tcp_fin_wait)?,
        udp: read(&spec.udp)?,
    })
}

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        let kind = match error {
            EditError::NoService(_) | EditError::NoServer { .. } => ErrorKind::NotFound,
            EditError::ServiceExists(_) | EditError::ServerExists { .. } | EditError::Refused(_) => {
                ErrorKind::Invalid
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ValueError> for ApiError {
    fn from(error: ValueError) -> Self {
        Self::new(ErrorKind::Invalid, error.to_string())
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        let kind = match error {
            ApplyError::NeedsRestart { .. } => ErrorKind::NeedsRestart,
            _ => ErrorKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

//! Changes of the configuration: whole files and edits end in the same place.

use lb_config::edit::EditError;
use lb_config::{Model, ValueError, diff, new_warnings, warnings};
use lb_dataplane::director::ApplyError;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Core, LIVELY_MS, respond};
use crate::api::{ApiError, ChangeRow, Changes, ErrorKind, Response};
use crate::vrrp::Plan;

/// Longest wait for the workers to take a change up; they look between two bursts.
const SEEN_WITHIN_MS: u64 = 2_000;

/// A change that is made, and whose maker waits until every worker goes by it.
pub(super) struct Waiting {
    generation: u64,
    until_ms: u64,
    changes: Changes,
    reply: oneshot::Sender<Response>,
}

impl Core {
    /// Makes `model` the running configuration. The reply comes when every worker goes by it.
    pub(super) fn change(&mut self, model: &Model, reply: oneshot::Sender<Response>, now_ms: u64) {
        self.lively_until_ms = now_ms + LIVELY_MS;
        match self.replace(model) {
            Ok(changes) if changes.changes.is_empty() => respond(reply, Ok(Response::Changes(changes))),
            Ok(changes) => {
                let generation = self.director.generation();
                self.changes.push(Waiting { generation, until_ms: now_ms + SEEN_WITHIN_MS, changes, reply });
            }
            Err(error) => respond(reply, Err(error)),
        }
    }

    /// Makes `model` the running configuration and returns what that changed.
    ///
    /// Errors: it needs a restart, or does not fit the sizes fixed at start; nothing was changed.
    fn replace(&mut self, model: &Model) -> Result<Changes, ApiError> {
        let mut model = model.clone();
        // What is equal is one and the same from here on: nobody has to look at it again.
        model.services.share_with(&self.model().services);
        // Who changes one thing is not told every time what was doubtful before; `check` and `diff` tell all.
        let doubts = new_warnings(self.model(), &model).iter().map(ToString::to_string).collect();
        let changes = possible(Changes { changes: rows(self.model(), &model), warnings: doubts })?;
        if !changes.changes.is_empty() {
            let prepared = self.health.prepare(&model);
            self.director.apply(&prepared.effective)?;
            self.model = model;
            self.revision += 1;
            self.commit_health(prepared);
            if let Some(vrrp) = &self.vrrp {
                vrrp.update(Plan::of(&self.director));
            }
            if let Some(sync) = &self.sync {
                sync.update(self.sync_plan());
            }
            self.follow_ipvs_sync();
            changes.changes.iter().for_each(|row| info!(change = %row.text, "configuration changed"));
            self.health.configured(changes.changes.iter().map(|row| row.text.as_str()));
            changes.warnings.iter().for_each(|warning| warn!(%warning, "configuration is doubtful"));
        }
        Ok(changes)
    }

    /// What [`Core::replace`] would change. Errors: it needs a restart.
    pub(super) fn rehearse(&self, model: &Model) -> Result<Changes, ApiError> {
        possible(changes(self.model(), model))
    }

    /// Answers those whose change every worker goes by.
    pub(super) fn answer_changes(&mut self, now_ms: u64) {
        let seen = self.director.generation_seen();
        let done = |waiting: &mut Waiting| waiting.generation <= seen || waiting.until_ms <= now_ms;
        for waiting in self.changes.extract_if(.., done) {
            if waiting.generation > seen {
                warn!(generation = waiting.generation, seen, "a worker has not taken a change up yet");
            }
            respond(waiting.reply, Ok(Response::Changes(waiting.changes)));
        }
    }
}

/// The changes, if none of them needs a restart.
fn possible(changes: Changes) -> Result<Changes, ApiError> {
    let fixed = changes.changes.iter().filter(|row| row.needs_restart);
    let fixed: Vec<&str> = fixed.map(|row| row.text.as_str()).collect();
    if fixed.is_empty() {
        return Ok(changes);
    }
    let message = format!("nothing was changed, this needs a restart of lbd:\n{}", fixed.join("\n"));
    Err(ApiError::new(ErrorKind::NeedsRestart, message))
}

/// The differences, and what is doubtful in `new`.
pub(super) fn changes(old: &Model, new: &Model) -> Changes {
    let warnings = warnings(new).iter().map(ToString::to_string).collect();
    Changes { changes: rows(old, new), warnings }
}

fn rows(old: &Model, new: &Model) -> Vec<ChangeRow> {
    let row = |change: lb_config::Change| ChangeRow {
        text: change.to_string(),
        needs_restart: change.needs_restart(),
    };
    diff(old, new).into_iter().map(row).collect()
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

//! Who is up: verdicts of checks, put together to servers, services and their quorums.
//!
//! Pure: no clock, no socket, no task. The invariant: what [`Board::effective`] gives depends on the configuration, the
//! verdicts and each quorum's past alone, and never gets back into the configuration.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use lb_config::health::{Assume, OnFailure};
use lb_config::{Model, Server, Service, ServiceAddress};

use super::event::EventKind;
use super::path::{self, Ports};
use super::probe::{ProbeSpec, Say, Verdict};

/// Why a server is down that no check has answered for.
pub const NOT_CHECKED: &str = "not checked yet";

/// Largest weight.
const MAX_WEIGHT: i64 = 65_535;

/// A change that somebody may want to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub kind: EventKind,
    /// Name of the service.
    pub service: String,
    /// The server; `None`: the service as a whole.
    pub server: Option<SocketAddr>,
    /// Why.
    pub reason: String,
    /// The first verdict on a server that is as it was taken to be: not to be notified.
    pub first: bool,
}

/// A check of a server.
#[derive(Clone, Debug)]
pub struct Use {
    /// Which probe answers it.
    pub probe: Arc<ProbeSpec>,
    /// What holds while there is no verdict.
    assumed: bool,
}

/// What is known of a server.
#[derive(Clone, Debug)]
pub struct ServerState {
    /// Its checks, in their order.
    pub checks: Vec<Use>,
    /// Whether it passes all of them.
    pub up: bool,
    /// Whether every check has answered.
    pub known: bool,
    /// The weight it should have while up.
    pub weight: u32,
    /// Why it is down, or what its last check said.
    pub why: String,
    configured: u32,
}

/// What is known of a service.
#[derive(Clone, Debug)]
pub struct ServiceState {
    /// By address and port; those without checks are not among them.
    pub servers: HashMap<SocketAddr, ServerState>,
    /// Whether it has its quorum.
    pub quorum_up: bool,
    /// Weight of the servers that are up.
    pub live: u64,
    /// Weight of the servers without checks, which are always up.
    unchecked: u64,
    quorum: u64,
    hysteresis: u64,
}

/// A probe's verdict, and who goes by it.
#[derive(Clone, Debug, Default)]
pub struct ProbeState {
    /// `None`: it has not decided yet.
    pub verdict: Option<Verdict>,
    users: HashSet<(Arc<str>, SocketAddr)>,
}

/// Who is up.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// By name; those without checks are not among them.
    pub services: HashMap<Arc<str>, ServiceState>,
    /// All probes that somebody goes by.
    pub probes: HashMap<Arc<ProbeSpec>, ProbeState>,
    /// Servers that an earlier lbd, whose connections go on, sent clients to: they are up until a check says otherwise.
    pub former: Arc<HashSet<(ServiceAddress, SocketAddr)>>,
}

/// Whether a quorum is there, from whether it was and the weight that is live now.
///
/// Source: keepalived, as in ipvs.md section 1.10.
pub fn quorum(was: bool, live: u64, quorum: u64, hysteresis: u64) -> bool {
    match was {
        true => live > 0 && live >= quorum.saturating_sub(hysteresis),
        false => live >= quorum + hysteresis,
    }
}

impl ServerState {
    /// Whether a check takes the clients' way to it.
    fn is_checked_by_path(&self) -> bool {
        self.checks.iter().any(|check| check.probe.target.path.is_some())
    }

    /// Puts its checks together.
    fn judge(&mut self, probes: &HashMap<Arc<ProbeSpec>, ProbeState>) {
        let (mut up, mut known, mut offset) = (true, true, false);
        let mut weight = i64::from(self.configured);
        let mut why: Option<String> = None;
        for check in &self.checks {
            match probes.get(&check.probe).and_then(|probe| probe.verdict.as_ref()) {
                None => {
                    known = false;
                    if !check.assumed && up {
                        (up, why) = (false, Some(NOT_CHECKED.to_owned()));
                    }
                }
                Some(verdict) if verdict.up => {
                    // Each says how far it is from the configured one: dynamic weights add up, as in keepalived.
                    weight = weight.saturating_add(match verdict.say {
                        Say::Nothing => 0,
                        Say::Weight(said) => i64::from(said) - i64::from(self.configured),
                        Say::Offset(offset) => offset,
                    });
                    offset |= matches!(verdict.say, Say::Offset(_));
                    why.get_or_insert_with(|| verdict.why.clone());
                }
                Some(verdict) => {
                    if up {
                        why = Some(format!("{}: {}", check.probe.kind.name(), verdict.why));
                    }
                    up = false;
                }
            }
        }
        if up && offset && weight <= 0 && self.configured > 0 {
            (up, why) = (false, Some(format!("its weight would be {weight}")));
        }
        self.weight = match self.configured {
            // Whoever drains a server by hand means it.
            0 => 0,
            _ => u32::try_from(weight.clamp(0, MAX_WEIGHT)).unwrap_or(0),
        };
        (self.up, self.known, self.why) = (up, known, why.unwrap_or_default());
    }
}

impl ServiceState {
    fn count(&mut self) {
        let live = self.servers.values().filter(|server| server.up).map(|server| u64::from(server.weight));
        self.live = self.unchecked + live.sum::<u64>();
    }

    fn has_quorum(&self) -> bool {
        quorum(self.quorum_up, self.live, self.quorum, self.hysteresis)
    }
}

impl Board {
    /// Goes by another configuration. Servers that stay keep their state; a check that is new to a server that was up
    /// does not take it down before it has answered.
    pub fn configure(&mut self, model: &Model) -> Vec<Change> {
        let former = std::mem::take(&mut self.services);
        let mut known = std::mem::take(&mut self.probes);
        let mut changes = Vec::new();
        for service in model.services.iter().filter(|service| service.is_checked()) {
            let name: Arc<str> = service.name.as_str().into();
            let old = former.get(&name);
            let state = self.service(&name, (model, service), old, &mut known);
            self.services.insert(name.clone(), state);
            self.settle(&name, old.is_some(), &mut changes);
        }
        // Whoever is taken out is not heard of any more.
        changes.retain(|change| former.contains_key(change.service.as_str()));
        changes
    }

    fn service(
        &mut self,
        name: &Arc<str>,
        (model, service): (&Model, &Service),
        old: Option<&ServiceState>,
        known: &mut HashMap<Arc<ProbeSpec>, ProbeState>,
    ) -> ServiceState {
        let mut servers = HashMap::with_capacity(service.servers.len());
        let (mut unchecked, mut ports) = (0, Ports::default());
        for server in &service.servers {
            let checks = path::checks_of(model, service, server, &mut ports);
            if checks.is_empty() {
                unchecked += u64::from(server.weight);
                continue;
            }
            let before = old.and_then(|old| old.servers.get(&server.key()));
            let known_up = || self.former.contains(&(service.address, server.key()));
            let was_up = before.map_or_else(known_up, |before| before.up);
            let mut uses = Vec::with_capacity(checks.len());
            for check in checks {
                let assumed = was_up || check.assume == Assume::Up;
                let spec = ProbeSpec::from(check);
                let probe = match known.remove_entry(&spec) {
                    Some((probe, state)) => {
                        let users = HashSet::new();
                        self.probes.insert(probe.clone(), ProbeState { users, ..state });
                        probe
                    }
                    None => match self.probes.get_key_value(&spec) {
                        Some((probe, _)) => probe.clone(),
                        None => Arc::new(spec),
                    },
                };
                let state = self.probes.entry(probe.clone()).or_default();
                state.users.insert((name.clone(), server.key()));
                uses.push(Use { probe, assumed });
            }
            let mut state = before.cloned().unwrap_or_else(|| ServerState {
                checks: Vec::new(),
                up: false,
                known: false,
                weight: server.weight,
                why: String::new(),
                configured: server.weight,
            });
            (state.checks, state.configured) = (uses, server.weight);
            if before.is_none() {
                state.judge(&self.probes);
            }
            servers.insert(server.key(), state);
        }
        let health = service.health.as_deref();
        ServiceState {
            servers,
            quorum_up: old.is_none_or(|old| old.quorum_up),
            live: 0,
            unchecked,
            quorum: health.map_or(1, |health| health.quorum.into()),
            hysteresis: health.map_or(0, |health| health.hysteresis.into()),
        }
    }

    /// Takes a verdict.
    pub fn hear(&mut self, probe: &Arc<ProbeSpec>, verdict: Verdict) -> Vec<Change> {
        let mut changes = Vec::new();
        // It may have been taken out while its report was on the way.
        let Some(state) = self.probes.get_mut(probe) else { return changes };
        state.verdict = Some(verdict);
        let users: Vec<_> = state.users.iter().cloned().collect();
        let services: HashSet<Arc<str>> = users.iter().map(|(service, _)| service.clone()).collect();
        for (name, key) in users {
            let Some(server) = self.services.get_mut(&name).and_then(|s| s.servers.get_mut(&key)) else {
                continue;
            };
            judge(server, &self.probes, &name, key, &mut changes);
        }
        for name in services {
            self.count(&name, true, &mut changes);
        }
        changes
    }

    /// Judges all servers of a service and its quorum.
    fn settle(&mut self, name: &Arc<str>, told: bool, changes: &mut Vec<Change>) {
        let Some(service) = self.services.get_mut(name) else { return };
        for (key, server) in &mut service.servers {
            judge(server, &self.probes, name, *key, changes);
        }
        self.count(name, told, changes);
    }

    fn count(&mut self, name: &Arc<str>, told: bool, changes: &mut Vec<Change>) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.count();
        let up = service.has_quorum();
        if up == service.quorum_up {
            return;
        }
        service.quorum_up = up;
        let (live, quorum) = (service.live, service.quorum);
        let kind = if up { EventKind::QuorumUp } else { EventKind::QuorumDown };
        let reason = format!("weight {live} of {quorum} is up");
        if told {
            changes.push(Change { kind, service: name.to_string(), server: None, reason, first: false });
        }
    }

    /// The configuration as the packet path shall have it: without the servers that are down, with weights as checks
    /// say, and with the sorry server where there is no quorum. Nothing of health is left in it.
    pub fn effective(&self, model: &Model) -> Model {
        let mut model = model.clone();
        for at in 0..model.services.len() {
            // a service without anything of health stays shared with the configuration
            if !model.services.get(at).is_some_and(has_health) {
                continue;
            }
            let Some(service) = model.services.get_mut(at) else { continue };
            if let Some(state) = self.services.get(service.name.as_str()) {
                service.servers = servers(service, state);
            }
            service.health = None;
            for server in &mut service.servers {
                server.health = None;
            }
        }
        model
    }
}

/// Whether the packet path must not see a service as it is configured.
fn has_health(service: &Service) -> bool {
    service.health.is_some() || service.servers.iter().any(|server| server.health.is_some())
}

fn judge(
    server: &mut ServerState,
    probes: &HashMap<Arc<ProbeSpec>, ProbeState>,
    service: &Arc<str>,
    key: SocketAddr,
    changes: &mut Vec<Change>,
) {
    let (up, weight, known) = (server.up, server.weight, server.known);
    server.judge(probes);
    let kind = match (up, server.up) {
        (false, true) => EventKind::ServerUp,
        (true, false) => EventKind::ServerDown,
        // As it was taken to be, and now somebody has looked.
        (false, false) if !known && server.known => EventKind::ServerDown,
        (true, true) if !known && server.known => EventKind::ServerUp,
        (true, true) if weight != server.weight => EventKind::Weight,
        _ => return,
    };
    let reason = match kind {
        EventKind::Weight => format!("{weight} to {}: {}", server.weight, server.why),
        _ => server.why.clone(),
    };
    let first = up == server.up && kind != EventKind::Weight;
    changes.push(Change { kind, service: service.to_string(), server: Some(key), reason, first });
}

/// The servers that a service has for now, in their order.
fn servers(service: &Service, state: &ServiceState) -> Vec<Server> {
    let sorry = service.health.as_ref().and_then(|health| health.sorry_server);
    let is_sorry = sorry.is_some() && !state.quorum_up;
    let mut servers = Vec::with_capacity(service.servers.len() + 1);
    for server in &service.servers {
        let known = state.servers.get(&server.key());
        let up = known.is_none_or(|known| known.up) && !is_sorry;
        let weight = match up {
            true => known.map_or(server.weight, |known| known.weight),
            false => 0,
        };
        // Whoever is checked by the packet path is in it.
        let by_path = known.is_some_and(ServerState::is_checked_by_path);
        // One that drains until a deadline gets nothing new anyway, and its deadline does not begin anew.
        if up || by_path || service.on_failure(server) == OnFailure::Drain || server.drain_deadline.is_some()
        {
            servers.push(Server { weight, ..server.clone() });
        }
    }
    if let Some(sorry) = sorry {
        match (is_sorry, sorry.drain) {
            (true, _) => servers.push(sorry.server(sorry.weight)),
            (false, true) => servers.push(sorry.server(0)),
            (false, false) => {}
        }
    }
    servers
}

#[cfg(test)]
mod tests;

//! Making the registry what a configuration says.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use lb_config::{ClientAddress, EffectivePolicy, Forwarding, Server, Service};
use lb_config::{ServiceAddress, Services};

use super::{DestKey, DestRecord, Registry, ServiceRecord};
use crate::classify::Address;
use crate::director::context::{Context, Plan};
use crate::director::tables::Places;
use crate::director::{ApplyError, addressing};
use crate::ids::{DestId, ServiceId};
use crate::io::DeviceId;
use crate::local_port::LocalEnds;
use crate::neighbor::NeighborId;
use crate::sched::build::{self, Change};
use crate::sched::{Candidate, FlowHash, Memory, Scheduler, ServerState};
use crate::snapshot::{DestEntry, ServiceEntry, Way};
use crate::state::TimeoutTable;

/// What is to be done to get from one list of services to another.
#[derive(Debug, Default)]
pub struct Difference {
    /// Services that are new or differ.
    pub changed: Vec<Arc<Service>>,
    /// What those of them, and those that are gone, were before.
    pub before: Vec<Arc<Service>>,
    /// Services that are gone.
    gone: Vec<ServiceAddress>,
}

impl Difference {
    /// `all`: something that every service depends on differs.
    ///
    /// Cost: a compare of two pointers per service, and in proportion to what is not shared.
    pub fn of(old: &Services, new: &Services, all: bool) -> Self {
        let (before, after) = old.apart(new);
        let mut former: HashMap<ServiceAddress, &Arc<Service>> =
            before.iter().map(|service| (service.address, service)).collect();
        let mut this = Self::default();
        for service in after {
            let before = former.remove(&service.address);
            if before != Some(service) {
                this.before.extend(before.cloned());
                this.changed.push(service.clone());
            }
        }
        this.gone = former.keys().copied().collect();
        this.before.extend(former.values().map(|service| (*service).clone()));
        if all {
            this.changed = new.shared().to_vec();
            this.before = old.shared().to_vec();
        }
        this
    }
}

impl Registry {
    /// Checks that a change fits before anything is changed.
    fn check(&self, difference: &Difference, context: &Context<'_>) -> Result<(), ApplyError> {
        let servers = |services: &[Arc<Service>]| services.iter().map(|s| s.servers.len()).sum::<usize>();
        let rules = || context.model.snat.iter().filter_map(|rule| DestKey::of_rule(rule, context.links));
        // an index that is kept for whom an earlier process had it for is nobody else's
        let used = self.by_server.len() + self.quarantine.len() + self.reserved.len();
        let most = servers(&difference.changed) + context.model.snat.len();
        if used + most <= self.max_dests as usize {
            return Ok(());
        }
        let keys = |service: &'_ Arc<Service>| {
            let service = service.clone();
            (0..service.servers.len())
                .map(move |at| DestKey::of(&service, &service.servers[at]))
                .collect::<Vec<_>>()
        };
        let unknown = |key: &DestKey| !self.by_server.contains_key(key) && !self.reserved.contains_key(key);
        let new = difference.changed.iter().flat_map(keys).chain(rules()).filter(unknown).count();
        if used + new > self.max_dests as usize {
            let wanted: HashSet<DestKey> =
                context.model.services.shared().iter().flat_map(keys).chain(rules()).collect();
            let known = self.by_server.iter().map(|(server, _)| server).chain(self.reserved.keys());
            let draining = used - known.filter(|server| wanted.contains(*server)).count();
            return Err(ApplyError::TooManyServers { wanted: wanted.len(), draining, limit: self.max_dests });
        }
        Ok(())
    }

    /// Makes the registry what the context's model says, which differs from what it is by `difference`.
    ///
    /// Errors: nothing is changed.
    pub fn apply(
        &mut self,
        difference: Difference,
        all: bool,
        context: &mut Context<'_>,
    ) -> Result<(), ApplyError> {
        self.check(&difference, context)?;
        let Difference { changed, gone, .. } = difference;
        let former = |service: &Service| self.services.get(&service.address)?.entry.rule.clone();
        let plans = context.plans(changed, former)?;
        self.touched.clear();
        // those that are gone first: what they let go of may be taken by others
        for address in gone {
            self.classifier.remove(addressing::address(address));
            self.caching.remove(&address);
            if let Some(record) = self.services.remove(&address) {
                self.remove_all_but(&record.entry.candidates, &[], context.generation);
                self.place_removed(address, None, context);
            }
        }
        for plan in plans {
            self.apply_service(plan, context);
        }
        if all {
            let pmtu_disc = context.model.policy.pmtu_disc;
            for dest in self.removed.clone() {
                if let Some(entry @ DestEntry { way: Way::Tunnel(at), .. }) = self.entry(dest).copied() {
                    let way = Way::Tunnel(context.tables.tunnel_with_df(at, pmtu_disc));
                    self.set_entry(dest, DestEntry { way, ..entry });
                }
            }
        }
        self.apply_snat(context);
        Ok(())
    }

    fn apply_service(&mut self, plan: Plan, context: &mut Context<'_>) {
        let service = plan.service.clone();
        let key = service.address;
        let mut record = self.services.remove(&key).unwrap_or_else(|| self.new_service(&plan.policy));
        let mut candidates = Vec::with_capacity(service.servers.len());
        let mut edited = false;
        for (position, (server, hop)) in service.servers.iter().zip(&plan.hops).enumerate() {
            let link = &context.links[usize::from(hop.link.0)];
            let entry = DestEntry {
                neighbor: hop.neighbor,
                position: position as u32,
                service: record.id,
                device: link.device,
                vlan: link.vlan,
                mtu: hop.mtu,
                timeouts: plan.places.timeouts,
                mac: link.mac,
                removed: false,
                draining: server.weight == 0,
                policy: plan.places.policy,
                way: hop.way,
                rule: plan.places.rule,
                port: server.port,
                address: server.address,
            };
            // the use of a tunnel passes from the plan to the destination
            context.tables.again(Places { tunnel: None, ..Places::of(&entry) });
            let (dest, changed) = self.place(DestKey::of(&service, server), server.clone(), entry, context);
            edited |= changed;
            let tag = build::tag(server.address, server.port, context.hash);
            candidates.push(Candidate { dest, weight: server.weight, tag });
        }
        self.remove_all_but(&record.entry.candidates, &candidates, context.generation);
        self.schedule(&mut record, &plan, candidates, edited, context.hash);
        let address = addressing::address(key);
        self.enter(address, &record);
        match record.entry.scheduler {
            Scheduler::Lblc(_) | Scheduler::Lblcr(_) => self.caching.insert(key),
            _ => self.caching.remove(&key),
        };
        self.services.insert(key, record);
        self.place_removed(key, Some(&plan), context);
        context.let_go(&plan, 0);
    }

    /// Lets packets find a service.
    fn enter(&mut self, address: Address, record: &ServiceRecord) {
        self.classifier.remove(address);
        self.classifier.add(address, record.entry.rule.is_some(), record.entry.clone());
    }

    /// Rules of source NAT are destinations without servers.
    fn apply_snat(&mut self, context: &mut Context<'_>) {
        if context.model.snat.is_empty() && self.snat.is_empty() {
            return;
        }
        let table = TimeoutTable::new(&context.model.timeouts, &lb_config::ServiceTimeouts::default());
        // connections of a rule that was taken out go on; no service is asked
        let policy = EffectivePolicy {
            on_no_server: lb_config::OnNoServer::Drop,
            on_server_down: lb_config::OnServerDown::Keep,
            reuse: lb_config::Reuse::Closing,
            mss: None,
            dr_close_timeout: None,
            max_connections: None,
            udp_activity: None,
            syn_proxy: lb_config::SynProxy::Off,
        };
        let former = std::mem::take(&mut self.snat);
        for rule in &context.model.snat {
            let Some(key) = DestKey::of_rule(rule, context.links) else { continue };
            let ends = LocalEnds { addresses: rule.addresses.clone(), client_address: ClientAddress::None };
            // there are 256 rules at most, and room is kept for none: a table that is full has no rule in it
            let tables = &mut context.tables;
            let places = (tables.timeouts(table), tables.policy(&policy), tables.ends(&ends));
            let (Some(timeouts), Some(policy), Some(ends)) = places else { continue };
            // every packet goes where its destination is: what is said here of the way is not looked at
            let entry = DestEntry {
                neighbor: NeighborId(0),
                position: u32::MAX,
                service: ServiceId(u32::MAX),
                device: DeviceId(0),
                vlan: 0,
                mtu: 0,
                timeouts,
                mac: [0; 6],
                removed: false,
                draining: false,
                policy,
                rule: DestEntry::NO_RULE,
                way: Way::Snat(ends),
                port: 0,
                address: key.address,
            };
            let server = Server::new(key.address, 0, Forwarding::FullNat);
            let (dest, _) = self.place(key, server, entry, context);
            self.snat.push(dest);
        }
        let candidates = |dests: &[DestId]| -> Vec<Candidate> {
            dests.iter().map(|dest| Candidate { dest: *dest, weight: 1, tag: 0 }).collect()
        };
        let standing = candidates(&self.snat);
        self.remove_all_but(&candidates(&former), &standing, context.generation);
    }

    fn new_service(&mut self, policy: &EffectivePolicy) -> ServiceRecord {
        let id = ServiceId(self.next_service);
        self.next_service += 1;
        let entry = Arc::new(ServiceEntry {
            id,
            scheduler: Scheduler::Lc,
            candidates: Vec::new(),
            heaviest: 0,
            rule: None,
            one_packet: false,
            policy: *policy,
        });
        ServiceRecord { id, memory: Memory::default(), entry, past: [0; 5] }
    }

    /// Gives a server its index: the one it has, the one it had, or a free one. Returns it, and whether the server is
    /// new or differs from what it was. The destination takes over a use of each of the entry's places.
    fn place(
        &mut self,
        key: DestKey,
        server: Server,
        entry: DestEntry,
        context: &mut Context<'_>,
    ) -> (DestId, bool) {
        let Server { upper_threshold: upper, lower_threshold: lower, weight, .. } = server;
        let has_hop = !matches!(entry.way, Way::Snat(_));
        if let Some(&dest) = self.by_server.get(&key) {
            self.touched.push(dest);
            let old = self.entry(dest).copied();
            let Some(record) = self.record_mut(dest) else { return (dest, false) };
            let stood = record.stands();
            let was_removed = std::mem::replace(&mut record.removed, false);
            let changed = was_removed || record.server != server;
            if was_removed || weight > 0 {
                record.last_weight = weight;
            }
            (record.server, record.predecessor) = (server, None);
            let stands = record.stands();
            if stood != stands {
                self.unwritten.push(dest);
            }
            if was_removed {
                self.no_longer_removed(&key, dest);
            }
            if let Some(old) = old {
                if has_hop && old.neighbor != entry.neighbor {
                    context.next_hops.hold(context.book, entry.neighbor);
                    context.next_hops.release(context.book, old.neighbor, context.generation);
                }
                context.tables.release(Places::of(&old));
            }
            self.set_entry(dest, entry);
            context.overload.configure(dest, upper, lower);
            return (dest, changed);
        }
        let reserved = self.reserved.remove(&key).or_else(|| self.free.pop());
        let dest = reserved.unwrap_or_else(|| {
            self.records.push(None);
            DestId(self.records.len() as u32 - 1)
        });
        self.unwritten.push(dest);
        self.touched.push(dest);
        context.overload.renew(dest, upper, lower);
        if has_hop {
            context.next_hops.hold(context.book, entry.neighbor);
        }
        self.count_nat(&key, true);
        let base = (context.readings)(dest);
        let record = DestRecord {
            key,
            server,
            removed: false,
            last_weight: weight,
            predecessor: None,
            removed_at: 0,
            base,
        };
        self.records[dest.0 as usize] = Some(record);
        self.entries.set(dest.0 as usize, Some(entry));
        self.by_server.insert(key, dest);
        self.names.set(dest.0 as usize, Some(key));
        (dest, true)
    }

    /// Marks those of `old` that are not in `new` as removed.
    fn remove_all_but(&mut self, old: &[Candidate], new: &[Candidate], generation: u64) {
        // most changes leave everybody where they were
        let same = old.iter().zip(new).take_while(|(old, new)| old.dest == new.dest).count();
        let stays: HashSet<DestId> = new[same..].iter().map(|candidate| candidate.dest).collect();
        for (at, candidate) in old.iter().enumerate().skip(same) {
            let dest = candidate.dest;
            if stays.contains(&dest) {
                continue;
            }
            let Some(record) = self.record_mut(dest) else { continue };
            let stood = record.stands();
            record.removed = true;
            record.server.weight = 0;
            record.removed_at = generation;
            record.predecessor = at.checked_sub(1).map(|before| old[before].dest);
            let owner = record.key.owner;
            if stood {
                self.unwritten.push(dest);
            }
            self.touched.push(dest);
            self.removed.insert(dest);
            if let Some(service) = owner.service() {
                self.removed_of.entry(service).or_default().insert(dest);
            }
            if let Some(entry) = self.entry(dest).copied() {
                self.set_entry(dest, DestEntry { removed: true, draining: true, ..entry });
            }
        }
    }

    /// Gives every removed destination of a service the position of its nearest predecessor that still stands, and the
    /// service's policy, which may have changed since. `plan`: of the service, if there still is one.
    fn place_removed(&mut self, service: ServiceAddress, plan: Option<&Plan>, context: &mut Context<'_>) {
        let Some(removed) = self.removed_of.get(&service).cloned() else { return };
        let mut positions: HashMap<DestId, u32> = HashMap::with_capacity(removed.len());
        for dest in &removed {
            let mut chain = Vec::new();
            let mut at = Some(*dest);
            let position = loop {
                let Some(here) = at else { break u32::MAX };
                if let Some(known) = positions.get(&here) {
                    break *known;
                }
                match self.record(here) {
                    Some(record) if record.removed && chain.len() <= removed.len() => {
                        chain.push(here);
                        at = record.predecessor;
                    }
                    Some(record) if !record.removed => {
                        break self.entry(here).map_or(u32::MAX, |entry| entry.position);
                    }
                    _ => break u32::MAX,
                }
            };
            positions.extend(chain.into_iter().map(|dest| (dest, position)));
        }
        for dest in removed {
            let Some(old) = self.entry(dest).copied() else { continue };
            let position = positions.get(&dest).copied().unwrap_or(u32::MAX);
            let policy = plan.map_or(old.policy, |plan| plan.places.policy);
            let entry = DestEntry { position, policy, ..old };
            context.tables.again(Places::of(&entry));
            context.tables.release(Places::of(&old));
            self.set_entry(dest, entry);
        }
    }

    /// Renews a service's entry for new candidates. `edited`: a server is new or differs from what it was.
    fn schedule(
        &self,
        record: &mut ServiceRecord,
        plan: &Plan,
        candidates: Vec<Candidate>,
        edited: bool,
        hash: &FlowHash,
    ) {
        let service = &*plan.service;
        let state = |(server, candidate): (&Server, &Candidate)| ServerState {
            address: server.address,
            port: server.port,
            last_weight: self.last_weight(candidate.dest),
        };
        let servers: Vec<ServerState> = service.servers.iter().zip(&candidates).map(state).collect();
        let old = &record.entry.candidates;
        // whoever was removed or stands elsewhere
        let same = old.iter().map(|candidate| candidate.dest).eq(candidates.iter().map(|c| c.dest));
        let change = Change {
            service,
            old,
            candidates: &candidates,
            servers: &servers,
            edited: edited || !same,
            hash,
        };
        let scheduler = record.memory.update(&change);
        record.entry = Arc::new(ServiceEntry {
            id: record.id,
            scheduler,
            heaviest: candidates.iter().map(|candidate| candidate.weight).max().unwrap_or(0),
            candidates,
            rule: plan.rule.clone(),
            one_packet: service.one_packet,
            policy: plan.policy,
        });
    }
}

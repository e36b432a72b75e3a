//! A new model becomes the registry's, and then a snapshot.

use std::sync::Arc;

use lb_config::{Device, Model, Service};

use super::addresses::Use;
use super::context::Context;
use super::registry::Difference;
use super::{ApplyError, Director, addressing, devices, readings, shared};
use crate::io::DeviceId;
use crate::neighbor::{LinkId, NeighborId};
use crate::networks::Networks;
use crate::owner::Shared;
use crate::snapshot::{Link, Snapshot};

/// Next hops for what is not directly connected: IPv4, IPv6.
type Gateways = [Option<(LinkId, NeighborId)>; 2];

impl Director {
    /// Runs `model` instead. Workers pick it up between bursts; connections stay with their servers, also with
    /// servers that `model` no longer has, until they end.
    ///
    /// Cost: in proportion to the services that `model` does not share with the one that runs and that differ from it;
    /// all of them where ports, timeouts or policies of the whole director differ.
    /// Errors: nothing was changed.
    pub fn apply(&mut self, model: &Model) -> Result<(), ApplyError> {
        self.check_fixed(model)?;
        let mut model = model.clone();
        model.services.share_with(&self.model.services);
        let links = self.links_of(&model);
        let building = self.running.generation + 1;
        let gateways = self.gateways(&model)?;
        let all = links != self.running.links
            || gateways != self.running.gateways
            || model.timeouts != self.model.timeouts
            || model.policy != self.model.policy;
        let difference = Difference::of(&self.model.services, &model.services, all);
        let (before, after) = (difference.before.clone(), difference.changed.clone());
        let counters = &self.counters;
        let mut context = Context {
            generation: building,
            model: &model,
            links: &links,
            book: &mut self.book,
            next_hops: &mut self.next_hops,
            tables: &mut self.tables,
            gateways,
            hash: &self.running.flow_hash,
            overload: &self.running.overload,
            readings: &|dest| readings(counters, dest),
        };
        self.registry.apply(difference, all, &mut context)?;
        self.exchange_gateways(gateways, building);
        self.count_addresses(&before, &after, &links);
        if links != self.running.links || model.marks != self.model.marks || building == 1 {
            let marks = model.marks.iter().filter_map(|rule| addressing::mark(rule, &links)).collect();
            self.registry.classifier.set_marks(marks);
        }
        self.exchange_friends(&model, &links, building);
        let shared = Arc::new(shared::shared(&model, &links, &mut self.owners));
        self.addresses.share(shared.iter().map(|(address, shared)| (address, shared.link)), &links);
        self.follow_sync(&model, building);
        self.model = model;
        self.drains.follow(&mut self.registry);
        self.publish(links, gateways, shared);
        self.expire_removed();
        Ok(())
    }

    fn links_of(&self, model: &Model) -> Vec<Link> {
        let devices = devices(model);
        let device_of =
            |device: &Device| devices.iter().position(|(other, _)| other == device).unwrap_or_default();
        let link = |port: &lb_config::Port| {
            let device = device_of(&port.device);
            Link {
                name: port.name.clone(),
                device: DeviceId(device as u16),
                vlan: port.vlan.unwrap_or(0),
                mac: self.setup.devices[device].mac,
                mtu: port.mtu,
                addresses: port.addresses.clone(),
            }
        };
        model.ports.iter().map(link).collect()
    }

    fn gateways(&mut self, model: &Model) -> Result<Gateways, ApplyError> {
        let mut gateways = [None; 2];
        for (at, port) in model.ports.iter().enumerate() {
            for gateway in &port.gateways {
                let link = LinkId(at as u16);
                let neighbor = self.book.intern(link, *gateway).map_err(|_| ApplyError::TooManyNeighbors)?;
                self.next_hops.spare(neighbor, self.running.generation + 1);
                gateways[usize::from(gateway.is_ipv6())] = Some((link, neighbor));
            }
        }
        Ok(gateways)
    }

    /// Takes over the other directors that `model` names.
    fn exchange_friends(&mut self, model: &Model, links: &[Link], building: u64) {
        let new = shared::friends(model, links, &mut self.book);
        for id in &new {
            self.next_hops.spare(*id, building);
            self.next_hops.hold(&self.book, *id);
        }
        let old = std::mem::replace(&mut self.friends, new);
        old.into_iter().for_each(|id| self.next_hops.release(&self.book, id, building));
    }

    fn exchange_gateways(&mut self, new: Gateways, building: u64) {
        let old = self.running.gateways;
        new.iter().flatten().for_each(|(_, id)| self.next_hops.hold(&self.book, *id));
        old.iter().flatten().for_each(|(_, id)| self.next_hops.release(&self.book, *id, building));
    }

    /// The addresses that services and local ends brought, took along, or have on other links now.
    fn count_addresses(&mut self, before: &[Arc<Service>], after: &[Arc<Service>], links: &[Link]) {
        // what came first, so that an address that stays is never gone
        for (services, more) in [(after, true), (before, false)] {
            for vip in services.iter().filter_map(|service| service.address.vip()) {
                self.addresses.count(vip, Use::Vip, more, links);
            }
        }
        for (ends, more) in std::mem::take(&mut self.tables.ends_news) {
            for address in ends.addresses {
                self.addresses.count(address, Use::LocalEnd, more, links);
            }
        }
        if *links != self.running.links {
            self.addresses.relink(&self.running.links, links);
        }
    }

    /// Devices, workers and sizes do not change while the process runs.
    fn check_fixed(&self, model: &Model) -> Result<(), ApplyError> {
        let differs = |what| Err(ApplyError::NeedsRestart { what });
        let shape = |model: &Model| -> Vec<_> {
            model.ports.iter().map(|port| (port.device.clone(), port.vlan, port.mtu)).collect()
        };
        if model.appliance != self.model.appliance {
            return differs("[appliance]");
        }
        if model.limits != self.model.limits {
            return differs("[limits]");
        }
        if shape(model) != shape(&self.model) {
            return differs("a port's device, vlan or mtu, or the list of ports,");
        }
        Ok(())
    }

    /// Publishes what runs once more: indices or next hops changed.
    pub(super) fn republish(&mut self) {
        let running = self.running.clone();
        // the last destination with some local ends may be gone
        self.count_addresses(&[], &[], &running.links);
        self.publish(running.links.clone(), running.gateways, running.shared.clone());
    }

    /// Gives the workers what there is now. What is long is not copied but shared.
    fn publish(&mut self, links: Vec<Link>, gateways: Gateways, shared: Arc<Shared>) {
        let (registry, tables) = (&self.registry, &self.tables);
        let snapshot = Arc::new(Snapshot {
            generation: self.running.generation + 1,
            services: registry.classifier.clone(),
            dests: registry.entries.clone(),
            nat_servers: registry.nat_servers.clone(),
            snat: registry.snat_entries(),
            translated: self.addresses.translated.clone(),
            reply_ends: registry.sources.with_targets_of(&self.addresses.targets),
            local_ends: tables.ends.values(),
            tunnels: tables.tunnels.values(),
            rules: tables.rules.values(),
            policy: self.model.policy,
            policies: tables.policies.values(),
            neighbors: self.next_hops.published.clone(),
            cells: self.running.cells.clone(),
            flow_hash: self.running.flow_hash.clone(),
            overload: self.running.overload.clone(),
            local: self.addresses.local.clone(),
            timeouts: tables.timeouts.values(),
            networks: Networks::of(&links),
            links,
            gateways,
            shared,
            sync: self.feeds.clone(),
            names: registry.names.clone(),
            by_name: registry.by_server.clone(),
        });
        let came = std::mem::take(&mut self.addresses.came);
        self.announcer.added(&came, &self.running, &snapshot);
        self.running = snapshot;
        for mailbox in &self.mailboxes {
            mailbox.publish(self.running.clone());
        }
    }
}

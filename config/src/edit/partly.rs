//! Checking an edit without checking all that it left alone.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{EditError, validate};
use crate::address::IpPrefix;
use crate::model::{Model, Service};
use crate::services::Services;

/// Checks `new`, which came from `old` by an edit: what holds for `old` is not looked at again.
///
/// The rules are those of [`validate`], asked of the services that the two do not share, together with those others
/// that they may clash with: of the same name, with VIPs in common, or with a VIP, server or local address where a
/// changed service has one that it had not. A fault is told as [`validate`] tells it.
///
/// Cost: in proportion to the services that changed; one pass over the services where a name, an address, a server's
/// address or a local address is new, over their servers where a VIP or a local address is. The caller may rely on
/// `new` being valid only if `old` is.
/// Errors: as [`validate`].
pub fn validate_change(old: &Model, new: &Model) -> Result<(), EditError> {
    match part(old, new) {
        Some(part) if validate(&part).is_ok() => Ok(()),
        _ => validate(new),
    }
}

/// What is new to a Model.
#[derive(Default)]
struct Novelties<'m> {
    names: HashSet<&'m str>,
    vips: Vec<IpPrefix>,
    marks: HashSet<u32>,
    /// Of servers and local addresses.
    ends: HashSet<IpAddr>,
    locals: HashSet<IpAddr>,
}

/// The part of `new` that must be looked at; `None`: all of it.
fn part(old: &Model, new: &Model) -> Option<Model> {
    if !old.differs_in_services_alone(new) || new.services.len() > new.limits.max_services as usize {
        return None;
    }
    let (before, after) = old.services.apart(&new.services);
    // many changes at once are a new configuration
    if after.len() > 64 + new.services.len() / 16 {
        return None;
    }
    let servers = |services: &[Arc<Service>]| services.iter().map(|s| s.servers.len()).sum::<usize>();
    if servers(after) > servers(before) && servers(new.services.shared()) > new.limits.max_servers as usize {
        return None;
    }
    let novelties = Novelties::of(before, after);
    let mut services: Vec<Arc<Service>> = Vec::new();
    if novelties.any() {
        let front = new.services.shared().iter().zip(old.services.shared());
        let front = front.take_while(|(a, b)| Arc::ptr_eq(a, b)).count();
        let back = front + after.len();
        let others = new.services.shared().iter().enumerate();
        let others =
            others.filter(|(at, service)| (*at < front || *at >= back) && novelties.concern(service));
        services.extend(others.map(|(_, service)| service.clone()));
    }
    services.extend(after.iter().cloned());
    Some(Model { services: services.into_iter().collect::<Services>(), ..new.without_services() })
}

impl<'m> Novelties<'m> {
    fn of(before: &'m [Arc<Service>], after: &'m [Arc<Service>]) -> Self {
        let mut new = Self::default();
        let names: HashSet<&str> = before.iter().map(|s| s.name.as_str()).collect();
        let addresses: HashSet<_> = before.iter().map(|s| s.address).collect();
        let ends: HashSet<IpAddr> = before.iter().flat_map(|s| s.servers.iter().map(|s| s.address)).collect();
        let locals: HashSet<IpAddr> = before.iter().flat_map(|s| s.local_addresses.iter().copied()).collect();
        for service in after {
            new.names.extend(Some(service.name.as_str()).filter(|name| !names.contains(name)));
            if !addresses.contains(&service.address) {
                new.vips.extend(service.vips());
                new.marks.extend(service.address.mark());
            }
            let servers = service.servers.iter().map(|server| server.address);
            new.ends.extend(servers.filter(|address| !ends.contains(address)));
            let own = service.local_addresses.iter().copied();
            new.locals.extend(own.filter(|address| !locals.contains(address)));
        }
        new
    }

    fn any(&self) -> bool {
        !(self.names.is_empty()
            && self.vips.is_empty()
            && self.marks.is_empty()
            && self.ends.is_empty()
            && self.locals.is_empty())
    }

    /// Whether a service that stays may clash with any of it.
    fn concern(&self, other: &Service) -> bool {
        if !self.names.is_empty() && self.names.contains(other.name.as_str()) {
            return true;
        }
        if other.address.mark().is_some_and(|mark| self.marks.contains(&mark)) {
            return true;
        }
        if let Some(vips) = other.vips() {
            let meet = |own: &IpPrefix| own.contains(vips.network()) || vips.contains(own.network());
            let holds = |address: &IpAddr| vips.contains(*address);
            let inside = match vips.single() {
                Some(vip) => self.ends.contains(&vip) || self.locals.contains(&vip),
                None => self.ends.iter().chain(&self.locals).any(holds),
            };
            if inside || self.vips.iter().any(meet) {
                return true;
            }
        }
        let is_vip = |address: &IpAddr| self.vips.iter().any(|vips| vips.contains(*address));
        let taken = |address: &IpAddr| self.locals.contains(address) || is_vip(address);
        other.local_addresses.iter().any(|local| self.ends.contains(local) || taken(local))
            || (!(self.vips.is_empty() && self.locals.is_empty())
                && other.servers.iter().any(|server| taken(&server.address)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forwarding::Forwarding;
    use crate::model::Server;
    use crate::tests::small;

    /// Services that clash: few names, VIPs that are servers, servers that are local addresses.
    fn service() -> impl Strategy<Value = Service> {
        let addresses = prop::sample::select(vec![
            "192.168.150.100:81/tcp",
            "192.168.150.21:80/tcp",
            "192.168.150.22:80/udp",
            "192.168.150.16/30:80-90/tcp",
            "10.9.0.0/16:80-90/tcp",
            "10.9.1.0/24:80-90/tcp",
            "10.9.1.1:80-90/tcp",
            "10.9.1.1:85-95/tcp",
            "10.9.1.1:85/tcp",
            "mark:7",
        ]);
        let servers = prop::collection::btree_set(20..24u8, 0..3);
        let locals = prop::collection::btree_set(22..26u8, 0..3);
        (0..40u8, addresses, servers, locals, any::<bool>()).prop_map(
            |(name, address, servers, locals, full)| {
                let forwarding =
                    if full && !locals.is_empty() { Forwarding::FullNat } else { Forwarding::Dr };
                let mut service = Service::new(format!("s{name}"), address.parse().unwrap());
                let own = |host: u8| IpAddr::from([192, 168, 150, host]);
                let port = service.port();
                service.servers =
                    servers.into_iter().map(|host| Server::new(own(host), port, forwarding)).collect();
                service.forwarding = forwarding;
                let needed = forwarding == Forwarding::FullNat;
                service.local_addresses = locals.into_iter().filter(|_| needed).map(own).collect();
                service
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_part_is_refused_when_the_whole_is(
            services in prop::collection::vec(service(), 0..8),
            changes in prop::collection::vec((any::<prop::sample::Index>(), service(), 0..4u8), 1..12),
        ) {
            let mut model = small();
            for service in services {
                let mut more = model.clone();
                more.services.push(service);
                if validate(&more).is_ok() {
                    model = more;
                }
            }
            for (at, service, kind) in changes {
                let mut next = model.clone();
                let at = at.index(next.services.len());
                match kind {
                    0 => next.services.push(service),
                    1 => next.services[at] = service,
                    2 => next.services[at].servers = service.servers,
                    _ => next.services[at].local_addresses = service.local_addresses,
                }
                let whole = validate(&next);
                prop_assert_eq!(validate_change(&model, &next), whole.clone());
                if whole.is_ok() {
                    model = next;
                }
            }
        }
    }

    #[test]
    fn limits_hold_for_the_whole() {
        let mut model = small();
        model.limits.max_servers = 2;
        let mut more = model.clone();
        more.services[0].servers.push(Server::new("192.168.150.20".parse().unwrap(), 80, Forwarding::Dr));
        assert!(validate_change(&model, &more).is_err());
        model.limits.max_services = 1;
        let mut more = model.clone();
        more.services.push(Service::new("b", "10.0.0.1:80/tcp".parse().unwrap()));
        assert_eq!(validate_change(&model, &more), validate(&more));
        assert!(validate(&more).is_err());
    }
}

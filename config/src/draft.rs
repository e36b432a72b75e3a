//! A configuration that was read but not yet checked.
//!
//! Invariant: `None` in a draft means that a fault is already reported for this value, so the checks pass it by
//! and one slip makes one fault. Drafts come from the reader and, for edits, from a Model.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::{IpPrefix, PortRange, ServiceAddress};
use crate::exception::{DEFAULT_EXCEPTION_RATE, Exception, ExceptionKind, default_interface};
use crate::forwarding::{ClientAddress, Forwarding};
use crate::health::{Notify, ServerHealth, ServiceHealth};
use crate::mark::MarkRule;
use crate::model::{
    Appliance, Device, IfAddr, Limits, Model, Persistence, Port, Protocol, Scheduler, SchedulerFlags, Server,
    Service, ServiceTimeouts, Tables, Timeouts,
};
use crate::policy::{Policy, ServicePolicy};
use crate::snat::{SnatProtocol, SnatRule};
use crate::vrrp::Ha;

/// Draft of a [`Model`]. A scalar that could not be read holds its default.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// Its `workers` are taken from the field below.
    pub appliance: Appliance,
    pub workers: Option<Vec<Option<u16>>>,
    pub limits: Limits,
    pub tables: Tables,
    pub timeouts: Timeouts,
    pub policy: Policy,
    pub notify: Notify,
    pub ports: Option<Vec<DraftPort>>,
    pub marks: Vec<DraftMark>,
    pub services: Vec<DraftService>,
    pub snat: Vec<DraftSnat>,
    /// What could not be read in it holds its default.
    pub ha: Ha,
}

/// Draft of an [`SnatRule`]. The default is a rule of which nothing could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftSnat {
    pub name: Option<String>,
    pub sources: Option<IpPrefix>,
    pub addresses: Option<Vec<Option<IpAddr>>>,
    pub protocols: Option<Vec<Option<SnatProtocol>>>,
    pub port: Option<Option<String>>,
}

impl DraftSnat {
    fn finish(self) -> Option<SnatRule> {
        Some(SnatRule {
            name: self.name?,
            sources: self.sources?,
            addresses: self.addresses?.into_iter().collect::<Option<_>>()?,
            protocols: self.protocols?.into_iter().collect::<Option<_>>()?,
            port: self.port?,
        })
    }
}

impl From<&SnatRule> for DraftSnat {
    fn from(rule: &SnatRule) -> Self {
        Self {
            name: Some(rule.name.clone()),
            sources: Some(rule.sources),
            addresses: Some(rule.addresses.iter().copied().map(Some).collect()),
            protocols: Some(rule.protocols.iter().copied().map(Some).collect()),
            port: Some(rule.port.clone()),
        }
    }
}

/// Draft of a [`Port`]. The default is a port of which nothing could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftPort {
    pub name: Option<String>,
    pub device: Option<Device>,
    pub vlan: Option<Option<u16>>,
    pub mtu: Option<u16>,
    pub addresses: Option<Vec<Option<IfAddr>>>,
    pub gateways: Option<Vec<Option<IpAddr>>>,
    pub exception: Option<ExceptionKind>,
    pub exception_interface: Option<Option<String>>,
    pub exception_rate: Option<Option<u32>>,
}

impl DraftPort {
    /// Name of its TAP interface, whether it has one or not; `None`: it could not be read.
    pub fn interface(&self) -> Option<String> {
        let given = self.exception_interface.as_ref()?.clone();
        given.or_else(|| self.name.as_deref().map(default_interface))
    }

    pub fn has_tap(&self) -> bool {
        self.exception == Some(ExceptionKind::Tap)
    }
}

/// Draft of a [`Service`]. The default is a service of which nothing could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftService {
    pub name: Option<String>,
    pub address: DraftAddress,
    pub scheduler: Option<Scheduler>,
    pub scheduler_flags: Option<SchedulerFlags>,
    pub forwarding: Option<Forwarding>,
    pub timeouts: ServiceTimeouts,
    pub persistence: Option<Option<Persistence>>,
    pub one_packet: Option<bool>,
    pub policy: ServicePolicy,
    pub local_addresses: Option<Vec<Option<IpAddr>>>,
    pub client_address: Option<ClientAddress>,
    /// What of it could not be read is left out.
    pub health: Option<Arc<ServiceHealth>>,
    pub servers: Vec<DraftServer>,
}

/// Draft of a [`ServiceAddress`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum DraftAddress {
    /// Not even which kind it is could be read.
    #[default]
    Unknown,
    /// Addresses and ports; where they are one each, an exact one.
    Packet { vips: Option<IpPrefix>, ports: Option<PortRange>, protocol: Option<Protocol> },
    /// A mark.
    Mark { mark: Option<u32>, ipv6: Option<bool> },
}

/// Draft of a [`MarkRule`]. The default is a rule of which nothing could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftMark {
    pub value: Option<u32>,
    pub source: Option<Option<IpPrefix>>,
    pub destination: Option<Option<IpPrefix>>,
    pub protocol: Option<Option<Protocol>>,
    pub source_ports: Option<Option<PortRange>>,
    pub ports: Option<Option<PortRange>>,
    pub port: Option<Option<String>>,
    pub vlan: Option<Option<u16>>,
}

impl DraftAddress {
    /// The address, when all of it could be read.
    pub fn whole(self) -> Option<ServiceAddress> {
        match self {
            Self::Unknown => None,
            Self::Packet { vips, ports, protocol } => Some(ServiceAddress::of(vips?, ports?, protocol?)),
            Self::Mark { mark, ipv6 } => Some(ServiceAddress::Mark { mark: mark?, ipv6: ipv6? }),
        }
    }

    /// The virtual addresses; `None`: none could be read, or it is a mark.
    pub fn vips(self) -> Option<IpPrefix> {
        match self {
            Self::Packet { vips, .. } => vips,
            Self::Unknown | Self::Mark { .. } => None,
        }
    }

    /// The protocol; `None`: none could be read, or it is a mark.
    pub fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Packet { protocol, .. } => protocol,
            Self::Unknown | Self::Mark { .. } => None,
        }
    }

    /// See [`ServiceAddress::port`].
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Unknown => None,
            Self::Packet { ports, .. } => ports.map(|ports| ports.single().unwrap_or(0)),
            Self::Mark { .. } => Some(0),
        }
    }

    /// See [`ServiceAddress::is_ipv6`].
    pub fn is_ipv6(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Packet { vips, .. } => vips.map(|vips| vips.network().is_ipv6()),
            Self::Mark { ipv6, .. } => ipv6,
        }
    }
}

impl From<ServiceAddress> for DraftAddress {
    fn from(address: ServiceAddress) -> Self {
        match address {
            ServiceAddress::Vip { vip, port, protocol } => Self::Packet {
                vips: Some(IpPrefix::host(vip)),
                ports: Some(PortRange::one(port)),
                protocol: Some(protocol),
            },
            ServiceAddress::Range { vips, ports, protocol } => {
                Self::Packet { vips: Some(vips), ports: Some(ports), protocol: Some(protocol) }
            }
            ServiceAddress::Mark { mark, ipv6 } => Self::Mark { mark: Some(mark), ipv6: Some(ipv6) },
        }
    }
}

impl DraftMark {
    fn finish(self) -> Option<MarkRule> {
        Some(MarkRule {
            value: self.value?,
            source: self.source?,
            destination: self.destination?,
            protocol: self.protocol?,
            source_ports: self.source_ports?,
            ports: self.ports?,
            port: self.port?,
            vlan: self.vlan?,
        })
    }
}

impl From<&MarkRule> for DraftMark {
    fn from(rule: &MarkRule) -> Self {
        Self {
            value: Some(rule.value),
            source: Some(rule.source),
            destination: Some(rule.destination),
            protocol: Some(rule.protocol),
            source_ports: Some(rule.source_ports),
            ports: Some(rule.ports),
            port: Some(rule.port.clone()),
            vlan: Some(rule.vlan),
        }
    }
}

/// Draft of a [`Server`]. The default is a server of which nothing could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftServer {
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub weight: Option<u32>,
    pub forwarding: Option<Forwarding>,
    pub upper_threshold: Option<u32>,
    pub lower_threshold: Option<u32>,
    pub drain_deadline: Option<Option<Duration>>,
    /// What of it could not be read is left out.
    pub health: Option<Arc<ServerHealth>>,
}

impl Draft {
    /// The Model, when everything could be read.
    pub fn finish(self) -> Option<Model> {
        let workers = self.workers?.into_iter().collect::<Option<_>>()?;
        Some(Model {
            appliance: Appliance { workers, ..self.appliance },
            limits: self.limits,
            tables: self.tables,
            timeouts: self.timeouts,
            policy: self.policy,
            notify: self.notify,
            ports: self.ports?.into_iter().map(DraftPort::finish).collect::<Option<_>>()?,
            marks: self.marks.into_iter().map(DraftMark::finish).collect::<Option<_>>()?,
            services: self.services.into_iter().map(DraftService::finish).collect::<Option<_>>()?,
            snat: self.snat.into_iter().map(DraftSnat::finish).collect::<Option<_>>()?,
            ha: self.ha,
        })
    }
}

impl DraftPort {
    fn finish(self) -> Option<Port> {
        let (interface, rate) = (self.interface()?, self.exception_rate?.unwrap_or(DEFAULT_EXCEPTION_RATE));
        let has_tap = self.exception? == ExceptionKind::Tap;
        Some(Port {
            exception: has_tap.then_some(Exception { interface, rate }),
            name: self.name?,
            device: self.device?,
            vlan: self.vlan?,
            mtu: self.mtu?,
            addresses: self.addresses?.into_iter().collect::<Option<_>>()?,
            gateways: self.gateways?.into_iter().collect::<Option<_>>()?,
        })
    }
}

impl DraftService {
    fn finish(self) -> Option<Service> {
        Some(Service {
            name: self.name?,
            address: self.address.whole()?,
            scheduler: self.scheduler?,
            scheduler_flags: self.scheduler_flags?,
            forwarding: self.forwarding?,
            timeouts: self.timeouts,
            persistence: self.persistence?,
            one_packet: self.one_packet?,
            policy: self.policy,
            local_addresses: self.local_addresses?.into_iter().collect::<Option<_>>()?,
            client_address: self.client_address?,
            health: self.health,
            servers: self.servers.into_iter().map(DraftServer::finish).collect::<Option<_>>()?,
        })
    }
}

impl DraftServer {
    fn finish(self) -> Option<Server> {
        Some(Server {
            address: self.address?,
            port: self.port?,
            weight: self.weight?,
            forwarding: self.forwarding?,
            upper_threshold: self.upper_threshold?,
            lower_threshold: self.lower_threshold?,
            drain_deadline: self.drain_deadline?,
            health: self.health,
        })
    }
}

impl From<&Model> for Draft {
    fn from(model: &Model) -> Self {
        Self {
            appliance: model.appliance.clone(),
            workers: Some(model.appliance.workers.iter().copied().map(Some).collect()),
            limits: model.limits.clone(),
            tables: model.tables.clone(),
            timeouts: model.timeouts,
            policy: model.policy,
            notify: model.notify.clone(),
            ports: Some(model.ports.iter().map(DraftPort::from).collect()),
            marks: model.marks.iter().map(DraftMark::from).collect(),
            services: model.services.iter().map(DraftService::from).collect(),
            snat: model.snat.iter().map(DraftSnat::from).collect(),
            ha: model.ha.clone(),
        }
    }
}

impl From<&Port> for DraftPort {
    fn from(port: &Port) -> Self {
        let own = port.exception.as_ref();
        Self {
            name: Some(port.name.clone()),
            device: Some(port.device.clone()),
            vlan: Some(port.vlan),
            mtu: Some(port.mtu),
            addresses: Some(port.addresses.iter().copied().map(Some).collect()),
            gateways: Some(port.gateways.iter().copied().map(Some).collect()),
            exception: Some(if own.is_some() { ExceptionKind::Tap } else { ExceptionKind::Off }),
            exception_interface: Some(own.map(|own| own.interface.clone())),
            exception_rate: Some(own.map(|own| own.rate)),
        }
    }
}

impl From<&Service> for DraftService {
    fn from(service: &Service) -> Self {
        Self {
            name: Some(service.name.clone()),
            address: service.address.into(),
            scheduler: Some(service.scheduler),
            scheduler_flags: Some(service.scheduler_flags),
            forwarding: Some(service.forwarding),
            timeouts: service.timeouts,
            persistence: Some(service.persistence),
            one_packet: Some(service.one_packet),
            policy: service.policy,
            local_addresses: Some(service.local_addresses.iter().copied().map(Some).collect()),
            client_address: Some(service.client_address),
            health: service.health.clone(),
            servers: service.servers.iter().map(DraftServer::from).collect(),
        }
    }
}

impl From<&Server> for DraftServer {
    fn from(server: &Server) -> Self {
        Self {
            address: Some(server.address),
            port: Some(server.port),
            weight: Some(server.weight),
            forwarding: Some(server.forwarding),
            upper_threshold: Some(server.upper_threshold),
            lower_threshold: Some(server.lower_threshold),
            drain_deadline: Some(server.drain_deadline),
            health: server.health.clone(),
        }
    }
}

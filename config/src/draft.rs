//! A configuration that was read but not yet checked.
//!
//! Invariant: `None` in a draft means that a fault is already reported for this value, so the checks pass it by
//! and one slip makes one fault. Drafts come from the reader and, for edits, from a Model.

use std::net::IpAddr;

use crate::model::{
    Appliance, Device, Forwarding, IfAddr, Limits, Model, Port, Protocol, Scheduler, Server, Service,
    ServiceTimeouts, Timeouts,
};

/// Draft of a [`Model`]. A scalar that could not be read holds its default.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// Its `workers` are taken from the field below.
    pub appliance: Appliance,
    pub workers: Option<Vec<Option<u16>>>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub ports: Option<Vec<DraftPort>>,
    pub services: Vec<DraftService>,
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
}

/// Draft of a [`Service`]. The default is a service of which nothing could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftService {
    pub name: Option<String>,
    pub vip: Option<IpAddr>,
    pub port: Option<u16>,
    pub protocol: Option<Protocol>,
    pub scheduler: Option<Scheduler>,
    pub forwarding: Option<Forwarding>,
    pub timeouts: ServiceTimeouts,
    pub servers: Vec<DraftServer>,
}

/// Draft of a [`Server`]. The default is a server of which nothing could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftServer {
    pub address: Option<IpAddr>,
    pub weight: Option<u32>,
}

impl Draft {
    /// The Model, when everything could be read.
    pub fn finish(self) -> Option<Model> {
        let workers = self.workers?.into_iter().collect::<Option<_>>()?;
        Some(Model {
            appliance: Appliance { workers, ..self.appliance },
            limits: self.limits,
            timeouts: self.timeouts,
            ports: self.ports?.into_iter().map(DraftPort::finish).collect::<Option<_>>()?,
            services: self.services.into_iter().map(DraftService::finish).collect::<Option<_>>()?,
        })
    }
}

impl DraftPort {
    fn finish(self) -> Option<Port> {
        Some(Port {
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
            vip: self.vip?,
            port: self.port?,
            protocol: self.protocol?,
            scheduler: self.scheduler?,
            forwarding: self.forwarding?,
            timeouts: self.timeouts,
            servers: self.servers.into_iter().map(DraftServer::finish).collect::<Option<_>>()?,
        })
    }
}

impl DraftServer {
    fn finish(self) -> Option<Server> {
        Some(Server { address: self.address?, weight: self.weight? })
    }
}

impl From<&Model> for Draft {
    fn from(model: &Model) -> Self {
        Self {
            appliance: model.appliance.clone(),
            workers: Some(model.appliance.workers.iter().copied().map(Some).collect()),
            limits: model.limits.clone(),
            timeouts: model.timeouts,
            ports: Some(model.ports.iter().map(DraftPort::from).collect()),
            services: model.services.iter().map(DraftService::from).collect(),
        }
    }
}

impl From<&Port> for DraftPort {
    fn from(port: &Port) -> Self {
        Self {
            name: Some(port.name.clone()),
            device: Some(port.device.clone()),
            vlan: Some(port.vlan),
            mtu: Some(port.mtu),
            addresses: Some(port.addresses.iter().copied().map(Some).collect()),
            gateways: Some(port.gateways.iter().copied().map(Some).collect()),
        }
    }
}

impl From<&Service> for DraftService {
    fn from(service: &Service) -> Self {
        let server = |s: &Server| DraftServer { address: Some(s.address), weight: Some(s.weight) };
        Self {
            name: Some(service.name.clone()),
            vip: Some(service.vip),
            port: Some(service.port),
            protocol: Some(service.protocol),
            scheduler: Some(service.scheduler),
            forwarding: Some(service.forwarding),
            timeouts: service.timeouts,
            servers: service.servers.iter().map(server).collect(),
        }
    }
}

//! A template as listings show it.

use super::bucket::Template;
use super::key::TemplateKey;
use crate::ids::DestId;

/// The port of a template's server in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedPort {
    /// The server's own port.
    Server,
    /// 0: the template stands for many ports.
    Any,
    /// 65535: the template was replaced by another.
    Replaced,
}

/// A template as `ipvsadm -Lnc` lists it: `TCP 04:58 ASSURED client:0 vip:vport server:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Client network, virtual address, virtual port and protocol; the port of a replaced one is printed as 65535.
    pub key: TemplateKey,
    /// Destination.
    pub dest: DestId,
    /// What to print for the server's port.
    pub port: ListedPort,
    /// State `ASSURED`, else `NONE`.
    pub assured: bool,
    /// Time until its end, ns.
    pub left_ns: u64,
    /// Connections that keep it.
    pub children: u32,
}

impl Listed {
    /// The virtual port as IPVS lists it, host order.
    pub fn vport(&self) -> u16 {
        if self.port == ListedPort::Replaced { u16::MAX } else { self.key.vport }
    }

    pub(super) fn of(template: &Template, now_ns: u64) -> Self {
        let port = match template.key {
            _ if !template.valid => ListedPort::Replaced,
            key if key.vport == 0 || key.range => ListedPort::Any,
            _ => ListedPort::Server,
        };
        Self {
            key: template.key,
            dest: template.dest,
            port,
            assured: template.assured,
            left_ns: template.deadline_ns.saturating_sub(now_ns),
            children: template.children,
        }
    }
}

/// A template as another director takes it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Which clients, and what they asked for.
    pub key: TemplateKey,
    /// Destination.
    pub dest: DestId,
    /// Life after its latest new connection, ns.
    pub timeout_ns: u64,
    /// Time until its end, ns.
    pub left_ns: u64,
    /// One of its connections was established.
    pub assured: bool,
}

impl Handover {
    pub(super) fn of(template: &Template, now_ns: u64) -> Self {
        let Template { key, dest, timeout_ns, deadline_ns, assured, .. } = *template;
        Self { key, dest, timeout_ns, left_ns: deadline_ns.saturating_sub(now_ns), assured }
    }
}

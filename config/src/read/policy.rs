//! `[policy]` and `[services.policy]`. A value that cannot be read is left at its default: no check depends on it.

use toml::de::DeTable;

use super::{Reader, value};
use crate::bounds;
use crate::policy::{Policy, ServicePolicy};

pub(super) fn director(r: &mut Reader<'_>, t: &DeTable<'_>) -> Policy {
    let d = Policy::default();
    let mut flag = |key, default| r.field(t, key, value::boolean).or_default(default);
    let read = Policy {
        sloppy_tcp: flag("sloppy_tcp", d.sloppy_tcp),
        sloppy_sctp: flag("sloppy_sctp", d.sloppy_sctp),
        expire_nodest_conn: flag("expire_nodest_conn", d.expire_nodest_conn),
        expire_quiescent_template: flag("expire_quiescent_template", d.expire_quiescent_template),
        schedule_icmp: flag("schedule_icmp", d.schedule_icmp),
        pmtu_disc: flag("pmtu_disc", d.pmtu_disc),
        nat_icmp_send: flag("nat_icmp_send", d.nat_icmp_send),
        ..d
    };
    let reuse = value::integer(bounds::CONN_REUSE_MODE);
    let secure = value::integer(bounds::SECURE_TCP);
    Policy {
        compat: r.field(t, "compat", value::parsed).or_default(d.compat),
        conn_reuse_mode: r.field(t, "conn_reuse_mode", reuse).or_default(d.conn_reuse_mode),
        secure_tcp: r.field(t, "secure_tcp", secure).or_default(d.secure_tcp),
        syn_flood: r.field(t, "syn_flood", value::integer(bounds::SYN_FLOOD)).or_default(d.syn_flood),
        ..read
    }
}

pub(super) fn service(r: &mut Reader<'_>, t: &DeTable<'_>) -> ServicePolicy {
    let limit = value::integer(bounds::SERVICE_CONNECTIONS);
    ServicePolicy {
        on_no_server: r.field(t, "on_no_server", value::parsed).optional().flatten(),
        on_server_down: r.field(t, "on_server_down", value::parsed).optional().flatten(),
        reuse: r.field(t, "reuse", value::parsed).optional().flatten(),
        mss: r.field(t, "mss", value::integer(bounds::MSS)).optional().flatten(),
        dr_close_timeout: r.field(t, "dr_close_timeout", value::duration).optional().flatten(),
        max_connections: r.field(t, "max_connections", limit).optional().flatten(),
        udp_activity: r.field(t, "udp_activity", value::duration).optional().flatten(),
        syn_proxy: r.field(t, "syn_proxy", value::parsed).optional().flatten(),
    }
}

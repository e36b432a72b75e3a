//! What was typed, as a request.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use lb_control::api::{
    ConnectionFilter, DrainSpec, ExplainSpec, NO_PERSISTENCE, Request, ServerRef, ServerSpec, ServiceEdit,
    ServiceSpec, TimeoutSpec,
};

use crate::Failure;
use crate::args::{
    Command, ConnectionArgs, ServerArgs, ServerCommand, ServerOptions, ServiceCommand, ServiceOptions,
};

/// The request for a command. Reads the file that it names.
pub fn request(command: &Command) -> Result<Request, Failure> {
    Ok(match command {
        Command::Apply { file, dry_run } => Request::Apply { toml: read(file)?, dry_run: *dry_run },
        // Answered before lbd is asked; what it would be asked is what a rehearsal says.
        Command::Check { file } => Request::Apply { toml: read(file)?, dry_run: true },
        Command::Diff { file } => Request::Diff { toml: read(file)? },
        Command::Show => Request::Show,
        Command::Service(command) => service(command),
        Command::Server(command) => server(command),
        Command::Connections(filter) if filter.flush => {
            Request::FlushConnections(ConnectionFilter { limit: None, ..connections(filter) })
        }
        Command::Connections(filter) => Request::Connections(connections(filter)),
        Command::Explain { protocol, client, vip, port } => Request::Explain(ExplainSpec {
            protocol: protocol.clone(),
            client: *client,
            vip: *vip,
            port: port.clone(),
        }),
        Command::Health { service } => Request::Health { service: service.clone() },
        Command::Events { .. } => Request::Events { after: None, wait: false },
        Command::Stats => Request::Stats,
        Command::Rates => Request::Rates,
        Command::Zero { service } => Request::Zero { service: service.clone() },
        Command::Drops { .. } => Request::Drops,
        Command::Neighbors => Request::Neighbors,
        Command::Snat => Request::Snat,
        Command::Vrrp => Request::Vrrp,
        Command::Sync => Request::Sync,
        Command::Workers => Request::Workers,
        Command::Latency => Request::Latency,
        Command::Version => Request::Version,
        Command::Ipvsadm { .. } | Command::Import(_) => {
            unreachable!("main does these before it asks for a request")
        }
    })
}

fn service(command: &ServiceCommand) -> Request {
    match command {
        ServiceCommand::List => Request::ServiceList,
        ServiceCommand::Add { name, address, protocol, scheduler, options } => {
            Request::ServiceAdd(ServiceSpec {
                name: name.clone(),
                address: match (&address.vip, &address.mark) {
                    (Some(vip), _) => format!("{vip}/{protocol}"),
                    (None, mark) => mark.clone().unwrap_or_default(),
                },
                scheduler: scheduler.clone(),
                scheduler_flags: options.scheduler_flags.clone(),
                maglev_hash: options.maglev_hash.clone(),
                forwarding: forwarding(&options.forwarding, &options.tunnel),
                local_addresses: local_addresses(options),
                client_address: options.client_address.clone(),
                persistence: options.persistence.clone().filter(|text| text != NO_PERSISTENCE),
                one_packet: options.one_packet.unwrap_or(false),
                policy: options.policy.iter().cloned().collect(),
                timeouts: timeouts(options),
            })
        }
        ServiceCommand::Edit { service, scheduler, options } => Request::ServiceEdit(ServiceEdit {
            service: service.clone(),
            scheduler: scheduler.clone(),
            scheduler_flags: options.scheduler_flags.clone(),
            maglev_hash: options.maglev_hash.clone(),
            forwarding: forwarding(&options.forwarding, &options.tunnel),
            local_addresses: local_addresses(options),
            client_address: options.client_address.clone(),
            persistence: options.persistence.clone(),
            one_packet: options.one_packet,
            policy: options.policy.iter().cloned().collect(),
            timeouts: timeouts(options),
        }),
        ServiceCommand::Delete { service } => Request::ServiceDelete { service: service.clone() },
    }
}

/// The text form: a tunnel alone is forwarding enough; with another forwarding lbd says that it is of no use.
fn forwarding(forwarding: &Option<String>, tunnel: &Option<String>) -> Option<String> {
    match tunnel {
        Some(tunnel) => Some(format!("{}:{tunnel}", forwarding.as_deref().unwrap_or("tunnel"))),
        None => forwarding.clone(),
    }
}

/// None given: none are asked for.
fn local_addresses(options: &ServiceOptions) -> Option<Vec<std::net::IpAddr>> {
    Some(options.local_address.clone()).filter(|addresses| !addresses.is_empty())
}

fn timeouts(options: &ServiceOptions) -> TimeoutSpec {
    TimeoutSpec {
        tcp_established: options.timeout_established.clone(),
        tcp_syn_recv: options.timeout_syn_recv.clone(),
        tcp_fin_wait: options.timeout_fin_wait.clone(),
        udp: options.timeout_udp.clone(),
        by_key: options.timeout.iter().cloned().collect(),
    }
}

fn server(command: &ServerCommand) -> Request {
    let spec = |server: &ServerArgs, options: &ServerOptions| ServerSpec {
        service: server.service.clone(),
        address: server.address,
        port: server.port,
        weight: options.weight,
        forwarding: forwarding(&options.forwarding, &options.tunnel),
        upper_threshold: options.upper_threshold,
        lower_threshold: options.lower_threshold,
    };
    let named = |server: &ServerArgs| ServerRef {
        service: server.service.clone(),
        address: server.address,
        port: server.port,
    };
    match command {
        ServerCommand::List { service } => Request::ServerList { service: service.clone() },
        ServerCommand::Add { server, options } => Request::ServerAdd(spec(server, options)),
        ServerCommand::Edit { server, options } => Request::ServerEdit(spec(server, options)),
        ServerCommand::Delete { server } => Request::ServerDelete(named(server)),
        ServerCommand::Drain { server, deadline } => {
            Request::ServerDrain(DrainSpec { deadline: deadline.clone(), ..named(server).into() })
        }
    }
}

fn connections(args: &ConnectionArgs) -> ConnectionFilter {
    ConnectionFilter {
        client: args.client,
        vip: args.vip,
        server: args.server,
        service: args.service.clone(),
        protocol: args.protocol.clone(),
        state: args.state.clone(),
        limit: Some(args.limit),
    }
}

/// The text of a file, or of standard input for `-`.
pub fn read(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    text.map_err(|source| Failure::File { file: file.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;

    fn typed(text: &str) -> Request {
        request(&Args::try_parse_from(text.split(' ')).unwrap().command).unwrap()
    }

    #[test]
    fn a_service_is_added_with_what_was_typed() {
        let want = ServiceSpec {
            scheduler: "maglev".into(),
            forwarding: Some("tunnel:gue:6080".into()),
            persistence: Some("300/24".into()),
            maglev_hash: Some("source".into()),
            scheduler_flags: Some("flag-1,flag-3".into()),
            timeouts: TimeoutSpec {
                tcp_established: Some("15m".into()),
                by_key: [("tcp_close".into(), "5s".into()), ("tcp_synack".into(), "default".into())].into(),
                ..TimeoutSpec::default()
            },
            policy: [("mss".to_owned(), "1400".to_owned()), ("reuse".to_owned(), "ipvs".to_owned())].into(),
            ..ServiceSpec::new("web", "192.168.150.100:80/tcp")
        };
        let text = "lbctl service add web --vip 192.168.150.100:80 --scheduler maglev --maglev-hash source \
                    --scheduler-flags flag-1,flag-3 \
                    --timeout-established 15m --timeout tcp_close=5s --timeout tcp_synack=default \
                    --tunnel gue:6080 --persistence 300/24 --policy reuse=ipvs --policy mss=1400";
        assert_eq!(typed(&text.split_whitespace().collect::<Vec<_>>().join(" ")), Request::ServiceAdd(want));
    }

    #[test]
    fn full_nat_is_asked_for() {
        let want = ServiceSpec {
            forwarding: Some("fullnat".into()),
            local_addresses: Some(vec!["10.1.0.2".parse().unwrap(), "10.1.0.3".parse().unwrap()]),
            client_address: Some("toa".into()),
            ..ServiceSpec::new("api", "192.168.150.100:443/tcp")
        };
        assert_eq!(
            typed(
                "lbctl service add api --vip 192.168.150.100:443 --forwarding fullnat --local-address 10.1.0.2 \
                 --local-address 10.1.0.3 --client-address toa"
            ),
            Request::ServiceAdd(want)
        );
        let Request::ServiceAdd(proxied) = typed(
            "lbctl service add api --vip 192.168.150.100:443 --forwarding fullnat --client-address proxy-v2",
        ) else {
            panic!("a service to add")
        };
        assert_eq!(proxied.client_address.as_deref(), Some("proxy-v2"));
        assert_eq!(typed("lbctl snat"), Request::Snat);
        assert_eq!(typed("lbctl vrrp"), Request::Vrrp);
        assert_eq!(typed("lbctl sync"), Request::Sync);
    }

    #[test]
    fn a_service_may_be_a_range_or_a_mark() {
        let address = |text: &str| match typed(text) {
            Request::ServiceAdd(spec) => spec.address,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            address("lbctl service add web --vip 10.0.0.0/28:8000-8999 --protocol udp"),
            "10.0.0.0/28:8000-8999/udp"
        );
        assert_eq!(address("lbctl service add web --mark 7"), "mark:7");
        assert_eq!(address("lbctl service add web --mark 7/ipv6"), "mark:7/ipv6");
    }

    #[test]
    fn a_server_is_drained_and_edited() {
        let (service, address) = ("[fd00::1]:53/udp".to_owned(), "fd00::12".parse().unwrap());
        assert_eq!(
            typed("lbctl server drain [fd00::1]:53/udp fd00::12"),
            Request::ServerDrain(ServerRef { service: service.clone(), address, port: None }.into())
        );
        let deadline = Some("5m".to_owned());
        assert_eq!(
            typed("lbctl server drain [fd00::1]:53/udp fd00::12 --port 53 --deadline 5m"),
            Request::ServerDrain(DrainSpec { service: service.clone(), address, port: Some(53), deadline })
        );
        assert_eq!(
            typed("lbctl server edit [fd00::1]:53/udp fd00::12 --weight 0"),
            Request::ServerEdit(ServerSpec { weight: Some(0), ..ServerSpec::new(service.clone(), address) })
        );
        let want = ServerSpec {
            port: Some(8053),
            forwarding: Some("nat".into()),
            upper_threshold: Some(9),
            lower_threshold: Some(3),
            ..ServerSpec::new(service, address)
        };
        assert_eq!(
            typed(
                "lbctl server add [fd00::1]:53/udp fd00::12 --port 8053 --forwarding nat --upper-threshold 9 \
                 --lower-threshold 3"
            ),
            Request::ServerAdd(want)
        );
    }

    #[test]
    fn connections_are_flushed_without_a_limit() {
        let filter = ConnectionFilter { state: Some("syn_recv".into()), ..ConnectionFilter::default() };
        assert_eq!(
            typed("lbctl connections --flush --state syn_recv"),
            Request::FlushConnections(filter.clone())
        );
        let limit = Some(lb_control::api::DEFAULT_CONNECTION_ROWS);
        let listed = Request::Connections(ConnectionFilter { limit, ..filter });
        assert_eq!(typed("lbctl connections --state syn_recv"), listed);
    }

    #[test]
    fn a_packet_is_explained_by_its_ends() {
        let want = ExplainSpec {
            protocol: "udp".into(),
            client: "[fd00::1]:40000".parse().unwrap(),
            vip: "[fd00::100]:53".parse().unwrap(),
            port: Some("lan".into()),
        };
        assert_eq!(
            typed("lbctl explain udp [fd00::1]:40000 [fd00::100]:53 --port lan"),
            Request::Explain(want)
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let args = Args::try_parse_from(["lbctl", "apply", "/nonexistent/a.toml"]).unwrap();
        let message = request(&args.command).unwrap_err().to_string();
        assert!(message.starts_with("cannot read /nonexistent/a.toml: "), "{message}");
    }
}

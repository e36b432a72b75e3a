//! What was typed, as a request.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use lb_control::api::{
    ConnectionFilter, Request, ServerRef, ServerSpec, ServiceEdit, ServiceSpec, TimeoutSpec,
};

use crate::Failure;
use crate::args::{Command, ConnectionArgs, ServerArgs, ServerCommand, ServiceCommand, ServiceOptions};

/// The request for a command. Reads the file that it names.
pub fn request(command: &Command) -> Result<Request, Failure> {
    Ok(match command {
        Command::Apply { file, dry_run } => Request::Apply { toml: read(file)?, dry_run: *dry_run },
        Command::Diff { file } => Request::Diff { toml: read(file)? },
        Command::Show => Request::Show,
        Command::Service(command) => service(command),
        Command::Server(command) => server(command),
        Command::Connections(filter) => Request::Connections(connections(filter)),
        Command::Stats => Request::Stats,
        Command::Drops { .. } => Request::Drops,
        Command::Neighbors => Request::Neighbors,
        Command::Workers => Request::Workers,
        Command::Latency => Request::Latency,
        Command::Version => Request::Version,
    })
}

fn service(command: &ServiceCommand) -> Request {
    match command {
        ServiceCommand::List => Request::ServiceList,
        ServiceCommand::Add { name, vip, protocol, scheduler, options } => Request::ServiceAdd(ServiceSpec {
            name: name.clone(),
            vip: vip.ip(),
            port: vip.port(),
            protocol: protocol.clone(),
            scheduler: scheduler.clone(),
            maglev_hash: options.maglev_hash.clone(),
            timeouts: timeouts(options),
        }),
        ServiceCommand::Edit { service, scheduler, options } => Request::ServiceEdit(ServiceEdit {
            service: service.clone(),
            scheduler: scheduler.clone(),
            maglev_hash: options.maglev_hash.clone(),
            timeouts: timeouts(options),
        }),
        ServiceCommand::Delete { service } => Request::ServiceDelete { service: service.clone() },
    }
}

fn timeouts(options: &ServiceOptions) -> TimeoutSpec {
    TimeoutSpec {
        tcp_established: options.timeout_established.clone(),
        tcp_syn_recv: options.timeout_syn_recv.clone(),
        tcp_fin_wait: options.timeout_fin_wait.clone(),
        udp: options.timeout_udp.clone(),
    }
}

fn server(command: &ServerCommand) -> Request {
    let spec = |server: &ServerArgs, weight| ServerSpec {
        service: server.service.clone(),
        address: server.address,
        weight,
    };
    let named = |server: &ServerArgs| ServerRef { service: server.service.clone(), address: server.address };
    match command {
        ServerCommand::List { service } => Request::ServerList { service: service.clone() },
        ServerCommand::Add { server, weight } => Request::ServerAdd(spec(server, *weight)),
        ServerCommand::Edit { server, weight } => Request::ServerEdit(spec(server, *weight)),
        ServerCommand::Delete { server } => Request::ServerDelete(named(server)),
        ServerCommand::Drain { server } => Request::ServerDrain(named(server)),
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

fn read(file: &Path) -> Result<String, Failure> {
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
            name: "web".into(),
            vip: [192, 168, 150, 100].into(),
            port: 80,
            protocol: "tcp".into(),
            scheduler: "maglev".into(),
            maglev_hash: Some("source".into()),
            timeouts: TimeoutSpec { tcp_established: Some("15m".into()), ..TimeoutSpec::default() },
        };
        let text = "lbctl service add web --vip 192.168.150.100:80 --scheduler maglev --maglev-hash source \
                    --timeout-established 15m";
        assert_eq!(typed(&text.split_whitespace().collect::<Vec<_>>().join(" ")), Request::ServiceAdd(want));
    }

    #[test]
    fn a_server_is_drained_and_edited() {
        let (service, address) = ("[fd00::1]:53/udp".to_owned(), "fd00::12".parse().unwrap());
        assert_eq!(
            typed("lbctl server drain [fd00::1]:53/udp fd00::12"),
            Request::ServerDrain(ServerRef { service: service.clone(), address })
        );
        assert_eq!(
            typed("lbctl server edit [fd00::1]:53/udp fd00::12 --weight 0"),
            Request::ServerEdit(ServerSpec { service, address, weight: 0 })
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let args = Args::try_parse_from(["lbctl", "apply", "/nonexistent/a.toml"]).unwrap();
        let message = request(&args.command).unwrap_err().to_string();
        assert!(message.starts_with("cannot read /nonexistent/a.toml: "), "{message}");
    }
}

//! What was typed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use lb_config::bounds::WEIGHT;
use lb_config::duration;
use lb_control::api::{DEFAULT_CONNECTION_ROWS, DEFAULT_TIMEOUT, MAX_CONNECTION_ROWS};

/// Weights that the configuration takes.
const WEIGHTS: std::ops::RangeInclusive<i64> = WEIGHT.min as i64..=WEIGHT.max as i64;

/// Shows and changes what a director (lbd) does.
///
/// Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no lbd to talk to.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, max_term_width = 100)]
pub struct Args {
    /// Socket of lbd.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "SLUICE_SOCKET",
        default_value = "/run/sluice/lbd.sock"
    )]
    pub socket: PathBuf,

    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a configuration file the running configuration.
    ///
    /// Everything in it is checked first; with one fault nothing changes. Connections whose server stays go on.
    Apply {
        /// Configuration file (TOML); `-`: standard input.
        file: PathBuf,
        /// Check it and print what would change, but change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print how a configuration file differs from the running configuration.
    ///
    /// `-` runs and is not in the file, `+` is in the file and does not run, `~` is changed. Exits with 0 either way.
    Diff {
        /// Configuration file (TOML); `-`: standard input.
        file: PathBuf,
    },
    /// Print the running configuration as a file; `lbctl show > FILE` saves it.
    Show,
    /// List, add, change and delete services.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// List, add, change, drain and delete the real servers of a service.
    #[command(subcommand)]
    Server(ServerCommand),
    /// List tracked connections (as `ipvsadm -Lnc`).
    Connections(ConnectionArgs),
    /// Print packets and bytes of every device and of the whole director.
    Stats,
    /// Print dropped packets by reason.
    Drops {
        /// Print the reasons without packets too (JSON always has them).
        #[arg(long)]
        all: bool,
    },
    /// List the next hops (servers and gateways) with their MAC addresses.
    Neighbors,
    /// Print what each worker does.
    Workers,
    /// Print how long packets are in the director: percentiles per worker and of all.
    Latency,
    /// Print the versions of lbctl and lbd.
    Version,
}

/// `lbctl service ...`
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// List the services with their counters.
    List,
    /// Add a service, at first without servers.
    Add {
        /// Name of the new service.
        name: String,
        /// Virtual address and port that clients use, as in `192.168.150.100:80` or `[fd00::100]:80`.
        #[arg(long, value_name = "VIP:PORT")]
        vip: SocketAddr,
        /// L4 protocol.
        #[arg(long, value_parser = ["tcp", "udp"], default_value = "tcp")]
        protocol: String,
        /// How the server of a new connection is chosen: round robin, least connections, Maglev hashing.
        #[arg(long, value_parser = ["rr", "lc", "maglev"], default_value = "rr")]
        scheduler: String,
        #[command(flatten)]
        options: ServiceOptions,
    },
    /// Change a service; what is not given stays, and so do its connections.
    Edit {
        /// Name of the service, or VIP:PORT/PROTOCOL.
        service: String,
        /// How the server of a new connection is chosen: round robin, least connections, Maglev hashing.
        #[arg(long, value_parser = ["rr", "lc", "maglev"])]
        scheduler: Option<String>,
        #[command(flatten)]
        options: ServiceOptions,
    },
    /// Delete a service and its servers.
    Delete {
        /// Name of the service, or VIP:PORT/PROTOCOL.
        service: String,
    },
}

/// Options that adding and changing a service share.
#[derive(Debug, clap::Args)]
pub struct ServiceOptions {
    /// What Maglev hashes: client address and port (flow), or the address alone (source).
    #[arg(long, value_parser = ["flow", "source"])]
    pub maglev_hash: Option<String>,
    /// Time after which an idle established TCP connection is forgotten, as in 900s, 15m; `default`: the director's.
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub timeout_established: Option<String>,
    /// The same for a TCP connection whose handshake is not finished.
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub timeout_syn_recv: Option<String>,
    /// The same for a TCP connection that one side closed.
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub timeout_fin_wait: Option<String>,
    /// The same for a UDP flow.
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub timeout_udp: Option<String>,
}

/// A duration or `default`, so that a slip of the pen is wrong usage and needs no lbd to be seen.
fn timeout(text: &str) -> Result<String, String> {
    match text {
        DEFAULT_TIMEOUT => Ok(text.to_owned()),
        _ => duration::parse(text).map(|_| text.to_owned()).map_err(|e| e.to_string()),
    }
}

/// `lbctl server ...`
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// List the real servers with their counters (as `ipvsadm -Ln`).
    List {
        /// Only of this service: its name, or VIP:PORT/PROTOCOL.
        service: Option<String>,
    },
    /// Add a real server at the end of a service's list.
    Add {
        #[command(flatten)]
        server: ServerArgs,
        /// Share of new connections; 0: none.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(WEIGHTS))]
        weight: u32,
    },
    /// Change a real server's weight.
    Edit {
        #[command(flatten)]
        server: ServerArgs,
        /// Share of new connections; 0: none.
        #[arg(long, value_parser = clap::value_parser!(u32).range(WEIGHTS))]
        weight: u32,
    },
    /// Delete a real server from a service.
    Delete {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Set a real server's weight to 0: its connections go on, it gets no new ones.
    Drain {
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Which server of which service.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    /// Name of the service, or VIP:PORT/PROTOCOL.
    pub service: String,
    /// Real server's address.
    pub address: IpAddr,
}

/// Which connections.
#[derive(Debug, clap::Args)]
pub struct ConnectionArgs {
    /// Only of this client address.
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<IpAddr>,
    /// Only to this virtual address.
    #[arg(long, value_name = "ADDRESS")]
    pub vip: Option<IpAddr>,
    /// Only with this real server.
    #[arg(long, value_name = "ADDRESS")]
    pub server: Option<IpAddr>,
    /// Only of this service: its name, or VIP:PORT/PROTOCOL.
    #[arg(long)]
    pub service: Option<String>,
    /// Only of this protocol.
    #[arg(long, value_parser = ["tcp", "udp"])]
    pub protocol: Option<String>,
    /// Only in this state: established, syn_recv, fin_wait, time_wait, close, ... udp.
    #[arg(long)]
    pub state: Option<String>,
    /// Most connections to print.
    #[arg(long, default_value_t = DEFAULT_CONNECTION_ROWS, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTION_ROWS)))]
    pub limit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for typed in [
            "lbctl",
            "lbctl nosuch",
            "lbctl service add web",
            "lbctl service add web --vip 192.168.150.100",
            "lbctl service add web --vip 192.168.150.100:80 --scheduler best",
            "lbctl service edit web --timeout-udp 5",
            "lbctl server add web 192.168.150.300",
            "lbctl server add web 192.168.150.12 --weight 65536",
            "lbctl server edit web 192.168.150.12",
            "lbctl connections --limit 0",
            "lbctl connections --limit 50001",
        ] {
            let error = Args::try_parse_from(typed.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{typed}");
        }
    }

    #[test]
    fn every_word_that_is_offered_is_one_of_the_configuration() {
        let offered = |command: &str, name: &str| -> Vec<String> {
            let mut all = Args::command();
            let service = all.find_subcommand_mut("service").unwrap().find_subcommand_mut(command).unwrap();
            let argument = service.get_arguments().find(|a| a.get_id() == name).unwrap();
            argument.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect()
        };
        for command in ["add", "edit"] {
            let schedulers = offered(command, "scheduler");
            assert!(
                !schedulers.is_empty()
                    && schedulers.iter().all(|s| lb_config::Scheduler::from_name(s).is_ok())
            );
            let hashes = offered(command, "maglev_hash");
            assert!(!hashes.is_empty() && hashes.iter().all(|h| h.parse::<lb_config::MaglevHash>().is_ok()));
        }
        let protocols = offered("add", "protocol");
        assert!(!protocols.is_empty() && protocols.iter().all(|p| p.parse::<lb_config::Protocol>().is_ok()));
    }

    #[test]
    fn json_and_socket_may_follow_the_command() {
        let args = Args::try_parse_from("lbctl server list web --json --socket /tmp/s".split(' ')).unwrap();
        assert!(args.json);
        assert_eq!(args.socket, PathBuf::from("/tmp/s"));
    }
}

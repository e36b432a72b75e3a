//! What was typed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand};
use lb_config::bounds::{THRESHOLD, WEIGHT};
use lb_config::{FORWARDINGS, Persistence, ServiceAddress, ServicePolicy, Tunnel, duration};
use lb_control::api::{DEFAULT_CONNECTION_ROWS, DEFAULT_TIMEOUT, MAX_CONNECTION_ROWS, NO_PERSISTENCE};

/// Weights that the configuration takes.
const WEIGHTS: std::ops::RangeInclusive<i64> = WEIGHT.min as i64..=WEIGHT.max as i64;
/// Names of the schedulers.
const SCHEDULERS: [&str; lb_config::Scheduler::ALL.len()] = {
    let mut names = [""; lb_config::Scheduler::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = lb_config::Scheduler::ALL[at].name();
        at += 1;
    }
    names
};

/// Thresholds that the configuration takes.
const THRESHOLDS: std::ops::RangeInclusive<i64> = THRESHOLD.min as i64..=THRESHOLD.max as i64;

/// Environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "SLUICE_SOCKET";
/// Socket of lbd where nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/sluice/lbd.sock";

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
        env = SOCKET_VARIABLE,
        default_value = DEFAULT_SOCKET
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
    /// Check a configuration file and print what is wrong or doubtful in it; needs no lbd.
    Check {
        /// Configuration file (TOML); `-`: standard input.
        file: PathBuf,
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
    /// List tracked connections (as `ipvsadm -Lnc`), or forget them.
    Connections(ConnectionArgs),
    /// Say what would become of the first packet of a connection, and why; nothing changes.
    ///
    /// How its service is found, whether there is a connection or a template already, what the scheduler would choose
    /// from, how the packet is rewritten and where it goes. With `twos` the choice is drawn anew each time.
    Explain {
        /// Protocol.
        #[arg(value_parser = ["tcp", "udp", "sctp"])]
        protocol: String,
        /// Client's address and port, as in `192.168.150.1:40000` or `[fd00::1]:40000`.
        #[arg(value_name = "CIP:PORT")]
        client: SocketAddr,
        /// Virtual address and port.
        #[arg(value_name = "VIP:PORT")]
        vip: SocketAddr,
        /// Name of the director's port that the packet comes in by. Default: the one towards the client.
        #[arg(long)]
        port: Option<String>,
    },
    /// Print which servers are up, since when and why, what their checks found last and when they ask again.
    Health {
        /// Only of this service: its name, or VIP:PORT/PROTOCOL.
        service: Option<String>,
    },
    /// Print what happened: servers and quorums that came and went, weights, changes of the configuration.
    Events {
        /// Go on and print what happens as it happens; with --json a line each.
        #[arg(long)]
        follow: bool,
    },
    /// Print packets and bytes of every device and of the whole director.
    Stats,
    /// Print what every service and server has counted since it was set back, and its rates (as `ipvsadm --rate`).
    Rates,
    /// Set the counters of `rates` back to 0 (as `ipvsadm -Z`).
    Zero {
        /// Only of this service: its name, or VIP:PORT/PROTOCOL.
        service: Option<String>,
    },
    /// Print dropped packets by reason.
    Drops {
        /// Print the reasons without packets too (JSON always has them).
        #[arg(long)]
        all: bool,
    },
    /// List the next hops (servers and gateways) with their MAC addresses.
    Neighbors,
    /// List the rules of source NAT with their counters.
    Snat,
    /// List virtual routers with their states, what they track, and BFD sessions.
    Vrrp,
    /// List the directors that connections are shared with: what was told and heard, and how long that took.
    Sync,
    /// Print what each worker does, and where the connection tables lie.
    Workers,
    /// Print how long packets are in the director: percentiles per worker and of all.
    Latency,
    /// Do what ipvsadm 1.31 does with the same arguments: same output, same exit codes.
    ///
    /// A link named `ipvsadm` to this program does so without this word.
    #[command(disable_help_flag = true)]
    Ipvsadm {
        /// ipvsadm's arguments; `-h` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Turn what other programs saved into a configuration; needs no lbd.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Print the versions of lbctl and lbd.
    Version,
}

/// `lbctl import ...`
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Print the services of a rule file (`ipvsadm -S`) as TOML.
    Ipvs {
        /// Rule file; `-`: standard input.
        file: PathBuf,
    },
    /// Print what a keepalived.conf says as TOML; what could not be carried over goes to standard error, by line.
    Keepalived {
        /// The keepalived.conf; `-`: standard input. What it includes is looked for beside it.
        file: PathBuf,
        /// Configuration (TOML) of what keepalived does not know: ports and their devices, workers, marks. The output
        /// begins with it, and interfaces become the ports that are on them. `lbctl check -` checks the whole.
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
        /// Configuration id: lines that begin with `@ID` hold (keepalived's -i).
        #[arg(long)]
        id: Option<String>,
        /// Exit with 1 if anything was not carried over.
        #[arg(long)]
        strict: bool,
    },
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
        #[command(flatten)]
        address: AddressArgs,
        /// L4 protocol.
        #[arg(long, value_parser = ["tcp", "udp", "sctp"], default_value = "tcp", conflicts_with = "mark")]
        protocol: String,
        /// How the server of a new connection is chosen, by ipvsadm's names and `maglev`.
        #[arg(long, value_parser = SCHEDULERS, default_value = "rr")]
        scheduler: String,
        #[command(flatten)]
        options: Box<ServiceOptions>,
    },
    /// Change a service; what is not given stays, and so do its connections.
    Edit {
        /// Name of the service, or VIP:PORT/PROTOCOL.
        service: String,
        /// How the server of a new connection is chosen, by ipvsadm's names and `maglev`.
        #[arg(long, value_parser = SCHEDULERS)]
        scheduler: Option<String>,
        #[command(flatten)]
        options: Box<ServiceOptions>,
    },
    /// Delete a service and its servers.
    Delete {
        /// Name of the service, or VIP:PORT/PROTOCOL.
        service: String,
    },
}

/// What clients of a new service address.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct AddressArgs {
    /// Virtual address and port that clients use, as in `192.168.150.100:80` or `[fd00::100]:80`; or several of them, as in
    /// 10.0.0.0/28:80 or 10.0.0.1:8000-8999. Port 0, with persistence: every port.
    #[arg(long, value_name = "VIP:PORT", value_parser = local)]
    pub vip: Option<String>,
    /// Packets that the rules in `[[marks]]` give this mark: a number, or as in 7/ipv6.
    #[arg(long, value_name = "MARK", value_parser = mark)]
    pub mark: Option<String>,
}

/// A VIP and port, see [`timeout`].
fn local(text: &str) -> Result<String, String> {
    format!("{text}/tcp").parse::<ServiceAddress>().map(|address| address.local()).map_err(|e| e.to_string())
}

/// A firewall mark, see [`timeout`].
fn mark(text: &str) -> Result<String, String> {
    format!("mark:{text}").parse::<ServiceAddress>().map(|address| address.local()).map_err(|e| e.to_string())
}

/// `KEY=VALUE` of a policy, see [`timeout`].
fn policy(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as on_no_server=reset")?;
    let set = Some(value).filter(|value| *value != DEFAULT_TIMEOUT);
    ServicePolicy::default().set(key, set).map_err(|e| e.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Options that adding and changing a service share.
#[derive(Debug, clap::Args)]
pub struct ServiceOptions {
    /// Flags of the scheduler by ipvsadm's names, with commas between them, in place of those that it has: sh-fallback,
    /// sh-port, mh-fallback, mh-port, flag-1, flag-2, flag-3; `none`: no flag.
    #[arg(long, value_name = "FLAGS")]
    pub scheduler_flags: Option<String>,
    /// What Maglev hashes: client address and port (flow), or the address alone (source).
    #[arg(long, value_parser = ["flow", "source"])]
    pub maglev_hash: Option<String>,
    /// How packets get to its servers: dr (MAC addresses change), nat (addresses and ports change), tunnel, or fullnat
    /// (as nat, and they come from a local address).
    #[arg(long, value_parser = FORWARDINGS)]
    pub forwarding: Option<String>,
    /// Tunnel of its servers: ipip, `gue:PORT[:CHECKSUM]` or `gre[:CHECKSUM]`, with a checksum of none, full or (gue)
    /// remote. Implies `--forwarding tunnel`.
    #[arg(long, value_parser = tunnel)]
    pub tunnel: Option<String>,
    /// Address of the director that packets to servers by fullnat come from; may be repeated. Of an edit: all of them.
    #[arg(long, value_name = "ADDRESS")]
    pub local_address: Vec<IpAddr>,
    /// How servers by fullnat are told who their client is: not at all, by a TCP option, or by a PROXY
    /// header.
    #[arg(long, value_parser = ["none", "toa", "proxy-v2"])]
    pub client_address: Option<String>,
    /// How long clients come back to their server after their last connection, as in 300 or 5m, and how many bits of
    /// their addresses count, as in 300/24; `none`: they need not come back.
    #[arg(long, value_name = "TIME[/PREFIX]", value_parser = persistence)]
    pub persistence: Option<String>,
    /// Schedule every packet anew and keep no connections; UDP only.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub one_packet: Option<bool>,
    /// What the service decides for itself, as in on_no_server=reset or mss=1400; a value of `default`: the director's.
    /// Keys: on_no_server, on_server_down, reuse, mss, dr_close_timeout, max_connections, udp_activity, syn_proxy. May
    /// be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = policy)]
    pub policy: Vec<(String, String)>,
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
    /// The same for any state by its key in the file, as in `tcp_close_wait=30s`; may be given several times.
    #[arg(long, value_name = "KEY=TIME", value_parser = timeout_by_key)]
    pub timeout: Vec<(String, String)>,
}

/// A duration or `default`, so that a slip of the pen is wrong usage and needs no lbd to be seen.
fn timeout(text: &str) -> Result<String, String> {
    match text {
        DEFAULT_TIMEOUT => Ok(text.to_owned()),
        _ => duration::parse(text).map(|_| text.to_owned()).map_err(|e| e.to_string()),
    }
}

/// A duration, see [`timeout`].
fn time(text: &str) -> Result<String, String> {
    duration::parse(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// `KEY=TIME`. Keys are lbd's to know.
fn timeout_by_key(text: &str) -> Result<(String, String), String> {
    let (key, time) = text.split_once('=').ok_or("is not KEY=TIME, as in tcp_close_wait=30s")?;
    Ok((key.to_owned(), timeout(time)?))
}

/// A tunnel in its text form, see [`timeout`].
fn tunnel(text: &str) -> Result<String, String> {
    text.parse::<Tunnel>().map(|tunnel| tunnel.to_string()).map_err(|e| e.to_string())
}

/// A persistence in its text form, see [`timeout`].
fn persistence(text: &str) -> Result<String, String> {
    // Only the default of the prefix depends on the family, which lbd knows.
    match text {
        NO_PERSISTENCE => Ok(text.to_owned()),
        _ => Persistence::parse(text, true).map(|_| text.to_owned()).map_err(|e| e.to_string()),
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
    /// Add a real server at the head of a service's list, as ipvsadm does.
    Add {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        options: ServerOptions,
    },
    /// Change a real server; what is not given stays.
    #[command(group = ArgGroup::new("change").required(true).multiple(true).args(SERVER_OPTIONS))]
    Edit {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        options: ServerOptions,
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
        /// Let its connections go on for this long at most, as in 90s, 5m, 2h; what is left then is treated as the
        /// service's policy on_server_down says (reset, reschedule or drop). Default: until they end.
        #[arg(long, value_name = "TIME", value_parser = time)]
        deadline: Option<String>,
    },
}

/// Which server of which service.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    /// Name of the service, or VIP:PORT/PROTOCOL.
    pub service: String,
    /// Real server's address.
    pub address: IpAddr,
    /// Its port. Default: the service's, or that of the only server with this address.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

/// Names of [`ServerOptions`].
const SERVER_OPTIONS: [&str; 5] = ["weight", "forwarding", "tunnel", "upper_threshold", "lower_threshold"];

/// What adding and changing a server share.
#[derive(Debug, clap::Args)]
pub struct ServerOptions {
    /// Share of new connections; 0: none. Default of a new server: 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(WEIGHTS))]
    pub weight: Option<u32>,
    /// How packets get to it: dr, nat, tunnel or fullnat. Default of a new server: the service's.
    #[arg(long, value_parser = FORWARDINGS)]
    pub forwarding: Option<String>,
    /// Its tunnel: ipip, `gue:PORT[:CHECKSUM]` or `gre[:CHECKSUM]`. Implies `--forwarding tunnel`.
    #[arg(long, value_parser = tunnel)]
    pub tunnel: Option<String>,
    /// Connections from which on it gets no new ones; 0: no such limit.
    #[arg(long, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(THRESHOLDS))]
    pub upper_threshold: Option<u32>,
    /// Connections below which it gets new ones again; 0: three quarters of the upper threshold.
    #[arg(long, value_name = "CONNECTIONS", value_parser = clap::value_parser!(u32).range(THRESHOLDS))]
    pub lower_threshold: Option<u32>,
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
    #[arg(long, value_parser = ["tcp", "udp", "sctp"])]
    pub protocol: Option<String>,
    /// Only in this state: established, syn_recv, fin_wait, time_wait, close, ... udp.
    #[arg(long)]
    pub state: Option<String>,
    /// Forget these connections at once instead, all of them without a filter: their next packets count as new. Prints
    /// how many there were.
    #[arg(long, conflicts_with = "limit")]
    pub flush: bool,
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
            "lbctl service add web --vip 10.0.0.1/28:80",
            "lbctl service add web --vip 10.0.0.1:90-80",
            "lbctl service add web --vip 10.0.0.1:80 --mark 7",
            "lbctl service add web --mark 0",
            "lbctl service add web --mark 7 --protocol udp",
            "lbctl service edit web --policy mss=1",
            "lbctl service edit web --policy mss",
            "lbctl service add web --vip 192.168.150.100:80 --scheduler best",
            "lbctl service edit web --timeout-udp 5",
            "lbctl service edit web --timeout tcp_close_wait",
            "lbctl service edit web --timeout tcp_close_wait=5",
            "lbctl server add web 192.168.150.300",
            "lbctl server add web 192.168.150.12 --weight 65536",
            "lbctl server edit web 192.168.150.12",
            "lbctl server drain web 192.168.150.12 --deadline 5",
            "lbctl server drain web 192.168.150.12 --deadline default",
            "lbctl server edit web 192.168.150.12 --port 80",
            "lbctl server add web 192.168.150.12 --port 0",
            "lbctl server add web 192.168.150.12 --tunnel gue",
            "lbctl server add web 192.168.150.12 --forwarding masq",
            "lbctl server add web 192.168.150.12 --upper-threshold 2147483648",
            "lbctl service add web --vip 192.168.150.100:80 --persistence 5x",
            "lbctl explain tcp 192.168.150.1 192.168.150.100:80",
            "lbctl explain icmp 192.168.150.1:1 192.168.150.100:80",
            "lbctl connections --flush --limit 5",
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

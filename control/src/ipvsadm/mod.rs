//! ipvsadm 1.31: its whole command line over this director.
//!
//! ```text
//! words -> popt -> options -> parse -> Ask -> table (IPVS's rules) -> Host: the running director, or a table
//!                                        '--> print, save, connections -> text
//! ```
//!
//! * `popt`, `options`, `parse`: what was typed and whether it may be
//! * [`table`]: services and servers in IPVS's terms, and what each command does to them
//! * `print`, `order`, `save`, `connections`: the output
//! * `restore`: rule files; [`import`](fn@import): rule files as a configuration
//! * `names`: names of hosts and ports
//! * `convert`: the table and the director's configuration, each as the other
//! * [`ClientHost`]: the running director; [`MemoryHost`]: a table that no director stands behind
//!
//! Invariant: output, messages and exit codes are those of ipvsadm. Differences, each on purpose:
//!
//! * `-R` is one transaction: with one fault nothing changes (ipvsadm goes on after a refused line)
//! * `-S` adds comment lines for thresholds, timeouts and sync daemons, which ipvsadm loses, and `-R` reads them; marks above 2^31-1
//!   are written without a sign, so that `-R` can read them
//! * addresses get names from /etc/hosts only
//! * refused by name, because the director cannot do it: `--pe`, `-s none`, a netmask that is no prefix, weights above
//!   65535 (ipvsadm(8) has the same limit), timeouts above 18 h, and whatever else the rules for
//!   configuration files refuse (servers on the director itself)
//!
//! Cost: every change reads and exchanges the whole configuration, some 5 MB for 50,000 servers; a rule file does so
//! once.

mod client;
mod connections;
mod convert;
mod errors;
mod import;
mod memory;
mod names;
mod options;
mod order;
mod parse;
mod popt;
mod print;
mod restore;
mod rows;
mod save;
pub mod table;

use std::io::Read;
use std::net::IpAddr;

pub use client::ClientHost;
pub use convert::address_of;
pub use errors::{HostError, IpvsError};
pub use import::{ImportError, import};
pub use memory::MemoryHost;
pub use names::Names;
pub use rows::{connection, counters};
pub use table::{Address, Table};

use errors::{FAILED, Usage};
use parse::Ask;
use print::Printer;
use restore::Line;

/// What the program calls itself in its messages.
const PROGRAM: &str = "ipvsadm";
/// Help text: the interface that scripts and people know.
const HELP: &str = include_str!("help.txt");
/// First line of help and all of `--version`.
const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";
/// How often a change is begun anew because somebody else changed the table in between.
const ATTEMPTS: u32 = 10;

/// What the tool talks to: the running director over its socket, or one in the same process.
pub trait Host {
    /// The whole table.
    fn table(&mut self) -> Result<Table, HostError>;

    /// The table as it is in force: without servers that health checks keep out. For showing, not for changing.
    fn in_force(&mut self) -> Result<Table, HostError> {
        self.table()
    }

    /// Makes `table` the director's, all of it or nothing.
    ///
    /// Errors: [`HostError::Conflict`] when the director's table is no longer the one that [`Host::table`] returned
    /// last.
    fn store(&mut self, table: &Table) -> Result<(), HostError>;

    /// What every service and server has counted; in any order, what is missing counts as 0.
    fn counters(&mut self) -> Result<Vec<ServiceCounters>, HostError>;

    /// The tracked connections and persistence templates.
    fn connections(&mut self) -> Result<Vec<Connection>, HostError>;

    /// Makes the counters of a service and its servers, or of all, count from 0.
    fn zero(&mut self, service: Option<&Address>) -> Result<(), HostError>;

    /// What else is to be said, on stderr and a line each, after all of the above succeeded.
    fn notes(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Five counters, or their rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients; none where replies do not pass the director.
    pub out_packets: u64,
    /// Bytes from clients, from the IP header on.
    pub in_bytes: u64,
    /// Bytes to clients, likewise.
    pub out_bytes: u64,
}

impl Counts {
    /// In the order of ipvsadm's columns.
    pub fn array(self) -> [u64; 5] {
        [self.connections, self.in_packets, self.out_packets, self.in_bytes, self.out_bytes]
    }
}

impl From<[u64; 5]> for Counts {
    /// From the order of ipvsadm's columns.
    fn from([connections, in_packets, out_packets, in_bytes, out_bytes]: [u64; 5]) -> Self {
        Self { connections, in_packets, out_packets, in_bytes, out_bytes }
    }
}

/// What a service has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Which service.
    pub address: Address,
    /// `--stats`.
    pub stats: Counts,
    /// `--rate`.
    pub rates: Counts,
    /// Its servers.
    pub servers: Vec<ServerCounters>,
}

/// What a server of a service has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCounters {
    /// Real server's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Connections in an active state.
    pub active: u64,
    /// Other connections.
    pub inactive: u64,
    /// Persistence templates.
    pub persistent: u64,
    /// `--stats`.
    pub stats: Counts,
    /// `--rate`.
    pub rates: Counts,
}

impl Default for ServerCounters {
    /// Of a server of which nothing is known.
    fn default() -> Self {
        Self {
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            port: 0,
            active: 0,
            inactive: 0,
            persistent: 0,
            stats: Counts::default(),
            rates: Counts::default(),
        }
    }
}

/// A line of `-Lc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IANA protocol number; 0 for the template of a mark.
    pub protocol: u8,
    /// Time left, whole seconds.
    pub expires_s: u64,
    /// `ESTABLISHED` ...; templates: `NONE` or `ASSURED`.
    pub state: String,
    /// Client; of templates its network and port 0.
    pub client: (IpAddr, u16),
    /// Virtual address; of a mark's template the mark as an address and port 0.
    pub virtual_address: (IpAddr, u16),
    /// Real server.
    pub destination: (IpAddr, u16),
    /// Persistence engine and its data.
    pub engine: Option<(String, String)>,
}

/// What a run of the program leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code: 0 done, 1 or 255 refused, 2 wrong usage or no director.
    pub code: u8,
    /// To stdout.
    pub stdout: String,
    /// To stderr.
    pub stderr: String,
}

/// Runs a command line (without the program's name) with the names of this machine. Only `-R` reads `stdin`.
pub fn run(args: &[String], stdin: &mut dyn Read, host: &mut dyn Host) -> Output {
    run_with(args, stdin, host, &Names::system())
}

/// As [`run`], with other names.
pub fn run_with(args: &[String], stdin: &mut dyn Read, host: &mut dyn Host, names: &Names) -> Output {
    let done =
        parse::parse(args, names).map_err(Stopped::from).and_then(|ask| perform(&ask, stdin, host, names));
    match done {
        Ok(stdout) => {
            let stderr = host.notes().into_iter().map(|note| note + "\n").collect();
            Output { code: 0, stdout, stderr }
        }
        Err(Stopped { code, message }) => Output { code, stdout: String::new(), stderr: message + "\n" },
    }
}

/// Why a command ends early.
struct Stopped {
    code: u8,
    message: String,
}

impl From<Usage> for Stopped {
    fn from(Usage { code, message }: Usage) -> Self {
        Self { code, message }
    }
}

impl From<IpvsError> for Stopped {
    fn from(error: IpvsError) -> Self {
        Self { code: FAILED, message: error.to_string() }
    }
}

impl From<HostError> for Stopped {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Unreachable(why) => Self { code: 2, message: format!("Can't initialize ipvs: {why}") },
            HostError::Refused(_) | HostError::Conflict => Self { code: FAILED, message: error.to_string() },
        }
    }
}

/// Does what was asked for and returns what goes to stdout.
fn perform(ask: &Ask, stdin: &mut dyn Read, host: &mut dyn Host, names: &Names) -> Result<String, Stopped> {
    match ask {
        Ask::Restore => {
            let mut text = Vec::new();
            let read = stdin.read_to_end(&mut text);
            read.map_err(|error| Stopped { code: FAILED, message: format!("cannot read stdin: {error}") })?;
            return restored(&restore::lines(&String::from_utf8_lossy(&text)), host, names);
        }
        Ask::Zero(service) => {
            if let Some(address) = service {
                host.table()?.find(address).ok_or(IpvsError::NoSuchService)?;
            }
            host.zero(service.as_ref())?;
        }
        ask if edits(ask) => attempt(host, |_, table| {
            edit(ask, table)?;
            Ok(String::new())
        })
        .map(drop)?,
        ask => {
            let table = match ask {
                // What is saved is loaded again some day: as configured.
                Ask::Save(_) => host.table()?,
                ask if needs_table(ask) => host.in_force()?,
                _ => Table::default(),
            };
            return show(ask, &table, host, names);
        }
    }
    Ok(String::new())
}

/// Loads the table, changes it, stores it; again from the start when somebody else stored one meanwhile.
fn attempt(
    host: &mut dyn Host,
    mut change: impl FnMut(&mut dyn Host, &mut Table) -> Result<String, Stopped>,
) -> Result<String, Stopped> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        let before = host.table()?;
        let mut table = before.clone();
        let text = change(host, &mut table)?;
        if table == before {
            return Ok(text);
        }
        match host.store(&table) {
            Err(HostError::Conflict) if left > 0 => {}
            done => return Ok(done.map(|()| text)?),
        }
    }
}

/// `-R`: every line is read before the first is carried out, and all are stored at once.
fn restored(lines: &[Line], host: &mut dyn Host, names: &Names) -> Result<String, Stopped> {
    let asks: Vec<Ask> =
        lines.iter().map(|line| parse::parse(&line.words, names)).collect::<Result<_, _>>()?;
    // Reading stdin from what stdin says would have no end.
    if asks.contains(&Ask::Restore) {
        return Err(Usage::try_help().into());
    }
    let text = attempt(host, |host, table| {
        let mut text = String::new();
        for (ask, line) in asks.iter().zip(lines) {
            let done = match ask {
                Ask::Zero(None) => Ok(String::new()),
                Ask::Zero(Some(address)) => {
                    table.find(address).map(|_| String::new()).ok_or(IpvsError::NoSuchService.into())
                }
                // What was saved replaces what runs: ipvsadm's -C, which comes before, ends no daemon.
                Ask::StartDaemon(daemon) if line.extra => {
                    table.replace_daemon(daemon.clone());
                    Ok(String::new())
                }
                ask if edits(ask) => edit(ask, table).map(|()| String::new()).map_err(Stopped::from),
                ask => show(ask, table, host, names),
            };
            let explain = |stopped: Stopped| {
                let message = format!(
                    "{}\nnothing was restored, because of line {}: {}",
                    stopped.message,
                    line.number,
                    line.words.join(" ")
                );
                Stopped { message, ..stopped }
            };
            text += &done.map_err(explain)?;
        }
        Ok(text)
    })?;
    // Counters are no part of the table: they are zeroed once it is stored.
    for ask in &asks {
        if let Ask::Zero(service) = ask {
            host.zero(service.as_ref())?;
        }
    }
    Ok(text)
}

/// Help needs no director at all, and connections are not looked up in the table.
fn needs_table(ask: &Ask) -> bool {
    matches!(
        ask,
        Ask::Save(_) | Ask::ListAll(_) | Ask::ListService(..) | Ask::ListTimeouts | Ask::ListDaemons
    )
}

fn edits(ask: &Ask) -> bool {
    match ask {
        Ask::AddService(_) | Ask::EditService(_) | Ask::DeleteService(_) | Ask::Flush => true,
        Ask::AddServer(..) | Ask::EditServer(..) | Ask::DeleteServer(..) | Ask::SetTimeouts(_) => true,
        Ask::Help | Ask::Version | Ask::Restore | Ask::Save(_) | Ask::Zero(_) => false,
        Ask::StartDaemon(_) | Ask::StopDaemon(_) => true,
        Ask::ListAll(_)
        | Ask::ListService(..)
        | Ask::ListConnections(_)
        | Ask::ListTimeouts
        | Ask::ListDaemons => false,
    }
}

fn edit(ask: &Ask, table: &mut Table) -> Result<(), IpvsError> {
    match ask {
        Ask::AddService(service) => table.add_service(service.clone()),
        Ask::EditService(service) => table.edit_service(service.clone()),
        Ask::DeleteService(address) => table.delete_service(address),
        Ask::AddServer(address, server) => table.add_server(address, *server),
        Ask::EditServer(address, server) => table.edit_server(address, *server),
        Ask::DeleteServer(address, server) => table.delete_server(address, server),
        Ask::Flush => {
            table.services.clear();
            Ok(())
        }
        Ask::SetTimeouts(timeouts) => {
            table.set_timeouts(*timeouts);
            Ok(())
        }
        Ask::StartDaemon(daemon) => table.start_daemon(daemon.clone()),
        Ask::StopDaemon(state) => table.stop_daemon(*state),
        _ => Ok(()),
    }
}

/// What does not change the table.
fn show(ask: &Ask, table: &Table, host: &mut dyn Host, names: &Names) -> Result<String, Stopped> {
    Ok(match ask {
        Ask::Help => HELP.to_owned(),
        Ask::Version => VERSION.to_owned(),
        Ask::Save(format) => save::save(table, *format, names),
        Ask::ListAll(format) => Printer::new(names, *format, &host.counters()?).all(table),
        Ask::ListService(address, format) => {
            let missing = || Stopped { code: 1, message: IpvsError::NoSuchService.to_string() };
            let service = table.find(address).ok_or_else(missing)?;
            Printer::new(names, *format, &host.counters()?).one(service)
        }
        Ask::ListConnections(format) => connections::list(&host.connections()?, *format, names),
        Ask::ListTimeouts => {
            let table::Timeouts { tcp, tcp_fin, udp } = table.timeouts;
            format!("Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}\n")
        }
        Ask::ListDaemons => print::daemons(table),
        // What changes the table is not shown.
        _ => String::new(),
    })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

//! One scenario: commands, connections, choices.

use std::collections::HashMap;
use std::net::IpAddr;

use lb_config::{Model, ServerRef};
use lb_dataplane::classify::Lookup;
use lb_dataplane::director::Director;
use lb_dataplane::ids::DestId;
use lb_dataplane::io::DeviceId;
use lb_dataplane::sched::{DrawSource, NewConnection};
use lb_dataplane::setup::{DeviceSetup, WorkerSeed};

use crate::commands::{self, Effect, Options, endpoint};
use crate::vectors::{Conns, Event, Scenario};

/// IPVS's timeouts, s: established, after a FIN, UDP, SYN received, reset.
const TIMEOUTS: [u64; 5] = [900, 120, 300, 60, 10];

/// Draws after which a choice that chance allows has been seen.
const DRAWS: u32 = 20_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Established = 0,
    FinWait = 1,
    Udp = 2,
    SynRecv = 3,
    Close = 4,
}

struct Conn {
    dest: DestId,
    state: State,
    deadline_ms: u64,
}

struct Lab<'a> {
    scenario: &'a Scenario,
    deterministic: bool,
    model: Model,
    options: Options,
    timeouts: [u64; 5],
    director: Director,
    seed: WorkerSeed,
    draws: DrawSource,
    conns: HashMap<(String, Option<String>), Conn>,
    templates: HashMap<IpAddr, DestId>,
    now_ms: u64,
}

pub fn replay(scenario: &Scenario, deterministic: bool) -> Result<(), String> {
    let model = commands::empty()?;
    let devices = vec![DeviceSetup { mac: [2, 0, 0, 0, 0, 1], rss: false }];
    let (director, mut seeds) = Director::new(&model, devices).map_err(|error| error.to_string())?;
    let seed = seeds.pop().ok_or("a worker")?;
    let mut lab = Lab {
        scenario,
        deterministic,
        model,
        options: Options::default(),
        timeouts: TIMEOUTS,
        director,
        seed,
        draws: DrawSource::new(1),
        conns: HashMap::new(),
        templates: HashMap::new(),
        now_ms: 0,
    };
    for command in &scenario.setup {
        lab.command(command)?;
    }
    for (at, event) in scenario.events.iter().enumerate() {
        lab.event(event).map_err(|fault| format!("event {at}: {fault}"))?;
    }
    Ok(())
}

fn prefix(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(
            (u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)).into(),
        ),
        IpAddr::V6(v6) => {
            IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)).into())
        }
    }
}

impl Lab<'_> {
    fn command(&mut self, command: &str) -> Result<(), String> {
        let effect = commands::run(command, &mut self.model, &mut self.options);
        match effect.map_err(|error| format!("{command}: {error}"))? {
            Effect::Changed => self.director.apply(&self.model).map_err(|error| error.to_string())?,
            Effect::Touched => self.director.touch(&self.model.services[0]),
            Effect::Timeouts(seconds) => {
                for (own, set) in self.timeouts.iter_mut().zip(seconds) {
                    *own = if set > 0 { set } else { *own };
                }
            }
        }
        self.seed.mailbox.refresh(&mut self.seed.snapshot);
        self.seed.counters[0].own.generation.set(self.seed.snapshot.generation);
        self.pass(0);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Open { client, dst, server, conns, .. } => {
                self.begin((client, dst), State::Established, server.as_deref())?;
                conns.as_ref().map_or(Ok(()), |conns| self.compare(conns))
            }
            Event::Syn { client, dst, server, conns, .. } => {
                self.begin((client, dst), State::SynRecv, server.as_deref())?;
                conns.as_ref().map_or(Ok(()), |conns| self.compare(conns))
            }
            Event::Data { client, dst, server, conns, .. } => {
                self.begin((client, dst), State::Udp, server.as_deref())?;
                conns.as_ref().map_or(Ok(()), |conns| self.compare(conns))
            }
            Event::Close { client, dst, conns, .. } => {
                self.advance((client, dst), State::FinWait);
                self.compare(conns)
            }
            Event::Reset { client, dst, conns, .. } => {
                self.advance((client, dst), State::Close);
                self.compare(conns)
            }
            Event::Ctl { cmd, conns } => {
                self.command(cmd)?;
                self.compare(conns)
            }
            Event::Wait { seconds, conns } => {
                self.pass((seconds * 1000.0) as u64);
                self.compare(conns)
            }
        }
    }

    /// A packet that may open a connection, in the state that it leads to.
    fn begin(
        &mut self,
        (client, dst): (&str, &Option<String>),
        state: State,
        want: Option<&str>,
    ) -> Result<(), String> {
        let key = (client.to_owned(), dst.clone());
        if self.conns.get(&key).is_some_and(|conn| conn.state == State::Close) {
            // IPVS conn_reuse_mode 1
            self.end(&key);
        }
        if let Some(conn) = self.conns.get(&key) {
            let dest = conn.dest;
            let got = if self.removed(dest) { None } else { Some(self.name(dest)?) };
            self.advance((client, dst), state);
            return expect(client, got.as_deref(), want);
        }
        let (address, port) = spaced(client)?;
        let service = &self.model.services[0];
        let target = dst.as_deref().map_or(Ok((service.address.vip().ok_or("no VIP")?, 0)), spaced)?.0;
        let group = self.options.persistent.map(|len| prefix(address, len));
        let held =
            group.and_then(|group| self.templates.get(&group).copied()).filter(|dest| !self.removed(*dest));
        let new = NewConnection { client: address, client_port: port, target };
        let chosen = match held {
            Some(dest) => Some(dest),
            None if self.deterministic => self.schedule(&new)?,
            None => self.schedule_by_chance(&new, want)?,
        };
        let got = chosen.map(|dest| self.name(dest)).transpose()?;
        expect(client, got.as_deref(), want)?;
        let Some(dest) = chosen else { return Ok(()) };
        if let Some(group) = group {
            self.templates.insert(group, dest);
        }
        let counters = &self.seed.counters[0].dests[dest.0 as usize];
        counters.total.up();
        self.seed.snapshot.bound(dest, &self.seed.counters);
        let deadline_ms = self.now_ms;
        self.conns.insert(key.clone(), Conn { dest, state: State::Close, deadline_ms });
        self.advance((client, dst), state);
        if self.options.one_packet {
            self.end(&key);
        }
        Ok(())
    }

    fn schedule(&self, new: &NewConnection) -> Result<Option<DestId>, String> {
        let snapshot = &self.seed.snapshot;
        let service = self.model.services.first().ok_or("no service in the model")?;
        let lookup = Lookup {
            src: new.client,
            dst: service.address.vip().ok_or("no VIP")?,
            src_port: new.client_port,
            dst_port: service.address.port(),
            protocol: service.address.protocol().ok_or("no protocol")?.into(),
            device: DeviceId(0),
            vlan: 0,
        };
        let service = snapshot.services.find(&lookup).ok_or("no service in the snapshot")?;
        Ok(snapshot.schedule(service, new, &self.seed.counters, &self.draws))
    }

    /// The recorded choice, if chance can make it.
    fn schedule_by_chance(&self, new: &NewConnection, want: Option<&str>) -> Result<Option<DestId>, String> {
        let mut last = None;
        for _ in 0..DRAWS {
            last = self.schedule(new)?;
            let got = last.map(|dest| self.name(dest)).transpose()?;
            if got.as_deref() == want {
                break;
            }
        }
        Ok(last)
    }

    /// A packet of a known connection.
    fn advance(&mut self, (client, dst): (&str, &Option<String>), state: State) {
        let now_ms = self.now_ms;
        let Some(conn) = self.conns.get(&(client.to_owned(), dst.clone())) else { return };
        if self.removed(conn.dest) {
            return;
        }
        let active = |state| matches!(state, State::Established | State::SynRecv);
        let counters = &self.seed.counters[0].dests[conn.dest.0 as usize];
        match (active(conn.state), active(state)) {
            (false, true) => counters.active.up(),
            (true, false) => counters.active.down(),
            _ => {}
        }
        let deadline_ms = now_ms + 1000 * self.timeouts[state as usize];
        if let Some(conn) = self.conns.get_mut(&(client.to_owned(), dst.clone())) {
            (conn.state, conn.deadline_ms) = (state, deadline_ms);
        }
    }

    fn end(&mut self, key: &(String, Option<String>)) {
        let Some(conn) = self.conns.remove(key) else { return };
        let counters = &self.seed.counters[0].dests[conn.dest.0 as usize];
        if matches!(conn.state, State::Established | State::SynRecv) {
            counters.active.down();
        }
        counters.total.down();
        self.seed.snapshot.unbound(conn.dest, &self.seed.counters);
    }

    /// Time goes by.
    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let over = self.conns.iter().filter(|(_, conn)| conn.deadline_ms <= self.now_ms);
        let over: Vec<_> = over.map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| self.end(key));
        self.director.poll(self.now_ms);
        self.seed.mailbox.refresh(&mut self.seed.snapshot);
    }

    fn removed(&self, dest: DestId) -> bool {
        self.seed.snapshot.dest(dest).is_none_or(|entry| entry.removed)
    }

    fn name(&self, dest: DestId) -> Result<String, String> {
        let address = self.director.server_of(dest).ok_or("a destination without a server")?.address;
        let server = self.scenario.servers.iter().find(|server| server.addr == address);
        Ok(server.map_or_else(|| customary_name(address), |server| server.name.clone()))
    }

    fn compare(&self, want: &Conns) -> Result<(), String> {
        let service = &self.model.services[0];
        for (name, want) in want {
            let of_name = |dest: &DestId| self.name(*dest).as_ref() == Ok(name);
            let standing = service.servers.iter().filter_map(|s| {
                self.director.dest_of(service, ServerRef { address: s.address, port: s.port })
            });
            let dest = standing.into_iter().find(of_name);
            let dest = dest.ok_or_else(|| format!("{name} is not a server of the service now"))?;
            let counters = &self.seed.counters[0].dests[dest.0 as usize];
            let active = counters.active.get();
            let got = [active, counters.total.get() - active];
            if got != *want {
                return Err(format!("{name} has {got:?} connections, expected {want:?}"));
            }
        }
        Ok(())
    }
}

/// What the recordings call a server that is added on the way: 10.1.0.14 and fd00:b::14 are `rs4`.
fn customary_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("rs{}", v4.octets()[3].wrapping_sub(10)),
        IpAddr::V6(v6) => format!("rs{}", v6.octets()[15].wrapping_sub(0x10)),
    }
}

fn spaced(text: &str) -> Result<(IpAddr, u16), String> {
    let (address, port) = text.split_once(' ').ok_or_else(|| format!("{text} is not ADDRESS PORT"))?;
    Ok((endpoint(address)?.0, port.parse().map_err(|_| format!("{port} is not a port"))?))
}

fn expect(client: &str, got: Option<&str>, want: Option<&str>) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{client} goes to {got:?}, expected {want:?}")) }
}

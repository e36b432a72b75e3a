//! A director with its workers, turned by hand.

use lb_config::Model;
use lb_dataplane::director::{self, Director};
use lb_dataplane::io::{DeviceId, Packet};
use lb_dataplane::mailbox::ConnRow;
use lb_dataplane::memory::{Frame, MemoryIo};
use lb_dataplane::setup::DeviceSetup;
use lb_dataplane::{DropReason, Worker};

use crate::frames::{self, DIRECTOR, server_mac};

pub const BASE: &str = r#"
[[ports]]
name = "lan"
device = "null"
addresses = ["192.168.150.11/24", "fd00:150::11/64"]
gateway = ["192.168.150.254", "fd00:150::254"]
"#;

/// A service on 192.168.150.100:80/tcp with these servers (last byte of the address, weight).
pub fn web(scheduler: &str, servers: &[(u8, u32)]) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(n, weight)| format!("{{ address = \"192.168.150.{n}\", weight = {weight} }}"))
        .collect();
    format!(
        "[[services]]\nname = \"web\"\nvip = \"192.168.150.100\"\nport = 80\nprotocol = \"tcp\"\nscheduler = \"{scheduler}\"\n\
         forwarding = \"dr\"\nservers = [{}]\n",
        servers.join(", ")
    )
}

pub struct Lab {
    pub director: Director,
    pub workers: Vec<Worker<MemoryIo>>,
    pub now_ms: u64,
}

pub fn model(text: &str) -> Model {
    lb_config::parse(text).unwrap_or_else(|faults| panic!("{faults}"))
}

impl Lab {
    /// One worker, `services` after [`BASE`], next hops not yet resolved.
    pub fn cold(services: &str) -> Self {
        Self::of(&format!("{BASE}{services}"), 1)
    }

    /// Any configuration text with so many workers, next hops not yet resolved.
    pub fn of(text: &str, workers: u16) -> Self {
        let cpus: Vec<_> = (0..workers).collect();
        Self::with_head(&format!("[appliance]\nworkers = {cpus:?}\n[limits]\nmax_connections = 4096\n"), text)
    }

    /// `head`: the sections [appliance] and [limits].
    pub fn with_head(head: &str, text: &str) -> Self {
        let model = model(&format!("{head}{text}"));
        let workers = model.appliance.workers.len() as u16;
        let devices = director::devices(&model);
        let setup = devices.iter().map(|_| DeviceSetup { mac: DIRECTOR, rss: false }).collect();
        let (director, seeds) = Director::new(&model, setup).expect("a director");
        let io = MemoryIo::for_workers(devices.len(), workers);
        let workers =
            seeds.into_iter().zip(io).map(|(seed, io)| Worker::new(seed, io).expect("memory")).collect();
        let mut lab = Self { director, workers, now_ms: 10_000 };
        lab.turn();
        lab
    }

    /// As [`Lab::cold`], with servers .12 to .20 and the gateway resolved.
    pub fn warm(services: &str) -> Self {
        Self::warm_of(&format!("{BASE}{services}"), 1)
    }

    pub fn warm_of(text: &str, workers: u16) -> Self {
        Self::of(text, workers).resolved()
    }

    /// Servers .12 to .20 and the gateway have answered.
    pub fn resolved(mut self) -> Self {
        let lab = &mut self;
        for n in (12..=20).chain([254]) {
            lab.answer_arp(n);
        }
        lab.settle();
        lab.clear();
        self
    }

    /// Server `n` answers the director's question.
    pub fn answer_arp(&mut self, n: u8) {
        let reply =
            frames::arp(2, DIRECTOR, (server_mac(n), [192, 168, 150, n]), (DIRECTOR, [192, 168, 150, 11]));
        self.put(&reply);
        self.turn();
    }

    /// Frames wait at the first worker's queue.
    pub fn put(&mut self, frame: &[u8]) {
        self.put_on(0, frame);
    }

    pub fn put_on(&mut self, device: u16, frame: &[u8]) {
        self.workers[0].io_mut().receive[usize::from(device)].push_back(Frame::new(DeviceId(device), frame));
    }

    /// Every worker turns once, then the control core.
    pub fn turn(&mut self) {
        for worker in &mut self.workers {
            worker.turn(self.now_ms * 1_000_000);
        }
        self.director.poll(self.now_ms);
    }

    /// Turns until nothing moves any more.
    pub fn settle(&mut self) {
        (0..20).for_each(|_| self.turn());
    }

    /// Time goes on.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms = (self.now_ms + 100).min(end);
            self.turn();
        }
    }

    /// All that was sent on a device so far, in order; forgets it.
    pub fn sent_on(&mut self, device: usize) -> Vec<Vec<u8>> {
        let sent =
            self.workers.iter_mut().flat_map(|worker| std::mem::take(&mut worker.io_mut().sent[device]));
        sent.map(|frame| frame.bytes().to_vec()).collect()
    }

    pub fn sent(&mut self) -> Vec<Vec<u8>> {
        self.sent_on(0)
    }

    pub fn clear(&mut self) {
        for worker in &mut self.workers {
            worker.io_mut().sent.iter_mut().for_each(Vec::clear);
        }
    }

    /// What comes out for a frame.
    pub fn pass(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.put(frame);
        (0..3).for_each(|_| self.turn());
        self.sent()
    }

    /// The server (last byte of its MAC address) that a frame goes to, if it is sent on at all.
    pub fn server_of(&mut self, frame: &[u8]) -> Option<u8> {
        let sent = self.pass(frame);
        assert!(sent.len() <= 1, "one frame in, {} out", sent.len());
        // what goes back to the client is an answer of the director's own
        sent.first().filter(|frame| frame[..6] != frames::CLIENT).map(|frame| frame[5])
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.director.drops().into_iter().find(|(of, _)| *of == reason).expect("every reason is listed").1
    }

    /// Every reason with a count.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        self.director
            .drops()
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .map(|(reason, n)| (reason.name(), n))
            .collect()
    }

    pub fn connections(&mut self) -> Vec<ConnRow> {
        let ticket = self.director.list_connections(Default::default(), 10_000).expect("a free mailbox");
        for _ in 0..2000 {
            self.turn();
            if let Some((mut rows, _)) = self.director.connections(ticket) {
                rows.sort_by_key(|row| (row.client, row.vip));
                return rows;
            }
        }
        panic!("the listing does not end");
    }

    /// Active and inactive connections by server's last byte.
    pub fn counts(&self) -> Vec<(u64, u64)> {
        self.director.services()[0].dests.iter().map(|dest| (dest.active, dest.inactive)).collect()
    }

    pub fn apply(&mut self, services: &str) {
        self.apply_text(&format!("{BASE}{services}"));
    }

    /// Ports and services in place of those that there are.
    pub fn apply_text(&mut self, text: &str) {
        let workers: Vec<_> = (0..self.workers.len()).collect();
        let text = format!("[appliance]\nworkers = {workers:?}\n[limits]\nmax_connections = 4096\n{text}");
        self.director.apply(&model(&text)).expect("applies");
    }
}

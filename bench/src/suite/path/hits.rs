//! Packets of established connections.

use std::sync::Arc;

use anyhow::ensure;
use lb_dataplane::conn::table::NoMemory;

use crate::context::Context;
use crate::frames::{ACK, Family, Leg};
use crate::generator::{COLD, Generator, HOT, Order};
use crate::packet::Buf;
use crate::peer::{TextbookBalancer, floor, mac_rewrite};
use crate::record::Table;
use crate::site::{Forwarding, Plan, Site};
use crate::stats::short;
use crate::zipf::Zipf;

use super::{SLICE, sliced};

/// Memory that 100 M connections need, margin included, bytes.
const MEMORY_100M: u64 = 6 << 30;
/// Ranks drawn beforehand: 8 MB, read in order.
const RANKS: usize = 1 << 21;

/// How flows are chosen and where frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variety {
    /// Every flow in turn, hot buffers.
    Hot,
    /// Every flow in turn, cold buffers.
    Cold,
    /// By Zipf's law, hot buffers.
    Zipf,
}

/// Who did the work of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Only the generator: frames are made and nothing is done to them.
    Floor,
    /// What testpmd's `mac` does.
    MacRewrite,
    /// The textbook balancer.
    HashMap,
    /// A site, by this forwarding; packets to servers or replies.
    Sluice(Forwarding, Leg),
}

/// What is measured, and when it was: less the floor.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Who.
    pub who: Who,
    /// Family of the packets.
    pub family: Family,
    /// Which flows, which buffers.
    pub variety: Variety,
    /// Connections.
    pub flows: u64,
    /// ns per packet, least, less the floor.
    pub net: f64,
}

impl Line {
    /// Its name.
    pub fn name(&self) -> String {
        let who = match self.who {
            Who::Floor => "floor: frames made".to_owned(),
            Who::MacRewrite => "MACs rewritten, no balancing".to_owned(),
            Who::HashMap => "HashMap balancer".to_owned(),
            Who::Sluice(forwarding, leg) => match (forwarding.reply(), leg) {
                (None, _) => forwarding.name().to_owned(),
                (Some(_), Leg::In) => format!("{} in", forwarding.name()),
                (Some(_), _) => format!("{} out", forwarding.name()),
            },
        };
        let variety = match self.variety {
            Variety::Hot => "",
            Variety::Cold => ", cold buffers",
            Variety::Zipf => ", Zipf",
        };
        format!("{who}, {}{variety}", self.family.name())
    }
}

/// Buffers, made once and passed on.
struct Pools {
    hot: Vec<Vec<Buf>>,
    cold: Vec<Buf>,
}

impl Pools {
    fn take(&mut self) -> Vec<Buf> {
        self.hot.pop().unwrap_or_else(|| Buf::pool(HOT))
    }
}

/// One comparison's workers and peers.
struct Bench {
    sites: Vec<(Family, Site)>,
    floors: Vec<(Family, Generator)>,
    textbook: Option<(TextbookBalancer, Generator)>,
    ranks: Arc<[u32]>,
    cold: Vec<Buf>,
    slices: u64,
}

/// Measures all forwardings at all sizes; what it returns is in the order of the table.
pub fn run(context: &mut Context) -> anyhow::Result<Vec<Line>> {
    let (slices, sizes): (u64, &[u64]) =
        if context.quick() { (1, &[1_000, 100_000]) } else { (40, &[1_000, 1_000_000, 10_000_000]) };
    let mut pools =
        Pools { hot: Vec::new(), cold: Buf::pool(if context.quick() { COLD / 10 } else { COLD }) };
    let mut table = Table::new(
        "Established connections, ns per packet",
        &["packets", "connections", "minimum / median", "net"],
    );
    let mut lines = Vec::new();
    for flows in sizes {
        for forwarding in Forwarding::ALL {
            lines.extend(measure(context, &mut pools, &mut table, slices, forwarding, *flows, true)?);
        }
    }
    if context.quick() {
        context.note("Quick: no more than 100 k connections.");
    } else if context.memory() < MEMORY_100M {
        let why = format!("{} GiB of memory are not free", MEMORY_100M >> 30);
        context.skip_goals("DR at 100 M connections", why, &["P4"]);
    } else {
        match measure(context, &mut pools, &mut table, slices, Forwarding::Dr, 100_000_000, false) {
            Ok(more) => lines.extend(more),
            Err(error) if error.is::<NoMemory>() => {
                context.skip_goals("DR at 100 M connections", error.to_string(), &["P4"]);
            }
            Err(error) => return Err(error),
        }
    }
    context.table(table);
    Ok(lines)
}

/// Measures one forwarding at one size; `all`: over both families and beside the peer.
fn measure(
    context: &mut Context,
    pools: &mut Pools,
    table: &mut Table,
    slices: u64,
    forwarding: Forwarding,
    flows: u64,
    all: bool,
) -> anyhow::Result<Vec<Line>> {
    let families: &[Family] = if all { &[Family::V4, Family::V6] } else { &[Family::V4] };
    let setting = setting(forwarding, flows);
    let mut filling = context.progress(&format!("{setting}: filling"), families.len() as u64 + 1);
    let mut zipf = Zipf::new(flows, 1.1, 1);
    let mut bench = Bench {
        sites: Vec::new(),
        floors: families.iter().map(|family| (*family, Generator::new(*family, pools.take()))).collect(),
        textbook: None,
        ranks: (0..RANKS).map(|_| zipf.rank() as u32).collect(),
        cold: std::mem::take(&mut pools.cold),
        slices,
    };
    for family in families {
        let site = Site::established(Plan::new(forwarding, *family, flows), pools.take())?;
        bench.sites.push((*family, site));
        filling.step(1);
    }
    if all && forwarding == Forwarding::Dr {
        bench.textbook = Some(textbook(flows, pools.take())?);
    }
    drop(filling);
    let mut lines = works(forwarding, families, bench.textbook.is_some(), flows);
    let names: Vec<String> = lines.iter().map(Line::name).collect();
    let series = context.rounds(context.pairs(), &setting, "ns/packet", &names, |at, round| {
        Ok(bench.timed(&lines[at], round as u64 * slices * SLICE))
    })?;
    for at in 0..lines.len() {
        // one floor per family comes first
        let floor = lines.iter().position(|line| line.who == Who::Floor && line.family == lines[at].family);
        lines[at].net = floor.map_or(f64::NAN, |floor| series[at].above(&series[floor]));
        let net = if lines[at].who == Who::Floor { "-".to_owned() } else { format!("{:.1}", lines[at].net) };
        table.row([names[at].clone(), short(flows as f64), series[at].shown(), net]);
    }
    for (_, mut site) in bench.sites {
        site.check(flows)?;
        pools.hot.push(site.into_buffers());
    }
    let generators = bench.floors.into_iter().map(|(_, io)| io).chain(bench.textbook.map(|(_, io)| io));
    pools.hot.extend(generators.map(|mut io| io.swap_buffers(Vec::new())));
    pools.cold = bench.cold;
    Ok(lines)
}

/// What one comparison is called.
pub fn setting(forwarding: Forwarding, flows: u64) -> String {
    format!("{}, {} connections", forwarding.name(), short(flows as f64))
}

/// What is measured in one comparison.
fn works(forwarding: Forwarding, families: &[Family], textbook: bool, flows: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |who, family, variety| lines.push(Line { who, family, variety, flows, net: f64::NAN });
    for family in families {
        add(Who::Floor, *family, Variety::Hot);
    }
    if textbook {
        for variety in [Variety::Hot, Variety::Cold] {
            add(Who::MacRewrite, Family::V4, variety);
        }
        for variety in [Variety::Hot, Variety::Zipf] {
            add(Who::HashMap, Family::V4, variety);
        }
    }
    for family in families {
        for leg in [Some(Leg::In), forwarding.reply()].into_iter().flatten() {
            add(Who::Sluice(forwarding, leg), *family, Variety::Hot);
        }
    }
    for variety in [Variety::Cold, Variety::Zipf] {
        add(Who::Sluice(forwarding, Leg::In), Family::V4, variety);
    }
    lines
}

/// The textbook balancer that knows all flows.
fn textbook(flows: u64, buffers: Vec<Buf>) -> anyhow::Result<(TextbookBalancer, Generator)> {
    let mut io = Generator::new(Family::V4, buffers);
    let mut textbook = TextbookBalancer::default();
    io.begin(Order::Round { flows, step: (Leg::In, ACK) });
    textbook.run(&mut io, flows);
    let known = textbook.len() as u64;
    ensure!(known == flows, "the textbook balancer knows {known} of {flows} connections");
    Ok((textbook, io))
}

impl Bench {
    /// One repetition of a line, from the order's frame `from`; ns per packet.
    fn timed(&mut self, line: &Line, from: u64) -> f64 {
        let leg = if let Who::Sluice(_, leg) = line.who { leg } else { Leg::In };
        let order = match line.variety {
            Variety::Zipf => Order::Ranks { ranks: self.ranks.clone(), step: (leg, ACK) },
            _ => Order::Round { flows: line.flows, step: (leg, ACK) },
        };
        self.exchange(line);
        if let Some(io) = self.io(line) {
            io.begin_at(order, from);
        }
        let ns = sliced(self.slices, |packets| match line.who {
            Who::Floor => find(&mut self.floors, line.family).into_iter().for_each(|io| floor(io, packets)),
            Who::MacRewrite => {
                find(&mut self.floors, line.family).into_iter().for_each(|io| mac_rewrite(io, packets))
            }
            Who::HashMap => self.textbook.iter_mut().for_each(|(textbook, io)| textbook.run(io, packets)),
            Who::Sluice(..) => {
                find(&mut self.sites, line.family).into_iter().for_each(|site| site.pass(packets))
            }
        });
        self.exchange(line);
        ns
    }

    /// The generator that a line uses.
    fn io(&mut self, line: &Line) -> Option<&mut Generator> {
        match line.who {
            Who::Floor | Who::MacRewrite => find(&mut self.floors, line.family),
            Who::HashMap => self.textbook.as_mut().map(|(_, io)| io),
            Who::Sluice(..) => find(&mut self.sites, line.family).map(Site::io),
        }
    }

    /// Puts cold buffers into a line's generator if it wants them; done again, takes them out.
    fn exchange(&mut self, line: &Line) {
        if line.variety == Variety::Cold {
            let mut buffers = std::mem::take(&mut self.cold);
            if let Some(io) = self.io(line) {
                buffers = io.swap_buffers(buffers);
            }
            self.cold = buffers;
        }
    }
}

fn find<T>(all: &mut [(Family, T)], family: Family) -> Option<&mut T> {
    all.iter_mut().find(|(own, _)| *own == family).map(|(_, what)| what)
}

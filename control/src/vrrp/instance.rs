//! An instance: a machine, the checks that adverts pass before it hears them, and its announcements.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use lb_config::{HmacMode, VrrpVersion};

use super::frame::{self, Datagram, Route};
use super::hmac;
use super::machine::{Heard, Machine, State};
use super::plan::{Exit, InstancePlan};
use super::wire::{AUTH_PASS, Advert};

/// The time, as two clocks tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed point, never going back, ns.
    pub mono_ns: u64,
    /// Since 1970, ns: for authentication, which compares the clocks of two directors.
    pub wall_ns: u64,
}

/// Time between reports, ns. RFC 3810 section 9: queriers ask every 125 s and forget after two questions and 10 s.
const JOIN_NS: u64 = 60_000_000_000;

/// An announcement that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    at_ns: u64,
    repeat: u8,
}

/// An instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// What it goes by.
    pub plan: InstancePlan,
    /// Its machine.
    pub machine: Machine,
    /// In this state since, ns.
    pub since_ns: u64,
    /// Why, in words; empty before it has begun.
    pub why: String,
    /// Times that it became master.
    pub became_master: u64,
    /// Adverts sent.
    pub sent: u64,
    /// Adverts heard that passed the checks.
    pub heard: u64,
    /// Adverts that did not, by check.
    pub refused: BTreeMap<&'static str, u64>,
    second: Option<Due>,
    refresh: Option<Due>,
    /// When switches are told next that adverts over IPv6 are wanted here, ns.
    join_ns: Option<u64>,
    /// Latest time of each sender.
    times: HashMap<IpAddr, u64>,
}

fn ns(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Instance {
    /// One that has not begun.
    pub fn new(plan: InstancePlan, now_ns: u64) -> Self {
        let machine = Machine::new(plan.settings());
        Self {
            plan,
            machine,
            since_ns: now_ns,
            why: String::new(),
            became_master: 0,
            sent: 0,
            heard: 0,
            refused: BTreeMap::new(),
            second: None,
            refresh: None,
            join_ns: None,
            times: HashMap::new(),
        }
    }

    /// Whether another plan is of the same virtual router, so that state goes on under it.
    pub fn continues(&self, plan: &InstancePlan) -> bool {
        let (old, new) = (&self.plan, plan);
        old.owner == new.owner
            && (old.vrrp.vrid, old.vrrp.version, &old.vrrp.port)
                == (new.vrrp.vrid, new.vrrp.version, &new.vrrp.port)
            && old.source.is_ipv6() == new.source.is_ipv6()
            && (old.vrrp.priority == 255) == (new.vrrp.priority == 255)
            && old.tenure == new.tenure
    }

    /// Checks an advert. Errors: which check it did not pass; it is counted.
    pub fn check(
        &mut self,
        now: Now,
        datagram: &Datagram<'_>,
        advert: &Advert,
        rest: &[u8],
    ) -> Result<Heard, &'static str> {
        let result = self.checked(now, datagram, advert, rest);
        match result {
            Ok(_) => self.heard += 1,
            Err(reason) => *self.refused.entry(reason).or_default() += 1,
        }
        result
    }

    fn checked(
        &mut self,
        now: Now,
        datagram: &Datagram<'_>,
        advert: &Advert,
        rest: &[u8],
    ) -> Result<Heard, &'static str> {
        let vrrp = &self.plan.vrrp;
        if datagram.src == self.plan.source {
            return Err("own");
        }
        if vrrp.peers.is_empty() {
            if datagram.ttl != 255 {
                return Err("ttl");
            }
            if datagram.dst != self.plan.group {
                return Err("destination");
            }
        } else {
            if datagram.dst != self.plan.source {
                return Err("destination");
            }
            match vrrp.peers.iter().find(|peer| peer.address == datagram.src) {
                Some(peer) if !(peer.min_ttl..=peer.max_ttl).contains(&datagram.ttl) => return Err("ttl"),
                None if vrrp.check_unicast_source => return Err("peer"),
                _ => {}
            }
        }
        if advert.version != vrrp.version {
            return Err("version");
        }
        let interval_ns = match advert.version {
            VrrpVersion::V2 => u64::from(advert.interval) * 1_000_000_000,
            VrrpVersion::V3 => u64::from(advert.interval) * 10_000_000,
        };
        if advert.version == VrrpVersion::V2 {
            let expected = self.password();
            if advert.auth.0 != expected.0 || expected.0 == AUTH_PASS && advert.auth.1 != expected.1 {
                return Err("authentication");
            }
            // RFC 3768 section 7.1
            if interval_ns != ns(vrrp.advert_interval) {
                return Err("interval");
            }
        } else if interval_ns == 0 {
            return Err("interval");
        }
        if vrrp.check_addresses && advert.priority != 0 && !self.same_addresses(advert) {
            return Err("addresses");
        }
        self.authenticate(now, datagram, rest)?;
        Ok(Heard { source: datagram.src, priority: advert.priority, interval_ns })
    }

    fn same_addresses(&self, advert: &Advert) -> bool {
        let own = &self.plan.vrrp.virtual_addresses;
        own.len() == advert.addresses.len() && own.iter().all(|vip| advert.addresses.contains(&vip.address))
    }

    /// Checks the trailer, see [`hmac`].
    fn authenticate(&mut self, now: Now, datagram: &Datagram<'_>, rest: &[u8]) -> Result<(), &'static str> {
        let Some(config) = &self.plan.vrrp.hmac else {
            return if rest.is_empty() { Ok(()) } else { Err("length") };
        };
        if rest.is_empty() {
            return if config.mode == HmacMode::Enforce { Err("hmac") } else { Ok(()) };
        }
        let trailer = hmac::parse(rest).ok_or("hmac")?;
        let key = config.keys.iter().find(|key| key.id == trailer.key).and_then(|key| key.bytes());
        let key = key.ok_or("hmac")?;
        let message = datagram.payload.get(..datagram.payload.len() - rest.len()).ok_or("length")?;
        if !trailer.verify(&key, (datagram.src, datagram.dst), message) {
            return Err("hmac");
        }
        if trailer.time_ns.abs_diff(now.wall_ns) > ns(config.window) {
            return Err("hmac_time");
        }
        let last = self.times.entry(datagram.src).or_default();
        if trailer.time_ns <= *last {
            return Err("hmac_replay");
        }
        *last = trailer.time_ns;
        Ok(())
    }

    /// Authentication of version 2.
    fn password(&self) -> (u8, [u8; 8]) {
        let mut data = [0; 8];
        let Some(password) = &self.plan.vrrp.auth_password else { return (0, data) };
        data.iter_mut().zip(password.bytes()).for_each(|(to, from)| *to = from);
        (AUTH_PASS, data)
    }

    /// The payload of an advert to `dst`.
    fn payload(&self, now: Now, priority: u8, dst: IpAddr) -> Vec<u8> {
        let vrrp = &self.plan.vrrp;
        let unit = match vrrp.version {
            VrrpVersion::V2 => 1_000_000_000,
            VrrpVersion::V3 => 10_000_000,
        };
        let advert = Advert {
            version: vrrp.version,
            vrid: vrrp.vrid,
            priority,
            interval: u16::try_from(ns(vrrp.advert_interval) / unit).unwrap_or(u16::MAX),
            addresses: vrrp.virtual_addresses.iter().map(|vip| vip.address).collect(),
            auth: if vrrp.version == VrrpVersion::V2 { self.password() } else { Default::default() },
        };
        let mut bytes = advert.emit(self.plan.source, dst, vrrp.v3_checksum_as_v2);
        if let Some(hmac) = vrrp.hmac.as_ref().filter(|hmac| hmac.mode != HmacMode::ReceiveOnly) {
            let key = hmac.keys.iter().find(|key| key.id == hmac.active).and_then(|key| key.bytes());
            if let Some(key) = key {
                let ends = (self.plan.source, dst);
                let trailer = super::hmac::sign((hmac.active, &key), now.wall_ns, ends, &bytes);
                bytes.extend(trailer);
            }
        }
        bytes
    }

    /// Frames of an advert with `priority`. `station`: MAC address of another director, if it is known.
    pub fn adverts(
        &mut self,
        now: Now,
        priority: u8,
        id: u16,
        station: impl Fn(&super::plan::Target) -> Option<[u8; 6]>,
    ) -> Vec<Vec<u8>> {
        let (plan, src) = (&self.plan, self.plan.source);
        let mut frames = Vec::new();
        if plan.targets.is_empty() {
            let (dst, to) = (plan.group, frame::group_mac(plan.group));
            let payload = self.payload(now, priority, dst);
            frames.extend(frame::advert(&plan.exit.wire, &Route { to, src, dst, ttl: 255 }, id, &payload));
        }
        for target in &plan.targets {
            let Some(to) = station(target) else {
                *self.refused.entry("no_neighbor").or_default() += 1;
                continue;
            };
            let (dst, ttl) = (target.address, plan.vrrp.unicast_ttl);
            let payload = self.payload(now, priority, dst);
            frames.extend(frame::advert(&plan.exit.wire, &Route { to, src, dst, ttl }, id, &payload));
        }
        self.sent += u64::from(!frames.is_empty());
        frames
    }

    /// The frame that tells another director alone, at `station`, that the addresses are not here any more: an advert of
    /// priority 0. Directors to whom it means nothing do not get it. `None`: the RFC has none, and nothing else is wanted.
    pub fn bye(&mut self, now: Now, id: u16, (src, station): (IpAddr, [u8; 6])) -> Option<Vec<u8>> {
        if self.plan.vrrp.strict {
            return None;
        }
        let (dst, ttl) = match self.plan.targets.is_empty() {
            true => (self.plan.group, 255),
            false => (src, self.plan.vrrp.unicast_ttl),
        };
        // later than an advert of the same moment: who authenticates takes none twice
        let now = Now { wall_ns: now.wall_ns + 1, ..now };
        let payload = self.payload(now, 0, dst);
        self.sent += 1;
        let route = Route { to: station, src: self.plan.source, dst, ttl };
        frame::advert(&self.plan.exit.wire, &route, id, &payload)
    }

    /// It is in another state: announcements begin or end. Gives how many to send now.
    pub fn entered(&mut self, now_ns: u64, state: State) -> u8 {
        self.since_ns = now_ns;
        (self.second, self.refresh) = (None, None);
        self.join_ns = match state {
            State::Backup | State::Taking | State::Master
                if self.plan.targets.is_empty() && self.plan.group.is_ipv6() =>
            {
                Some(self.join_ns.unwrap_or(now_ns))
            }
            _ => None,
        };
        if state != State::Master {
            return 0;
        }
        self.became_master += 1;
        let vrrp = &self.plan.vrrp;
        let later = |time, repeat| (ns(time) > 0).then(|| Due { at_ns: now_ns + ns(time), repeat });
        self.second = later(vrrp.garp_master_delay, vrrp.garp_master_repeat);
        self.refresh = later(vrrp.garp_master_refresh, vrrp.garp_master_refresh_repeat);
        vrrp.garp_master_repeat
    }

    /// An advert of lower priority came: whoever sent it may have announced the addresses. Gives how many
    /// announcements to send now; none while those after an earlier one are still to come.
    pub fn lower(&mut self, now_ns: u64) -> u8 {
        let vrrp = &self.plan.vrrp;
        let (delay, repeat) = (ns(vrrp.garp_lower_prio_delay), vrrp.garp_lower_prio_repeat);
        if repeat == 0 || self.second.is_some() {
            return 0;
        }
        // without a delay as well, so that a flood of such adverts makes no flood of announcements
        self.second = Some(Due {
            at_ns: now_ns + delay.max(1_000_000_000),
            repeat: if delay > 0 { repeat } else { 0 },
        });
        repeat
    }

    /// Announcements that are due: how many.
    pub fn announcements(&mut self, now_ns: u64) -> u8 {
        let mut repeat = 0;
        if let Some(due) = self.second.take_if(|due| due.at_ns <= now_ns) {
            repeat = due.repeat;
        }
        if let Some(due) = self.refresh.as_mut().filter(|due| due.at_ns <= now_ns) {
            due.at_ns = now_ns + ns(self.plan.vrrp.garp_master_refresh).max(1);
            repeat = repeat.max(due.repeat);
        }
        repeat
    }

    /// The report that is due: switches forget groups after some minutes.
    pub fn join(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        let due = self.join_ns.as_mut().filter(|due| **due <= now_ns)?;
        *due = now_ns + JOIN_NS;
        match (self.plan.source, self.plan.group) {
            (IpAddr::V6(source), IpAddr::V6(group)) => frame::join(&self.plan.exit.wire, source, group),
            _ => None,
        }
    }

    /// When something is to be done, ns.
    pub fn due_ns(&self) -> Option<u64> {
        let dues = [
            self.join_ns,
            self.second.map(|due| due.at_ns),
            self.refresh.map(|due| due.at_ns),
            self.machine.due_ns(),
        ];
        dues.into_iter().flatten().min()
    }
}

/// `repeat` announcements of each address, every address once before any a second time.
pub fn announcements(addresses: &[(IpAddr, Exit)], repeat: u8) -> Vec<(Exit, Vec<u8>)> {
    let frame = |(address, exit): &(IpAddr, Exit)| Some((*exit, frame::announcement(&exit.wire, *address)?));
    let once: Vec<_> = addresses.iter().filter_map(frame).collect();
    (0..repeat).flat_map(|_| once.iter().cloned()).collect()
}

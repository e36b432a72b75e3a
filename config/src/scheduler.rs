//! How the server of a new connection is chosen: names and flags of the schedulers.
//!
//! Names and flags are those of ipvsadm(8) and of IPVS's modules, `maglev` is this director's own.

use std::fmt;
use std::str::FromStr;

use crate::text::{ValueError, from_word, show};

/// How the server of a new connection is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
    /// Shortest expected delay.
    Sed,
    /// Never queue: an idle server at once, else shortest expected delay.
    Nq,
    /// Locality-based least connections: what is asked for stays with a server.
    Lblc,
    /// The same with a set of servers for each destination address.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Failover: the server with the highest weight.
    Fo,
    /// Overflow: the highest weight until that many connections are active, then the next.
    Ovf,
    /// Power of two choices: the less loaded of two random ones.
    Twos,
    /// IPVS's Maglev hashing, with its constant keys.
    Mh,
    /// Consistent hashing after Maglev (Eisenbud et al., NSDI 2016, section 3.4), keyed by the cluster's secret.
    Maglev(MaglevHash, MaglevSize),
}

/// What Maglev hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MaglevHash {
    /// Client address and port: connections of one client spread.
    #[default]
    Flow,
    /// Client address alone: a client stays with its server.
    Source,
}

/// Slots of Maglev's table. Source: the two sizes of the paper's section 5.3, both prime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MaglevSize {
    /// 65537: for up to some hundred servers.
    #[default]
    Small,
    /// 655373: shares are ten times as exact, a change of servers takes ten times as long to prepare.
    Large,
}

impl MaglevSize {
    /// Number of slots.
    pub const fn slots(self) -> u32 {
        match self {
            Self::Small => 65_537,
            Self::Large => 655_373,
        }
    }

    /// The size with so many slots.
    ///
    /// Errors: there is none; the message names both.
    pub fn from_slots(slots: u32) -> Result<Self, ValueError> {
        match slots {
            65_537 => Ok(Self::Small),
            655_373 => Ok(Self::Large),
            other => {
                Err(ValueError(format!("{other} is not a size of Maglev's table (known: 65537, 655373)")))
            }
        }
    }
}

impl fmt::Display for MaglevSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.slots())
    }
}

impl FromStr for MaglevSize {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = text.parse().map_err(|_| {
            ValueError(format!("{} is not a size of Maglev's table (known: 65537, 655373)", show(text)))
        });
        Self::from_slots(number?)
    }
}

/// Maglev by flow with 65537 slots.
const MAGLEV: Scheduler = Scheduler::Maglev(MaglevHash::Flow, MaglevSize::Small);

impl Scheduler {
    /// Every scheduler, Maglev with its defaults.
    pub const ALL: [Self; 15] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Sed,
        Self::Nq,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Fo,
        Self::Ovf,
        Self::Twos,
        Self::Mh,
        MAGLEV,
    ];

    /// The scheduler's name alone, without its parameters; IPVS's name, but for `maglev`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Twos => "twos",
            Self::Mh => "mh",
            Self::Maglev(..) => "maglev",
        }
    }

    /// What Maglev hashes; `None` for the other schedulers.
    pub const fn maglev_hash(self) -> Option<MaglevHash> {
        match self {
            Self::Maglev(hash, _) => Some(hash),
            _ => None,
        }
    }

    /// Size of Maglev's table; `None` for the other schedulers.
    pub const fn maglev_size(self) -> Option<MaglevSize> {
        match self {
            Self::Maglev(_, size) => Some(size),
            _ => None,
        }
    }

    /// Finds a scheduler by its bare name; Maglev hashes the flow and has 65537 slots unless told otherwise.
    ///
    /// Errors: no scheduler has this name.
    pub fn from_name(name: &str) -> Result<Self, ValueError> {
        from_word(name, "a scheduler", &Self::ALL.map(|scheduler| (scheduler.name(), scheduler)))
    }

    /// The same scheduler hashing `hash`.
    ///
    /// Errors: the scheduler is not Maglev.
    pub fn with_maglev_hash(self, hash: MaglevHash) -> Result<Self, ValueError> {
        match self {
            Self::Maglev(_, size) => Ok(Self::Maglev(hash, size)),
            _ => Err(self.not_maglev(hash.as_str())),
        }
    }

    /// The same scheduler with a table of `size`.
    ///
    /// Errors: the scheduler is not Maglev.
    pub fn with_maglev_size(self, size: MaglevSize) -> Result<Self, ValueError> {
        match self {
            Self::Maglev(hash, _) => Ok(Self::Maglev(hash, size)),
            _ => Err(self.not_maglev(&size.to_string())),
        }
    }

    fn not_maglev(self, parameter: &str) -> ValueError {
        ValueError(format!(
            "{} is of use with the scheduler maglev only, not with {}",
            show(parameter),
            self.name()
        ))
    }

    /// Words of the three flags, as ipvsadm prints them.
    const fn flag_words(self) -> [&'static str; 3] {
        match self {
            Self::Sh => ["sh-fallback", "sh-port", "flag-3"],
            Self::Mh => ["mh-fallback", "mh-port", "flag-3"],
            _ => ["flag-1", "flag-2", "flag-3"],
        }
    }
}

/// The name; what differs from Maglev's defaults follows after a colon each: `maglev:source`, `maglev:flow:655373`.
impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maglev(hash, MaglevSize::Large) => f.pad(&format!("maglev:{hash}:{}", MaglevSize::Large)),
            Self::Maglev(MaglevHash::Source, MaglevSize::Small) => f.pad("maglev:source"),
            _ => f.pad(self.name()),
        }
    }
}

/// Reads what `Display` writes, and the defaults spelled out.
impl FromStr for Scheduler {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut parts = text.splitn(3, ':');
        let mut scheduler = Self::from_name(parts.next().unwrap_or_default())?;
        if let Some(hash) = parts.next() {
            scheduler = scheduler.with_maglev_hash(hash.parse()?)?;
        }
        match parts.next() {
            Some(size) => scheduler.with_maglev_size(size.parse()?),
            None => Ok(scheduler),
        }
    }
}

/// What ipvsadm's `--sched-flags` sets. Only `sh` and `mh` act on them; the others carry them for ipvsadm's sake.
///
/// Source: linux/ip_vs.h, `IP_VS_SVC_F_SCHED1` to `3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SchedulerFlags {
    /// `flag-1`; `sh-fallback`, `mh-fallback`: another server takes over from one that is unavailable.
    pub flag_1: bool,
    /// `flag-2`; `sh-port`, `mh-port`: the client's port is hashed too.
    pub flag_2: bool,
    /// `flag-3`.
    pub flag_3: bool,
}

impl SchedulerFlags {
    /// Whether none is set.
    pub const fn is_empty(self) -> bool {
        !(self.flag_1 || self.flag_2 || self.flag_3)
    }

    /// These and `more`.
    pub const fn and(self, more: Self) -> Self {
        Self {
            flag_1: self.flag_1 || more.flag_1,
            flag_2: self.flag_2 || more.flag_2,
            flag_3: self.flag_3 || more.flag_3,
        }
    }

    /// Words of those that are set, in ipvsadm's order: `sh-fallback` and the like with the schedulers that give
    /// them a meaning, else `flag-1`.
    pub fn words(self, scheduler: Scheduler) -> Vec<&'static str> {
        let set = [self.flag_1, self.flag_2, self.flag_3];
        scheduler.flag_words().into_iter().zip(set).filter_map(|(word, set)| set.then_some(word)).collect()
    }

    /// The words with commas between them, as ipvsadm takes and prints them; empty without a flag.
    pub fn text(self, scheduler: Scheduler) -> String {
        self.words(scheduler).join(",")
    }

    /// The same flags and the one called `word`.
    ///
    /// Errors: `scheduler` has no such flag; the message names those that it has.
    pub fn with_word(mut self, scheduler: Scheduler, word: &str) -> Result<Self, ValueError> {
        let own = scheduler.flag_words();
        let plain = ["flag-1", "flag-2", "flag-3"];
        let flag = match (0..3).find(|at| word == own[*at] || word == plain[*at]) {
            Some(0) => Some(&mut self.flag_1),
            Some(1) => Some(&mut self.flag_2),
            Some(_) => Some(&mut self.flag_3),
            None => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            return Ok(self);
        }
        let known = own.join(", ");
        Err(ValueError(format!("{} is not a flag of the scheduler {scheduler} (known: {known})", show(word))))
    }

    /// Reads words with commas between them.
    ///
    /// Errors: as [`SchedulerFlags::with_word`], for the first word that is none.
    pub fn parse(scheduler: Scheduler, text: &str) -> Result<Self, ValueError> {
        let words = text.split(',').filter(|word| !word.is_empty());
        words.into_iter().try_fold(Self::default(), |flags, word| flags.with_word(scheduler, word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "rr, wrr, lc, wlc, sed, nq, lblc, lblcr, dh, sh, fo, ovf, twos, mh, maglev";

    #[test]
    fn every_scheduler_reads_back() {
        for scheduler in Scheduler::ALL {
            assert_eq!(scheduler.to_string().parse(), Ok(scheduler));
            assert_eq!(Scheduler::from_name(scheduler.name()), Ok(scheduler));
        }
        for text in ["maglev", "maglev:source", "maglev:flow:655373", "maglev:source:655373"] {
            assert_eq!(text.parse::<Scheduler>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("maglev:flow".parse(), Ok(MAGLEV));
        assert_eq!("maglev:flow:65537".parse(), Ok(MAGLEV));
    }

    #[test]
    fn a_wrong_word_names_the_known_ones() {
        let err = |text: &str| text.parse::<Scheduler>().map_err(|e| e.to_string());
        assert_eq!(
            err("magelv"),
            Err(format!("\"magelv\" is not a scheduler (known: {KNOWN}); did you mean \"maglev\"?"))
        );
        assert_eq!(err("conhash"), Err(format!("\"conhash\" is not a scheduler (known: {KNOWN})")));
        assert_eq!(
            err("rr:flow"),
            Err("\"flow\" is of use with the scheduler maglev only, not with rr".to_owned())
        );
        assert_eq!(
            err("maglev:flow:64"),
            Err("64 is not a size of Maglev's table (known: 65537, 655373)".to_owned())
        );
    }

    #[test]
    fn flags_are_called_what_ipvsadm_calls_them() {
        let both = SchedulerFlags { flag_1: true, flag_2: true, flag_3: false };
        assert_eq!(SchedulerFlags::parse(Scheduler::Sh, "sh-port,sh-fallback"), Ok(both));
        assert_eq!(both.text(Scheduler::Sh), "sh-fallback,sh-port");
        assert_eq!(both.text(Scheduler::Mh), "mh-fallback,mh-port");
        assert_eq!(both.text(Scheduler::Rr), "flag-1,flag-2");
        assert_eq!(SchedulerFlags::parse(Scheduler::Mh, "flag-1,mh-port"), Ok(both));
        let third = SchedulerFlags { flag_3: true, ..SchedulerFlags::default() };
        assert_eq!(SchedulerFlags::parse(Scheduler::Wlc, "flag-3"), Ok(third));
        assert!(SchedulerFlags::default().is_empty() && !third.is_empty());
        assert_eq!(
            SchedulerFlags::parse(Scheduler::Mh, "sh-port").map_err(|e| e.to_string()),
            Err("\"sh-port\" is not a flag of the scheduler mh (known: mh-fallback, mh-port, flag-3)"
                .to_owned())
        );
    }
}

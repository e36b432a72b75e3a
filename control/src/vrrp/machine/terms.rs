//! What a machine is told, does and is: its settings, events, actions, states and their reasons.

use std::net::IpAddr;

use lb_config::{Vrrp, VrrpStart, VrrpVersion};

/// State of a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not begun, or ended.
    Init,
    /// Another director is master, or nobody yet.
    Backup,
    /// It speaks as master, and waits for the addresses.
    Taking,
    /// This director has the addresses.
    Master,
    /// Something that is tracked is down: it takes no part.
    Fault,
}

impl State {
    /// As in `lbctl vrrp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Backup => "backup",
            Self::Taking => "taking",
            Self::Master => "master",
            Self::Fault => "fault",
        }
    }

    /// As programs are told, see keepalived.conf(5).
    pub const fn word(self) -> &'static str {
        match self {
            Self::Init => "STOP",
            Self::Backup => "BACKUP",
            Self::Taking => "TAKING",
            Self::Master => "MASTER",
            Self::Fault => "FAULT",
        }
    }
}

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Version.
    pub version: VrrpVersion,
    /// Configured priority.
    pub priority: u8,
    /// Configured time between adverts, ns.
    pub interval_ns: u64,
    /// Where adverts come from: decides between equal priorities.
    pub source: IpAddr,
    /// Behaviour at the start.
    pub start: VrrpStart,
    /// A higher priority takes over.
    pub preempt: bool,
    /// How long it waits with that, ns.
    pub preempt_delay_ns: u64,
    /// See [`Vrrp::handover_wait`], ns.
    pub handover_ns: u64,
    /// The addresses depend on a lease: [`Event::Granted`] opens them, and nothing else.
    pub leased: bool,
    /// Intervals after which the master is gone.
    pub down_adverts: u64,
    /// See [`Vrrp::timer_expired_backup`].
    pub timer_expired_backup: bool,
    /// See [`Vrrp::lower_prio_no_advert`].
    pub lower_prio_no_advert: bool,
    /// See [`Vrrp::higher_prio_send_advert`].
    pub higher_prio_send_advert: bool,
    /// See [`Vrrp::owner_ignore_adverts`].
    pub owner_ignore_adverts: bool,
}

impl Settings {
    /// Those of an instance whose adverts come from `source` and that depends on no lease.
    pub fn new(vrrp: &Vrrp, source: IpAddr) -> Self {
        let ns = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            version: vrrp.version,
            priority: vrrp.priority,
            interval_ns: ns(vrrp.advert_interval),
            source,
            start: vrrp.state,
            preempt: vrrp.preempt,
            preempt_delay_ns: ns(vrrp.preempt_delay),
            handover_ns: ns(vrrp.handover_wait),
            leased: false,
            down_adverts: vrrp.down_timer_adverts.into(),
            timer_expired_backup: vrrp.timer_expired_backup,
            lower_prio_no_advert: vrrp.lower_prio_no_advert,
            higher_prio_send_advert: vrrp.higher_prio_send_advert,
            owner_ignore_adverts: vrrp.owner_ignore_adverts,
        }
    }
}

/// An advert that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Where it came from.
    pub source: IpAddr,
    /// Its priority.
    pub priority: u8,
    /// Its interval, ns.
    pub interval_ns: u64,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It begins, or what was down is up again.
    Startup,
    /// It ends.
    Shutdown,
    /// Something that is tracked is down.
    Fail,
    /// Time has passed.
    Timer,
    /// An advert came.
    Advert(Heard),
    /// The priority is another one now, by what is tracked.
    Priority(u8),
    /// The BFD session with this director ended.
    Lost(IpAddr),
    /// It ended, or adverts may have been missed, while this director was held up: others may have taken over.
    Waver,
    /// Another instance of its group is to be master.
    Take,
    /// Another instance of its group has its addresses: whoever was master of the group has let go.
    Settled,
    /// Another instance of its group is backup.
    Yield,
    /// It holds the lease, and may have the addresses from this time on, ns.
    Granted(u64),
    /// It does not hold the lease any more.
    Revoked,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an advert with this priority.
    Send(u8),
    /// It is in this state from now on.
    Enter(State),
    /// A master heard an advert of lower priority, which it answered or not.
    Lower,
    /// Tell the one whose advert was heard last, and nobody else, that the addresses are not here any more.
    Bye,
}

/// Why a machine is in its state, as far as it knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has not begun.
    New,
    /// It has begun.
    Begun,
    /// Nothing that is tracked is down any more.
    Mended,
    /// It has ended.
    Ended,
    /// Something that is tracked is down.
    Fault,
    /// With priority 255 the addresses are its own.
    Owner,
    /// No master was heard for this time, ns.
    Silent(u64),
    /// The master of this address said good-bye.
    Bye(IpAddr),
    /// The master of this address has this lower priority.
    Above(IpAddr, u8),
    /// Another director comes first, with this priority, which is higher, or the same at a higher address.
    Below(IpAddr, u8),
    /// The BFD session with this director ended.
    Lost(IpAddr),
    /// It was held up for this time, ns, and listens first.
    Late(u64),
    /// It was held up for this time, ns, and this director is master meanwhile.
    Replaced(u64, IpAddr),
    /// See [`Event::Waver`].
    Wavers,
    /// Another instance of its group changed.
    Group,
    /// It does not hold the lease any more.
    Revoked,
}

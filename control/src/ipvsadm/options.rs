//! ipvsadm's commands and options, and which go together.
//!
//! Source: ipvsadm(8) of 1.31; the messages of the recording `errors.json`.

use super::errors::Usage;
use super::popt::{Spec, Takes};

/// A command. The order is that of the rows of [`RULES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    AddService,
    EditService,
    DeleteService,
    Flush,
    List,
    AddServer,
    DeleteServer,
    EditServer,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    Restore,
    Save,
    Zero,
}

/// An option that may be given once. The order is that of the columns of [`RULES`], and of the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    Upper,
    Lower,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedulerFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxLen,
    TunInfo,
    TunType,
    TunPort,
    TunNoCsum,
    TunCsum,
    TunRemCsum,
}

/// All options with the names that faults give them.
const OPTIONS: [(Opt, &str); 34] = [
    (Opt::Numeric, "numeric"),
    (Opt::Connection, "connection"),
    (Opt::Service, "service-address"),
    (Opt::Scheduler, "scheduler"),
    (Opt::Persistent, "persistent"),
    (Opt::Netmask, "netmask"),
    (Opt::Server, "real-server"),
    (Opt::Forward, "forwarding-method"),
    (Opt::Weight, "weight"),
    (Opt::Upper, "u-threshold"),
    (Opt::Lower, "l-threshold"),
    (Opt::McastInterface, "mcast-interface"),
    (Opt::Timeout, "timeout"),
    (Opt::Daemon, "daemon"),
    (Opt::Stats, "stats"),
    (Opt::Rate, "rate"),
    (Opt::Thresholds, "thresholds"),
    (Opt::PersistentConn, "persistent-conn"),
    (Opt::NoSort, "nosort"),
    (Opt::SyncId, "syncid"),
    (Opt::Exact, "exact"),
    (Opt::OnePacket, "ops"),
    (Opt::Engine, "pe"),
    (Opt::SchedulerFlags, "sched-flags"),
    (Opt::McastGroup, "mcast-group"),
    (Opt::McastPort, "mcast-port"),
    (Opt::McastTtl, "mcast-ttl"),
    (Opt::SyncMaxLen, "sync-maxlen"),
    (Opt::TunInfo, "tun-info"),
    (Opt::TunType, "tun-type"),
    (Opt::TunPort, "tun-port"),
    (Opt::TunNoCsum, "tun-nocsum"),
    (Opt::TunCsum, "tun-csum"),
    (Opt::TunRemCsum, "tun-remcsum"),
];

impl Command {
    /// Its name in faults, then what it does with each option (see [`OPTIONS`]): `+` needs it, `1` takes one of
    /// these, a blank takes it, `x` refuses it.
    #[rustfmt::skip]
    fn rules(self) -> (&'static str, &'static str) {
        //                                 n c S s p M r f w x y m t d s r t p n s e o p b g p t l i t p n c r
        match self {
            Self::AddService    => ("add-service",    "xx+   xxxxxxxxxxxxxxx   xxxxxxxxxx"),
            Self::EditService   => ("edit-service",   "xx+   xxxxxxxxxxxxxxx   xxxxxxxxxx"),
            Self::DeleteService => ("delete-service", "xx+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            Self::Flush         => ("flush",          "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            Self::List          => ("list",           " 11xxxxxxxxx11       xxxxxxx xxxxx"),
            Self::AddServer     => ("add-server",     "xx+xxx+    xxxxxxxxxxxxxxxxxx     "),
            Self::DeleteServer  => ("delete-server",  "xx+xxx+xxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            Self::EditServer    => ("edit-server",    "xx+xxx+    xxxxxxxxxxxxxxxxxx     "),
            Self::SetTimeouts   => ("set",            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            Self::StartDaemon   => ("start-daemon",   "xxxxxxxxxxx xxxxxxx xxxx    xxxxxx"),
            Self::StopDaemon    => ("stop-daemon",    "xxxxxxxxxxxxxxxxxxx xxxxxxxxxxxxxx"),
            Self::Restore       => ("restore",        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            Self::Save          => ("save",           " xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            Self::Zero          => ("zero",           "xx xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        }
    }
}

/// The options that were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given(u64);

impl Given {
    pub fn has(self, opt: Opt) -> bool {
        self.0 & 1 << opt as u32 != 0
    }

    pub fn any(self, opts: &[Opt]) -> bool {
        opts.iter().any(|opt| self.has(*opt))
    }

    /// Errors: it was given before.
    pub fn add(&mut self, opt: Opt) -> Result<(), Usage> {
        if self.has(opt) {
            return Err(Usage::wrong(format!("multiple '{}' options specified", name(opt))));
        }
        self.0 |= 1 << opt as u32;
        Ok(())
    }

    /// Errors: `command` needs an option that is missing or refuses one that is there.
    pub fn check(self, command: Command) -> Result<(), Usage> {
        let (command, rules) = command.rules();
        let mut exclusive = None;
        for ((opt, option), rule) in OPTIONS.into_iter().zip(rules.chars()) {
            let message = match (self.has(opt), rule) {
                (false, '+') => {
                    format!("You need to supply the '{option}' option for the '{command}' command")
                }
                (true, 'x') => format!("Illegal '{option}' option with the '{command}' command"),
                (true, '1') => match exclusive.replace(option) {
                    None => continue,
                    Some(first) => format!(
                        "The option '{option}' conflicts with the '{first}' option in the '{command}' command"
                    ),
                },
                _ => continue,
            };
            return Err(Usage::wrong(message));
        }
        Ok(())
    }

    /// Errors: the tunnel type of this name needs an option that is missing or refuses one that is there.
    pub fn check_tunnel(self, kind: &str) -> Result<(), Usage> {
        let rules = match kind {
            "gue" => "+111",
            "gre" => "x11x",
            _ => "xxxx",
        };
        let mut exclusive = None;
        for (opt, rule) in
            [Opt::TunPort, Opt::TunNoCsum, Opt::TunCsum, Opt::TunRemCsum].into_iter().zip(rules.chars())
        {
            let option = name(opt);
            let message = match (self.has(opt), rule) {
                (false, '+') => {
                    format!("You need to supply the '{option}' option for the '{kind}' tunnel type")
                }
                (true, 'x') => format!("Illegal '{option}' option with the '{kind}' tunnel type"),
                (true, '1') => match exclusive.replace(option) {
                    None => continue,
                    Some(first) => format!(
                        "The option '{option}' conflicts with the '{first}' option in the '{kind}' tunnel type"
                    ),
                },
                _ => continue,
            };
            return Err(Usage::wrong(message));
        }
        Ok(())
    }
}

fn name(opt: Opt) -> &'static str {
    OPTIONS.iter().find(|(known, _)| *known == opt).map_or("", |(_, name)| name)
}

/// What a word of the command line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// A command; only the first option is one.
    Command(Command),
    Help,
    Version,
    /// An option without an argument that is only noted.
    Flag(Opt),
    /// `-t`, `-u`, `--sctp-service` with their protocol.
    Service(u8),
    Mark,
    Ipv6,
    Sort,
    /// An option that the parser looks at.
    Value(Opt),
    Masq,
    Tunnel,
    Route,
}

const fn plain(long: &'static str, short: Option<char>, tag: Tag) -> Spec<Tag> {
    Spec { long, short, takes: Takes::Nothing, tag }
}

const fn with(long: &'static str, short: Option<char>, tag: Tag) -> Spec<Tag> {
    Spec { long, short, takes: Takes::Argument, tag }
}

/// The words.
pub(super) const SPECS: &[Spec<Tag>] = &[
    plain("add-service", Some('A'), Tag::Command(Command::AddService)),
    plain("edit-service", Some('E'), Tag::Command(Command::EditService)),
    plain("delete-service", Some('D'), Tag::Command(Command::DeleteService)),
    plain("clear", Some('C'), Tag::Command(Command::Flush)),
    plain("list", Some('L'), Tag::Command(Command::List)),
    plain("list", Some('l'), Tag::Command(Command::List)),
    plain("zero", Some('Z'), Tag::Command(Command::Zero)),
    plain("add-server", Some('a'), Tag::Command(Command::AddServer)),
    plain("edit-server", Some('e'), Tag::Command(Command::EditServer)),
    plain("delete-server", Some('d'), Tag::Command(Command::DeleteServer)),
    plain("set", None, Tag::Command(Command::SetTimeouts)),
    plain("help", Some('h'), Tag::Help),
    plain("version", Some('v'), Tag::Version),
    plain("restore", Some('R'), Tag::Command(Command::Restore)),
    plain("save", Some('S'), Tag::Command(Command::Save)),
    with("start-daemon", None, Tag::Command(Command::StartDaemon)),
    with("stop-daemon", None, Tag::Command(Command::StopDaemon)),
    with("tcp-service", Some('t'), Tag::Service(super::table::TCP)),
    with("udp-service", Some('u'), Tag::Service(super::table::UDP)),
    with("sctp-service", None, Tag::Service(super::table::SCTP)),
    with("fwmark-service", Some('f'), Tag::Mark),
    with("scheduler", Some('s'), Tag::Value(Opt::Scheduler)),
    Spec {
        long: "persistent",
        short: Some('p'),
        takes: Takes::OptionalArgument,
        tag: Tag::Value(Opt::Persistent),
    },
    with("netmask", Some('M'), Tag::Value(Opt::Netmask)),
    with("real-server", Some('r'), Tag::Value(Opt::Server)),
    plain("masquerading", Some('m'), Tag::Masq),
    plain("ipip", Some('i'), Tag::Tunnel),
    plain("gatewaying", Some('g'), Tag::Route),
    with("weight", Some('w'), Tag::Value(Opt::Weight)),
    with("u-threshold", Some('x'), Tag::Value(Opt::Upper)),
    with("l-threshold", Some('y'), Tag::Value(Opt::Lower)),
    plain("numeric", Some('n'), Tag::Flag(Opt::Numeric)),
    plain("connection", Some('c'), Tag::Flag(Opt::Connection)),
    with("mcast-interface", None, Tag::Value(Opt::McastInterface)),
    with("syncid", None, Tag::Value(Opt::SyncId)),
    plain("timeout", None, Tag::Flag(Opt::Timeout)),
    plain("daemon", None, Tag::Flag(Opt::Daemon)),
    plain("stats", None, Tag::Flag(Opt::Stats)),
    plain("rate", None, Tag::Flag(Opt::Rate)),
    plain("thresholds", None, Tag::Flag(Opt::Thresholds)),
    plain("persistent-conn", None, Tag::Flag(Opt::PersistentConn)),
    plain("nosort", None, Tag::Flag(Opt::NoSort)),
    plain("sort", None, Tag::Sort),
    plain("exact", Some('X'), Tag::Flag(Opt::Exact)),
    plain("ipv6", Some('6'), Tag::Ipv6),
    plain("ops", Some('o'), Tag::Flag(Opt::OnePacket)),
    with("pe", None, Tag::Value(Opt::Engine)),
    with("sched-flags", Some('b'), Tag::Value(Opt::SchedulerFlags)),
    with("mcast-group", None, Tag::Value(Opt::McastGroup)),
    with("mcast-port", None, Tag::Value(Opt::McastPort)),
    with("mcast-ttl", None, Tag::Value(Opt::McastTtl)),
    with("sync-maxlen", None, Tag::Value(Opt::SyncMaxLen)),
    plain("tun-info", None, Tag::Flag(Opt::TunInfo)),
    with("tun-type", None, Tag::Value(Opt::TunType)),
    with("tun-port", None, Tag::Value(Opt::TunPort)),
    plain("tun-nocsum", None, Tag::Flag(Opt::TunNoCsum)),
    plain("tun-csum", None, Tag::Flag(Opt::TunCsum)),
    plain("tun-remcsum", None, Tag::Flag(Opt::TunRemCsum)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_rule_for_every_option() {
        for spec in SPECS {
            if let Tag::Command(command) = spec.tag {
                assert_eq!(command.rules().1.len(), OPTIONS.len(), "{}", spec.long);
            }
        }
        assert!(OPTIONS.iter().enumerate().all(|(at, (opt, _))| *opt as usize == at));
    }

    #[test]
    fn tunnel_options_go_with_their_type() {
        let given = |opts: &[Opt]| {
            let mut given = Given::default();
            opts.iter().for_each(|opt| given.add(*opt).unwrap());
            given
        };
        let message = |opts: &[Opt], kind| given(opts).check_tunnel(kind).map_err(|usage| usage.message);
        assert_eq!(message(&[Opt::TunPort, Opt::TunRemCsum], "gue"), Ok(()));
        assert_eq!(message(&[Opt::TunCsum], "gre"), Ok(()));
        assert_eq!(message(&[], "ipip"), Ok(()));
        assert_eq!(
            message(&[], "gue"),
            Err("You need to supply the 'tun-port' option for the 'gue' tunnel type".into())
        );
        assert_eq!(
            message(&[Opt::TunCsum], "ipip"),
            Err("Illegal 'tun-csum' option with the 'ipip' tunnel type".into())
        );
        assert_eq!(
            message(&[Opt::TunNoCsum, Opt::TunCsum], "gre"),
            Err("The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gre' tunnel type"
                .into())
        );
    }
}

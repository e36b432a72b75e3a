//! The recordings of ipvsadm on a Linux 6.1 that need no traffic, replayed on a table in memory.

use serde::Deserialize;

use super::*;

const SERVICES: &str = "tcpmux 1/tcp\necho 7/tcp\ndiscard 9/tcp\nsystat 11/tcp\ndaytime 13/tcp\nhttp 80/tcp\n\
    https 443/tcp\nhttp-alt 8080/tcp\ndomain 53/tcp\ndomain 53/udp\nsip 5060/udp\nmdns 5353/udp\n";

fn names() -> Names {
    Names::new("127.0.0.1 localhost\n", SERVICES)
}

#[derive(Deserialize)]
struct Recording {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    cmd: Option<String>,
    #[serde(default)]
    rc: u8,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
}

fn recording(name: &str) -> Vec<Step> {
    let path = format!("{}/../tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str::<Recording>(&text).unwrap().steps
}

fn typed(host: &mut dyn Host, line: &str, stdin: &str) -> Output {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    run_with(&args, &mut stdin.as_bytes(), host, &names())
}

/// A configuration that no director runs: what the rules for files make of each command.
struct ModelHost(lb_config::Model);

impl Host for ModelHost {
    fn table(&mut self) -> Result<Table, HostError> {
        Ok(Table::of(&self.0))
    }
    fn store(&mut self, table: &Table) -> Result<(), HostError> {
        let model = table.model(&self.0)?;
        lb_config::edit::validate(&model).map_err(|error| HostError::Refused(error.to_string()))?;
        self.0 = model;
        Ok(())
    }
    fn counters(&mut self) -> Result<Vec<ServiceCounters>, HostError> {
        Ok(Vec::new())
    }
    fn connections(&mut self) -> Result<Vec<Connection>, HostError> {
        Ok(Vec::new())
    }
    fn zero(&mut self, _: Option<&Address>) -> Result<(), HostError> {
        Ok(())
    }
}

/// Replays a recording; returns how many commands it held that were plain ipvsadm.
fn replay(name: &str, meant: &[&str]) -> usize {
    replay_on(&mut MemoryHost::default(), name, meant, &[])
}

/// `absent`: marks of lines that are not listed, because what they show was refused.
fn replay_on(host: &mut dyn Host, name: &str, meant: &[&str], absent: &[&str]) -> usize {
    let (mut count, mut wrong) = (0, Vec::new());
    for step in recording(name) {
        let Some(cmd) = step.cmd else { continue };
        if cmd.starts_with("for s in rr wrr") {
            let all = "rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos";
            for (port, scheduler) in (1..).zip(all.split(' ')) {
                let line = format!("-A -t 10.0.1.1:{port} -s {scheduler}");
                assert_eq!(typed(host, &line, "").code, 0, "{line}");
            }
        }
        let Some(line) = cmd.strip_prefix("ipvsadm").filter(|line| !line.contains([';', '|', '>'])) else {
            continue;
        };
        count += 1;
        let got = typed(host, line, "");
        let listed = |line: &&str| !absent.iter().any(|mark| line.contains(mark));
        let stdout = step.stdout.split_inclusive('\n').filter(listed).collect();
        let want = Output { code: step.rc, stdout, stderr: step.stderr };
        if (got != want) != meant.contains(&cmd.as_str()) {
            wrong.push(format!("$ {cmd}\nwant {want:#?}\ngot {got:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} differ\n{}", wrong.len(), wrong.join("\n"));
    count
}

#[test]
fn an_empty_table_is_listed_as_recorded() {
    assert!(replay("listing-empty", &[]) > 20);
}

#[test]
fn every_fault_is_answered_as_recorded() {
    assert!(replay("errors", &[]) > 120);
}

#[test]
fn every_kind_of_service_and_server_is_listed_as_recorded() {
    // Thresholds follow the rules in comments.
    assert!(replay("listing-kinds", &["ipvsadm -Sn", "ipvsadm -S"]) > 80);
}

const BASE: &str = r#"
[[ports]]
name = "lan"
device = "null"
addresses = ["10.0.0.1/24", "fd00:a::1/64"]
gateway = ["10.0.0.254", "fd00:a::fe"]
"#;

/// Commands that the kernel takes and the rules for files refuse, and what shows of that later on.
const ERRORS_THAT_DIFFER: [&str; 13] = [
    // A service without a scheduler never takes a connection.
    "ipvsadm -A -t 10.0.0.100:80 -s none",
    "ipvsadm -D -t 10.0.0.100:80",
    // 0.0.0.24, which nobody means.
    "ipvsadm -A -t 10.0.0.93:80 -s rr -p 5 -M 24",
    "ipvsadm -A -t 10.0.0.93:80 -s rr -p 5 -M 255.0.255.0",
    // There is no persistence engine.
    "ipvsadm -A -t 10.0.0.91:80 -s rr --pe sip",
    "ipvsadm -A -u 10.0.0.91:5060 -s rr --pe sip",
    "ipvsadm -Ln --stats --rate",
    "ipvsadm -Ln --stats --thresholds",
    "ipvsadm -Ln --rate --persistent-conn",
    // Timeouts end at 18 h.
    "ipvsadm --set 2147483 0 0",
    "ipvsadm -L --timeout",
    // ipvsadm(8): 0 to 65535.
    "ipvsadm -a -t 10.0.0.100:80 -r 10.0.0.22:80 -w 65536",
    "ipvsadm -a -t 10.0.0.100:80 -r 10.0.0.23:80 -w 2147483647",
];

#[test]
fn the_configuration_takes_what_the_kernel_takes() {
    let host = || ModelHost(lb_config::parse(BASE).unwrap());
    replay_on(&mut host(), "errors", &ERRORS_THAT_DIFFER, &[]);
    // Servers on the director itself are not offered yet.
    let local = "ipvsadm -a -t 10.0.0.100:80 -r 10.0.0.1:8081 -g -w 4";
    let loopback = "ipvsadm -a -t 10.0.0.100:80 -r 127.0.0.1:80 -m -w 5";
    let sip = "ipvsadm -A -u 10.0.0.108:5060 -s rr -p 60 --pe sip";
    let refused = [local, loopback, sip, "ipvsadm -S", "ipvsadm -Sn"];
    replay_on(
        &mut host(),
        "listing-kinds",
        &refused,
        &["10.0.0.1:", "127.0.0.1:", "localhost:", "10.0.0.108:"],
    );
}

const RULES: &str = "-A -t 10.0.0.1:80 -s wrr -p 60 -M 255.255.255.0
-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 3
-a -t 10.0.0.1:80 -r 10.1.0.2:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum
-A -u 10.0.0.1:53 -s sh -o -b sh-port
-A -f 4294967295 -6 -s maglev
# sluice: -e -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 3 -x 9 -y 5
# sluice: --set 100 120 7
";

#[test]
fn saving_and_restoring_loses_nothing() {
    let mut host = MemoryHost::default();
    let restored = typed(&mut host, "-R", RULES);
    assert_eq!(restored, Output::default());
    let saved = typed(&mut host, "-Sn", "").stdout;
    // Marks above 2^31-1 sort as negative numbers.
    let mut lines: Vec<&str> = RULES.lines().collect();
    let mark = lines.remove(4);
    lines.insert(0, mark);
    assert_eq!(saved.lines().collect::<Vec<_>>(), lines);
    assert_eq!(host.table.timeouts, table::Timeouts { tcp: 100, tcp_fin: 120, udp: 7 });

    let mut other = MemoryHost::default();
    assert_eq!(typed(&mut other, "-R", &saved), Output::default());
    assert_eq!(typed(&mut other, "-Sn", "").stdout, saved);
}

#[test]
fn a_rule_file_with_a_fault_changes_nothing() {
    let mut host = MemoryHost::default();
    assert_eq!(typed(&mut host, "-R", RULES).code, 0);
    let before = host.table.clone();
    for (text, code, stderr) in [
        (
            "-C\n-A -t 10.0.0.2:80\n-A -t 10.0.0.2:80 -s rr\n-A -t 10.0.0.3:80\n",
            255,
            "Service already exists\nnothing was restored, because of line 3: -A -t 10.0.0.2:80 -s rr\n",
        ),
        ("-C\n-A -t 10.0.0.2:80 -w 1\n", 2, "Illegal 'weight' option with the 'add-service' command\n"),
        ("-C\n-R\n", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"),
        ("-D -f 9\n", 255, "No such service\nnothing was restored, because of line 1: -D -f 9\n"),
    ] {
        let got = typed(&mut host, "-R", text);
        assert_eq!((got.code, got.stderr.as_str()), (code, stderr));
        assert_eq!(host.table, before);
    }
    // What is listed in between is what the file has done so far.
    let got = typed(&mut host, "-R", "-C\n-L --timeout\n-A -t 10.0.0.2:80\n-Sn\n");
    assert_eq!(
        got.stdout,
        "Timeout (tcp tcpfin udp): 100 120 7\n-A -t 10.0.0.2:80 -s wlc\n# sluice: --set 100 120 7\n"
    );
}

/// A table that others change now and then.
#[derive(Default)]
struct Contested {
    inner: MemoryHost,
    conflicts: u32,
}

impl Host for Contested {
    fn table(&mut self) -> Result<Table, HostError> {
        self.inner.table()
    }
    fn store(&mut self, table: &Table) -> Result<(), HostError> {
        if self.conflicts == 0 {
            return self.inner.store(table);
        }
        self.conflicts -= 1;
        self.inner.table.timeouts.udp += 1;
        Err(HostError::Conflict)
    }
    fn counters(&mut self) -> Result<Vec<ServiceCounters>, HostError> {
        self.inner.counters()
    }
    fn connections(&mut self) -> Result<Vec<Connection>, HostError> {
        self.inner.connections()
    }
    fn zero(&mut self, service: Option<&Address>) -> Result<(), HostError> {
        self.inner.zero(service)
    }
}

#[test]
fn a_change_by_somebody_else_is_not_lost() {
    let mut host = Contested { conflicts: 3, ..Contested::default() };
    let args: Vec<String> = ["-A", "-t", "10.0.0.1:80"].map(str::to_owned).into();
    assert_eq!(run_with(&args, &mut std::io::empty(), &mut host, &names()), Output::default());
    assert_eq!((host.inner.table.timeouts.udp, host.inner.table.services.len()), (303, 1));
    host.conflicts = 100;
    let args: Vec<String> = ["-C"].map(str::to_owned).into();
    assert_eq!(run_with(&args, &mut std::io::empty(), &mut host, &names()).code, 255);
}

#[test]
fn wrong_options_are_refused() {
    let mut host = MemoryHost::default();
    for (line, code, stderr) in [
        ("--start-daemon", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"),
        ("--start-daemon chief", 2, "illegal start-daemon parameter specified\n"),
        ("--start-daemon master --syncid 256", 2, "illegal syncid specified\n"),
        ("--start-daemon master --mcast-group 10.0.0.1", 2, "invalid IPv4 mcast-group `10.0.0.1'\n"),
        ("--start-daemon master --mcast-ttl 0", 2, "illegal mcast-ttl specified\n"),
        ("--stop-daemon master", 255, "No daemon is running\n"),
        ("-a -t 10.0.0.1:80 -r 10.0.0.2 --tun-type ipip", 2, "Tunnel options conflict with forward method\n"),
        (
            "-a -t 10.0.0.1:80 -r fd00::2",
            2,
            "Different address family is allowed only for tunneling servers\n",
        ),
        ("-Lx", 255, "-Lx: missing argument\n"),
        ("-L --stats=1", 255, "--stats=1: option does not take an argument\n"),
    ] {
        let got = typed(&mut host, line, "");
        assert_eq!((got.code, got.stderr.as_str()), (code, stderr), "{line}");
    }
}

#[test]
fn sync_daemons_are_started_listed_saved_and_stopped() {
    let mut host = MemoryHost::default();
    let mut say = |line: &str, stdin: &str| {
        let Output { code, stdout, stderr } = typed(&mut host, line, stdin);
        (code, stdout + &stderr)
    };
    let done = (0, String::new());
    assert_eq!(say("-L --daemon", ""), done);
    assert_eq!(say("--start-daemon backup --mcast-interface eth1 --syncid 7", ""), done);
    assert_eq!(say("--start-daemon backup", ""), (255, "Daemon has already run\n".to_owned()));
    assert_eq!(
        say(
            "--start-daemon master --mcast-interface eth2 --mcast-group ff02::81 --mcast-port 9 --mcast-ttl 2",
            ""
        ),
        done
    );
    let listed = "master sync daemon (mcast=eth2, syncid=0, maxlen=1452, group=ff02::81, port=9, ttl=2)\n\
                  backup sync daemon (mcast=eth1, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n";
    assert_eq!(say("-L --daemon", ""), (0, listed.to_owned()));
    // -C ends none, and what -S saved replaces what runs
    let (_, saved) = say("-S -n", "");
    assert_eq!(
        saved.lines().filter(|line| line.starts_with("# sluice: --start-daemon ")).count(),
        2,
        "{saved}"
    );
    assert_eq!(say("--stop-daemon master", ""), done);
    assert_eq!(say("--start-daemon master --mcast-interface eth9", ""), done);
    assert_eq!(say("-C", ""), done);
    assert_eq!(say("-R", &saved), done);
    assert_eq!(say("-L --daemon", ""), (0, listed.to_owned()));
    // a plain rule is refused, as each of the kernel's is
    assert_eq!(say("-R", "--start-daemon master\n").0, 255);
    for state in ["master", "backup"] {
        assert_eq!(say(&format!("--stop-daemon {state}"), ""), done);
        assert_eq!(say(&format!("--stop-daemon {state}"), ""), (255, "No daemon is running\n".to_owned()));
    }
    assert_eq!(say("-L --daemon", ""), done);
}

#[test]
fn connections_are_listed_with_names_and_templates() {
    struct Lively(MemoryHost);
    impl Host for Lively {
        fn table(&mut self) -> Result<Table, HostError> {
            self.0.table()
        }
        fn store(&mut self, table: &Table) -> Result<(), HostError> {
            self.0.store(table)
        }
        fn counters(&mut self) -> Result<Vec<ServiceCounters>, HostError> {
            self.0.counters()
        }
        fn connections(&mut self) -> Result<Vec<Connection>, HostError> {
            let address = |text: &str| text.parse::<IpAddr>().unwrap();
            let row = Connection {
                protocol: table::TCP,
                expires_s: 899,
                state: "ESTABLISHED".into(),
                client: (address("10.0.0.10"), 40002),
                virtual_address: (address("10.0.0.100"), 80),
                destination: (address("10.1.0.12"), 8080),
                engine: None,
            };
            let template = Connection {
                protocol: 0,
                expires_s: 90,
                state: "ASSURED".into(),
                client: (address("10.0.0.10"), 0),
                virtual_address: (address("0.0.0.7"), 0),
                destination: (address("10.1.0.13"), 0),
                engine: None,
            };
            let sip = Connection { engine: Some(("sip".into(), "call".into())), ..row.clone() };
            Ok(vec![row, template, sip])
        }
        fn zero(&mut self, service: Option<&Address>) -> Result<(), HostError> {
            self.0.zero(service)
        }
    }
    let mut host = Lively(MemoryHost::default());
    let mut list = |line: &str| {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        run_with(&args, &mut std::io::empty(), &mut host, &names()).stdout
    };
    let head =
        "IPVS connection entries\npro expire state       source             virtual            destination";
    let row = "TCP 14:59  ESTABLISHED 10.0.0.10:40002    10.0.0.100:80      10.1.0.12:8080";
    let template = "IP  01:30  ASSURED     10.0.0.10:0        0.0.0.7:0          10.1.0.13:0";
    assert_eq!(list("-Lnc"), format!("{head}\n{row}\n{template}\n{row}\n"));
    assert_eq!(
        list("-Lnc --persistent-conn"),
        format!(
            "{head}        pe name          pe_data\n{row}\n{template}\n{row}   sip                call\n"
        )
    );
    assert_eq!(
        list("-Lc").lines().nth(2),
        Some("TCP 14:59  ESTABLISHED 10.0.0.10:40002    10.0.0.100:http    10.1.0.12:http-alt")
    );
}

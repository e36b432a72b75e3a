//! Rule files of ipvsadm as a configuration.

use lb_config::{duration, ipvs_sync_to_toml, services_to_toml};
use thiserror::Error;

use super::table::Timeouts;
use super::{Names, PROGRAM, Table, edit, edits, parse, restore};

/// Why a rule file is no configuration; every fault, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.join("\n"))]
pub struct ImportError(pub Vec<String>);

/// Turns what `ipvsadm -S` wrote (or a script of ipvsadm's commands) into the services of a configuration file.
///
/// Lines may begin with the program's name. Nothing is said of the ports, which rules do not know; the rules for
/// files are checked when the whole file is.
///
/// Errors: lines that ipvsadm would refuse, and services that this director cannot have.
pub fn import(text: &str, names: &Names) -> Result<String, ImportError> {
    let (mut table, mut faults) = (Table::default(), Vec::new());
    for mut line in restore::lines(text) {
        if line.words.first().is_some_and(|word| word.rsplit('/').next() == Some(PROGRAM)) {
            line.words.remove(0);
        }
        let done = match parse::parse(&line.words, names) {
            Ok(ask) if edits(&ask) => edit(&ask, &mut table).map_err(|error| error.to_string()),
            Ok(_) => Err(format!("is no rule: {}", line.words.join(" "))),
            Err(usage) => Err(usage.message),
        };
        faults.extend(done.err().map(|message| format!("line {}: {}", line.number, message.trim_end())));
    }
    let services = match table.services(&lb_config::Services::default()) {
        Ok(services) => services,
        Err(more) => {
            faults.extend(more);
            Vec::new()
        }
    };
    if !faults.is_empty() {
        return Err(ImportError(faults));
    }
    Ok(timeouts(table.timeouts) + &services_to_toml(&services) + &ipvs_sync_to_toml(&table.daemons))
}

/// The section of timeouts, with those that differ from the defaults.
fn timeouts(timeouts: Timeouts) -> String {
    let default = Timeouts::default();
    let mut text = String::new();
    for (key, value, default) in [
        ("tcp_established", timeouts.tcp, default.tcp),
        ("tcp_fin_wait", timeouts.tcp_fin, default.tcp_fin),
        ("udp", timeouts.udp, default.udp),
    ] {
        if value != default {
            let time = std::time::Duration::from_secs(value.into());
            text += &format!("{key} = \"{}\"\n", duration::format(time));
        }
    }
    if text.is_empty() { text } else { format!("[timeouts]\n{text}\n") }
}

#[cfg(test)]
mod tests {
    use lb_config::{IpvsSync, IpvsSyncState};

    use super::*;

    const PORTS: &str = "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"10.0.0.1/24\"]\ngateway = \"10.0.0.254\"\n";

    #[test]
    fn rules_become_services_that_a_configuration_takes() {
        let rules = "ipvsadm -C\n/sbin/ipvsadm -A -t 10.0.0.100:80 -s rr -p 60\n\
                     -a -t 10.0.0.100:80 -r 10.0.0.11 -g -w 3\n-a -t 10.0.0.100:80 -r 10.1.0.12:8080 -m\n\
                     # sluice: -e -t 10.0.0.100:80 -r 10.1.0.12:8080 -m -x 9\n# sluice: --set 0 5 0\n\
                     # sluice: --start-daemon backup --mcast-interface eth2 --syncid 7\n";
        let toml = import(rules, &Names::default()).unwrap();
        assert!(toml.starts_with("[timeouts]\ntcp_fin_wait = \"5s\"\n\n[[services]]\n"), "{toml}");
        let model = lb_config::parse(&format!("{PORTS}{toml}")).unwrap();
        let table = Table::of(&model);
        let daemon = IpvsSync { sync_id: 7, ..IpvsSync::new(IpvsSyncState::Backup, "eth2".to_owned()) };
        assert_eq!(table.daemons, [daemon]);
        assert_eq!((table.services[0].persistent, table.timeouts.tcp_fin), (Some(60), 5));
        let servers: Vec<_> = table.services[0]
            .servers
            .iter()
            .map(|s| (s.address.to_string(), s.port, s.weight, s.upper))
            .collect();
        assert_eq!(servers, [("10.1.0.12".to_owned(), 8080, 1, 9), ("10.0.0.11".to_owned(), 80, 3, 0)]);
        assert_eq!(
            import("-A -t 10.0.0.1:80 -s rr\n", &Names::default()).map(|t| t.contains("timeouts")),
            Ok(false)
        );
    }

    #[test]
    fn every_fault_of_a_rule_file_is_told() {
        let rules = "-A -t 10.0.0.100:80 -s rr\n-A -t 10.0.0.100:80 -s rr\n\n-A -s rr\n-L\n\
                     -A -u 10.0.0.100:80 -s rr -p --pe sip\n";
        assert_eq!(
            import(rules, &Names::default()).map_err(|e| e.to_string()),
            Err("line 2: Service already exists\n\
                 line 4: You need to supply the 'service-address' option for the 'add-service' command\n\
                 line 5: is no rule: -L\n\
                 service 10.0.0.100:80/udp: the persistence engine sip is not offered"
                .into())
        );
    }
}

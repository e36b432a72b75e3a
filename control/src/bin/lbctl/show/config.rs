//! Answers about the configuration and lbd itself.

use lb_control::api::{Changes, Version};

use crate::args::Command;

/// One line per change; says so when there is none.
pub fn changes(changes: &Changes, command: &Command) -> String {
    // Counters are no part of the configuration.
    if matches!(command, Command::Zero { .. }) {
        return String::new();
    }
    if changes.changes.is_empty() {
        return "no difference to the running configuration\n".to_owned();
    }
    let mut text: String = changes
        .changes
        .iter()
        .map(|change| {
            format!("{}{}\n", change.text, if change.needs_restart { "  (needs a restart)" } else { "" })
        })
        .collect();
    if matches!(command, Command::Apply { dry_run: true, .. }) {
        text += "dry run: nothing was changed\n";
    }
    text
}

/// The line for lbd; lbctl has printed its own already.
pub fn version(version: &Version) -> String {
    format!(
        "lbd {} (director {:?}, protocol {}, pid {}, up {})\n",
        version.version,
        version.name,
        version.protocol,
        version.pid,
        uptime(version.uptime_ms / 1000)
    )
}

/// Seconds as `3 d 04:05:06`.
fn uptime(seconds: u64) -> String {
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match seconds / 86_400 {
        0 => clock,
        days => format!("{days} d {clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_control::api::ChangeRow;

    #[test]
    fn changes_are_printed_one_a_line() {
        let change = |text: &str, needs_restart| ChangeRow { text: text.into(), needs_restart };
        let list = Changes {
            changes: vec![change("+ service web 192.168.150.100:80/tcp rr", false), change("~ limits", true)],
            warnings: vec![],
        };
        let diff = Command::Diff { file: "-".into() };
        assert_eq!(
            changes(&list, &diff),
            "+ service web 192.168.150.100:80/tcp rr\n~ limits  (needs a restart)\n"
        );
        assert_eq!(changes(&Changes::default(), &diff), "no difference to the running configuration\n");
    }

    #[test]
    fn a_dry_run_says_that_it_was_one() {
        let list = Changes {
            changes: vec![ChangeRow { text: "- service web".into(), needs_restart: false }],
            warnings: vec![],
        };
        let apply = Command::Apply { file: "-".into(), dry_run: true };
        assert_eq!(changes(&list, &apply), "- service web\ndry run: nothing was changed\n");
    }

    #[test]
    fn uptime_has_days_only_when_there_are_some() {
        assert_eq!(uptime(59), "00:00:59");
        assert_eq!(uptime(86_399), "23:59:59");
        assert_eq!(uptime(2 * 86_400 + 3661), "2 d 01:01:01");
    }
}

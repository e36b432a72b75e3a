//! The documented example is true: it parses, has every key, and states the real limits and defaults.

use crate::read::known_sections;
use crate::{Appliance, Limits, Policy, Timeouts, bounds, duration, fields, health, parse, to_toml};
use toml::Value;

const EXAMPLE: &str = include_str!("../../example.toml");

#[test]
fn the_example_is_valid() {
    let model = parse(EXAMPLE).unwrap();
    assert_eq!(model.ports.len(), 2);
    assert_eq!((model.services.len(), model.marks.len(), model.snat.len()), (6, 1, 1));
    assert_eq!(parse(&to_toml(&model)).unwrap(), model);
}

/// All tables of a document that a header such as `services.servers` names.
fn tables<'v>(root: &'v Value, header: &str) -> Vec<&'v Value> {
    header.split('.').filter(|key| !key.is_empty()).fold(vec![root], |level, key| {
        let below = level.into_iter().filter_map(|value| value.get(key));
        below.flat_map(|value| value.as_array().map_or_else(|| vec![value], |a| a.iter().collect())).collect()
    })
}

#[test]
fn every_key_the_reader_knows_is_in_the_example() {
    let example: Value = EXAMPLE.parse::<toml::Table>().unwrap().into();
    for (header, keys) in known_sections() {
        for key in keys {
            let present = tables(&example, header).iter().any(|table| table.get(key).is_some());
            assert!(present, "[{header}] {key}");
        }
    }
}

#[test]
fn every_key_the_reader_knows_is_read() {
    for (header, keys) in known_sections() {
        for key in keys {
            let mut example: Value = EXAMPLE.parse::<toml::Table>().unwrap().into();
            // No key takes a date: a key that is read complains.
            spoil(&mut example, header, key);
            let faults = parse(&toml::to_string(&example).unwrap()).expect_err(key);
            let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
            assert!(
                faults.iter().any(|f| last(&f.path) == key && f.message.ends_with("found a date or time")),
                "[{header}] {key}: {faults}"
            );
        }
    }
}

/// Puts a date under `key` in the first table of `header`.
fn spoil(value: &mut Value, header: &str, key: &str) {
    let steps: Vec<&str> = header.split('.').filter(|step| !step.is_empty()).collect();
    let table = first(value, &steps).expect(header);
    let date: toml::value::Datetime = "1979-05-27".parse().unwrap();
    table.as_table_mut().unwrap().insert(key.to_owned(), Value::Datetime(date));
}

/// The first table at the end of `steps`, whichever elements of the arrays on the way have it.
fn first<'v>(value: &'v mut Value, steps: &[&str]) -> Option<&'v mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| first(item, steps)),
        table => match steps {
            [] => Some(table),
            [step, rest @ ..] => first(table.get_mut(*step)?, rest),
        },
    }
}

/// The comment above the first `key = ` after `header`.
fn comment(header: &str, key: &str) -> String {
    let start = EXAMPLE.find(&format!("\n{header}\n")).expect(header);
    let at = start + EXAMPLE[start..].find(&format!("\n{key} = ")).expect(key);
    let above: Vec<&str> = EXAMPLE[..at].lines().rev().take_while(|line| line.starts_with('#')).collect();
    above.into_iter().rev().map(|line| line.trim_start_matches(['#', ' '])).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_example_states_the_real_limits_and_defaults() {
    let has = |header: &str, key: &str, want: String| {
        let comment = comment(header, key);
        assert!(comment.contains(&want), "[{header}] {key}: \"{want}\" is not in \"{comment}\"");
    };
    let range = |b: bounds::Bounds| format!("{} to {}", b.min, b.max);
    for field in &fields::LIMITS {
        has("[limits]", field.key, range(field.bounds));
        has("[limits]", field.key, format!("Default {}.", (field.get)(&Limits::default())));
    }
    for field in &fields::TIMEOUTS {
        let default = duration::format((field.get)(&Timeouts::default()));
        has("[timeouts]", field.key, format!("Default \"{default}\"."));
    }
    let appliance = Appliance::default();
    let at = "[appliance]";
    has(at, "name", format!("1 to {} characters", bounds::APPLIANCE_NAME_LEN));
    has(at, "name", format!("Default \"{}\".", appliance.name));
    has(at, "workers", range(bounds::CPU));
    has(at, "workers", range(bounds::WORKERS));
    has(at, "workers", format!("Default {:?}.", appliance.workers));
    has(at, "control_cpu", range(bounds::CPU));
    has(at, "huge_pages", format!("Default \"{}\".", appliance.huge_pages));
    has(at, "memory_mib", range(bounds::MEMORY_MIB));
    has(at, "memory_mib", format!("Default {}.", appliance.memory_mib));
    has(at, "idle", format!("Default \"{}\".", appliance.idle));
    has(at, "socket", format!("at most {} bytes", bounds::SOCKET_PATH_LEN));
    has(at, "socket", format!("Default \"{}\".", appliance.socket.display()));
    has(at, "socket_public_read", format!("Default {}.", appliance.socket_public_read));
    has(
        at,
        "cluster_secret",
        format!("{} to {} bytes", bounds::SECRET_LEN.start(), bounds::SECRET_LEN.end()),
    );
    let tables = crate::Tables::default();
    has("[tables]", "keep", format!("Default {}.", tables.keep));
    has("[tables]", "directory", format!("Default \"{}\".", tables.directory.display()));
    has("[tables]", "directory", format!("at most {} bytes", bounds::DIRECTORY_LEN));
    has("[[ports]]", "name", format!("1 to {} characters", bounds::NAME_LEN));
    has("[[ports]]", "vlan", range(bounds::VLAN));
    has("[[ports]]", "mtu", range(bounds::MTU));
    has("[[ports]]", "mtu", format!("at least {}", bounds::MTU_MIN_IPV6));
    has("[[ports]]", "mtu", format!("Default {}.", fields::DEFAULT_MTU));
    has("[[ports]]", "exception_interface", format!("1 to {} bytes", bounds::INTERFACE_NAME_LEN));
    has("[[ports]]", "exception_rate", range(bounds::EXCEPTION_RATE));
    has("[[ports]]", "exception_rate", format!("Default {}.", crate::DEFAULT_EXCEPTION_RATE));
    has("[[services]]", "port", range(bounds::SERVICE_PORT));
    has("[[services]]", "ports", range(bounds::L4_PORT));
    has("[[services]]", "mark", range(bounds::MARK));
    has("[[marks]]", "value", range(bounds::MARK));
    has("[[marks]]", "vlan", range(bounds::VLAN));
    assert!(EXAMPLE.contains(&format!("One table per rule, {} at most.", bounds::MARK_RULES)));
    has("[policy]", "conn_reuse_mode", range(bounds::CONN_REUSE_MODE));
    has("[policy]", "secure_tcp", range(bounds::SECURE_TCP));
    has("[policy]", "syn_flood", range(bounds::SYN_FLOOD));
    for (key, value) in Policy::default().entries() {
        has("[policy]", key, format!("Default {value}."));
    }
    has("[services.policy]", "mss", range(bounds::MSS));
    has("[services.policy]", "max_connections", range(bounds::SERVICE_CONNECTIONS));
    let (min, max) = (bounds::MIN_DRAIN, bounds::MAX_DRAIN);
    let days = max.as_secs() / 86_400;
    has("[[services.servers]]", "drain_deadline", format!("{} to {days} days", duration::format(min)));
    let policy = Policy::default().of(&super::small().services[0]);
    has("[services.policy]", "on_no_server", format!("Default \"{}\"", policy.on_no_server));
    has("[services.policy]", "on_server_down", format!("Default \"{}\"", policy.on_server_down));
    has("[services.policy]", "reuse", format!("Default \"{}\"", policy.reuse));
    has("[[services.servers]]", "weight", range(bounds::WEIGHT));
    has("[[services.servers]]", "weight", format!("Default {}.", fields::DEFAULT_WEIGHT));
    has("[[services.servers]]", "upper_threshold", range(bounds::THRESHOLD));
    has("[[services.servers]]", "lower_threshold", range(bounds::THRESHOLD));
    let (min, days) = (duration::format(bounds::MIN_CHECK_TIME), bounds::MAX_CHECK_TIME.as_secs() / 3600);
    for key in ["interval", "timeout", "retry_delay"] {
        has("[services.health]", key, format!("{min} to {days}h"));
    }
    has(
        "[services.health]",
        "interval",
        format!("Default \"{}\".", duration::format(health::DEFAULT_INTERVAL)),
    );
    has("[services.health]", "retries", range(bounds::RETRIES));
    has("[services.health]", "retries", format!("Default {};", health::DEFAULT_RETRIES));
    has("[services.health]", "quorum", range(bounds::QUORUM));
    has("[services.health]", "sorry_server", range(bounds::SORRY_WEIGHT));
    has("[services.health]", "assume", format!("Default \"{}\".", health::Assume::default()));
    has("[services.health]", "on_failure", format!("Default \"{}\".", health::OnFailure::default()));
    assert!(EXAMPLE.contains(&format!("asked, {} checks at most", bounds::CHECKS)));
    has("[[services]]", "persistence", range(bounds::PREFIX_IPV4));
    has("[[services]]", "persistence", range(bounds::PREFIX_IPV6));
    let (min, max) = (bounds::MIN_PERSISTENCE, bounds::MAX_PERSISTENCE);
    has(
        "[[services]]",
        "persistence",
        format!("{} to {} days", duration::format(min), max.as_secs() / 86_400),
    );
    let default = duration::format(fields::DEFAULT_PERSISTENCE);
    has("[[services]]", "persistence", format!("default \"{default}\""));
    for key in ["upper_threshold", "lower_threshold"] {
        has("[[services.servers]]", key, range(bounds::THRESHOLD));
        has("[[services.servers]]", key, "Default 0.".to_owned());
    }
    assert!(EXAMPLE.contains(&format!("One table per rule, {} at most.", bounds::SNAT_RULES)));
    has("[[snat]]", "name", format!("1 to {} characters", bounds::NAME_LEN));
    for (key, bounds) in [
        ("sync_id", bounds::IPVS_SYNC_ID),
        ("max_length", bounds::IPVS_SYNC_LENGTH),
        ("port", bounds::L4_PORT),
        ("ttl", bounds::TTL_SENT),
    ] {
        has("[[ipvs_sync]]", key, range(bounds));
    }
    let daemon = crate::IpvsSync::default();
    has("[[ipvs_sync]]", "sync_id", format!("Default {}.", daemon.sync_id));
    has("[[ipvs_sync]]", "max_length", format!("Default {},", daemon.max_length));
    has("[[ipvs_sync]]", "group", format!("Default \"{}\".", daemon.group));
    has("[[ipvs_sync]]", "port", format!("Default {}.", daemon.port));
    has("[[ipvs_sync]]", "ttl", format!("Default {}.", daemon.ttl));
    has("[[services]]", "client_address", format!("Default \"{}\".", crate::ClientAddress::default()));
    has("[[services]]", "maglev_size", format!("Default {}.", crate::MaglevSize::default()));
    for scheduler in crate::Scheduler::ALL {
        has("[[services]]", "scheduler", format!("\"{}\"", scheduler.name()));
    }
    let small = super::small();
    let service = small.services.first().unwrap();
    has("[[services]]", "protocol", format!("Default \"{}\".", service.protocol().unwrap()));
    has("[[services]]", "scheduler", format!("Default \"{}\".", service.scheduler));
    has("[[services]]", "forwarding", format!("Default \"{}\".", service.forwarding));
    has("[[services]]", "one_packet", format!("Default {}.", service.one_packet));
    let text = "250ms to 18h";
    let (min, max) = text.split_once(" to ").unwrap();
    assert_eq!(duration::parse(min), Ok(bounds::MIN_TIMEOUT));
    assert_eq!(duration::parse(max), Ok(bounds::MAX_TIMEOUT));
    assert_eq!(EXAMPLE.matches(text).count(), 3, "at both [timeouts] and at udp_activity");
}

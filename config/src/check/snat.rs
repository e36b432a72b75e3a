//! Checks of `[[snat]]`.

use super::full_nat::own;
use super::networks::Wire;
use super::servers::Site;
use super::{Firsts, names};
use crate::bounds::SNAT_RULES;
use crate::draft::{Draft, DraftSnat};
use crate::fault::Problems;
use crate::path::toml_path;
use crate::text::show;

/// Addresses of a rule.
const MOST: usize = 256;

pub(super) fn check(draft: &Draft, wire: &Wire<'_>, problems: &mut Problems) {
    let rules = &draft.snat;
    if rules.len() > SNAT_RULES {
        let message = format!("{} rules are above the limit {SNAT_RULES}", rules.len());
        problems.add(toml_path!("snat"), message);
    }
    names(rules.iter().map(|rule| rule.name.as_deref()), "snat", problems);
    let site = Site::new(&draft.services, wire);
    for (index, rule) in rules.iter().enumerate() {
        self::rule(index, rule, &site, problems);
    }
}

fn rule(index: usize, rule: &DraftSnat, site: &Site<'_>, problems: &mut Problems) {
    if let Some(addresses) = &rule.addresses {
        if addresses.is_empty() {
            problems.add(toml_path!("snat", index, "address"), "is empty: packets need one to come from");
        }
        if addresses.len() > MOST {
            let message = format!("{} addresses are above the limit {MOST}", addresses.len());
            problems.add(toml_path!("snat", index, "address"), message);
        }
        let mut firsts = Firsts::default();
        for (at, address) in addresses.iter().enumerate() {
            let Some(address) = *address else { continue };
            let result = match (firsts.repeats(address, at), rule.sources) {
                (Some(first), _) => Err(format!("{address} is already address[{first}]")),
                (None, Some(sources)) if sources.network().is_ipv6() != address.is_ipv6() => {
                    Err(format!("{address} is not of the family of sources {sources}"))
                }
                (None, Some(sources)) if sources.contains(address) && sources.single().is_some() => {
                    Err(format!("{address} is what is to be translated"))
                }
                _ => own(address, site),
            };
            if let Err(message) = result {
                // One address need not stand in an array.
                let path = match addresses.len() {
                    1 => toml_path!("snat", index, "address"),
                    _ => toml_path!("snat", index, "address", at),
                };
                problems.add(path, message);
            }
        }
    }
    if let Some(protocols) = &rule.protocols {
        if protocols.is_empty() {
            problems.add(toml_path!("snat", index, "protocols"), "is empty: the rule would do nothing");
        }
        let mut firsts = Firsts::default();
        for (at, protocol) in protocols.iter().enumerate() {
            let Some(protocol) = *protocol else { continue };
            if let Some(first) = firsts.repeats(protocol, at) {
                let message = format!("{protocol} is already protocols[{first}]");
                problems.add(toml_path!("snat", index, "protocols", at), message);
            }
        }
    }
    if let Some(Some(port)) = &rule.port
        && site.wire.complete
        && !site.wire.port_names.iter().any(|name| name == port)
    {
        let known = site.wire.port_names.join(", ");
        let message = format!("{} is not a port of the director (known: {known})", show(port));
        problems.add(toml_path!("snat", index, "port"), message);
    }
}

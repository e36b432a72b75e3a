//! Comparing objects that give their keys and values as text.

use super::order::matched;
use super::{Change, FieldChange};
use crate::vrrp::Ha;

/// Keys whose values are not shown, only that they changed.
const SECRET: [&str; 4] = ["auth_password", "hmac", "key", "password"];

type Object = (&'static str, Vec<(&'static str, String)>);

/// Adds the changes from `old` to `new`.
pub(super) fn ha(old: &Ha, new: &Ha, changes: &mut Vec<Change>) {
    let (old, new) = (old.sections(), new.sections());
    let mut kinds: Vec<&'static str> = old.iter().chain(&new).map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of = |sections: &[Object]| -> Vec<Object> {
            sections.iter().filter(|(own, _)| *own == kind).cloned().collect()
        };
        compare(kind, &of(&old), &of(&new), changes);
    }
}

fn value<'o>(object: &'o Object, key: &str) -> Option<&'o str> {
    object.1.iter().find(|(own, _)| *own == key).map(|(_, value)| value.as_str())
}

/// Its name as it stands in the file, without the quotes; of the one `[lease]` where it is.
fn name(object: &Object) -> String {
    if object.0 == crate::vrrp::LEASE {
        return "etcd".to_owned();
    }
    // what has no name has its first key's value for one
    let first = object.1.first().map(|(_, value)| value.as_str());
    value(object, "name").or(first).unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

fn compare(kind: &'static str, old: &[Object], new: &[Object], changes: &mut Vec<Change>) {
    let matched = matched(old.iter().map(name), new.iter().map(name));
    changes.extend(matched.removed.iter().map(|at| Change::ObjectRemoved { kind, name: name(&old[*at]) }));
    for (before, after) in matched.kept {
        let (old, new) = (&old[before], &new[after]);
        let fields = fields(old, new);
        if !fields.is_empty() {
            changes.push(Change::ObjectChanged { kind, name: name(new), fields });
        }
    }
    changes.extend(matched.added.iter().map(|at| Change::ObjectAdded { kind, name: name(&new[*at]) }));
    let moved = |at: usize| Change::ObjectMoved { kind, name: name(&new[at]), position: at + 1 };
    changes.extend(matched.moved.into_iter().map(moved));
}

/// Keys of either that differ.
fn fields(old: &Object, new: &Object) -> Vec<FieldChange> {
    let mut keys: Vec<&'static str> = new.1.iter().map(|(key, _)| *key).collect();
    keys.extend(old.1.iter().map(|(key, _)| *key).filter(|key| value(new, key).is_none()));
    let changed = keys.into_iter().filter(|key| value(old, key) != value(new, key));
    let text = |object: &Object, key: &str, which: &str| match value(object, key) {
        None => "unset".to_owned(),
        Some(_) if SECRET.contains(&key) => format!("({which} secret)"),
        Some(value) => value.to_owned(),
    };
    changed.map(|key| FieldChange { key, old: text(old, key, "old"), new: text(new, key, "new") }).collect()
}

//! `scheduler` and the keys that belong to it.

use toml::de::{DeTable, DeValue};

use super::{Reader, value};
use crate::bounds::Bounds;
use crate::scheduler::{MaglevSize, Scheduler, SchedulerFlags};
use crate::text::ValueError;

/// `scheduler` with its parameters.
pub(super) fn scheduler(r: &mut Reader<'_>, t: &DeTable<'_>) -> Option<Scheduler> {
    let named = named(r, t);
    let hash = r.field(t, "maglev_hash", value::parsed).optional();
    let size = r.field(t, "maglev_size", maglev_size).optional();
    let (scheduler, hash, size) = (named?, hash?, size?);
    let scheduler = with(r, "maglev_hash", scheduler, hash, Scheduler::with_maglev_hash);
    with(r, "maglev_size", scheduler?, size, Scheduler::with_maglev_size)
}

fn named(r: &mut Reader<'_>, t: &DeTable<'_>) -> Option<Scheduler> {
    let by_name = |v: &DeValue<'_>| Scheduler::from_name(&value::text(v)?).map_err(|e| e.to_string());
    r.field(t, "scheduler", by_name).or(Scheduler::Rr)
}

/// The scheduler with a parameter, if there is one; a fault of `key` where it takes none.
fn with<T>(
    r: &mut Reader<'_>,
    key: &'static str,
    scheduler: Scheduler,
    parameter: Option<T>,
    set: fn(Scheduler, T) -> Result<Scheduler, ValueError>,
) -> Option<Scheduler> {
    let Some(parameter) = parameter else { return Some(scheduler) };
    match set(scheduler, parameter) {
        Ok(scheduler) => Some(scheduler),
        Err(error) => {
            r.at(key, |r| r.fault(error.to_string()));
            None
        }
    }
}

fn maglev_size(value: &DeValue<'_>) -> Result<MaglevSize, String> {
    let slots = value::integer(Bounds { min: 0, max: u32::MAX })(value)?;
    MaglevSize::from_slots(slots).map_err(|error| error.to_string())
}

/// `scheduler_flags`, in the words of `scheduler`; without one that could be read any words may be right.
pub(super) fn flags(
    r: &mut Reader<'_>,
    t: &DeTable<'_>,
    scheduler: Option<Scheduler>,
) -> Option<SchedulerFlags> {
    let read = |v: &DeValue<'_>| {
        let word = value::text(v)?;
        let none = SchedulerFlags::default();
        scheduler.map_or(Ok(none), |scheduler| none.with_word(scheduler, &word)).map_err(|e| e.to_string())
    };
    let words = r.list(t, "scheduler_flags", read).or(Vec::new())?;
    words.into_iter().try_fold(SchedulerFlags::default(), |flags, word| Some(flags.and(word?)))
}

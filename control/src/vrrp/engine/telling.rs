//! Who is told of changes of state: programs, and by news the rest.

use lb_config::{VrrpGroup, VrrpNotify};
use tracing::info;

use super::super::instance::Instance;
use super::super::machine::State;
use super::{Engine, Program};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewsKind {
    /// An instance or a group is in another state.
    Vrrp,
    /// A lease is.
    Lease,
}

/// Something that happened, for `lbctl events` and whoever is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What kind of thing.
    pub kind: NewsKind,
    /// In words, with the reason.
    pub text: String,
    /// Mails tell of it.
    pub mail: bool,
}

impl Engine {
    pub(super) fn changed(&mut self, instance: &Instance, before: State, state: State) {
        let (vrrp, priority) = (&instance.plan.vrrp, instance.machine.priority());
        info!(instance = %vrrp.name, from = before.as_str(), to = state.as_str(), priority, why = %instance.why, "vrrp state");
        let notify = &vrrp.notify;
        if state == State::Taking {
            // nothing has changed yet, for anybody else
            return;
        }
        let text =
            format!("instance {}: {}, priority {priority}: {}", vrrp.name, state.as_str(), instance.why);
        self.out.news.push(News { kind: NewsKind::Vrrp, text, mail: notify.mail });
        tell(
            &mut self.out.programs,
            notify,
            of_state(notify, state),
            ("INSTANCE", &vrrp.name, state.word(), priority),
        );
    }

    /// Groups that were told a state, with the priority that they are told.
    pub(super) fn begun_groups(&self) -> Vec<(VrrpGroup, u8)> {
        let groups = self.plan.groups.iter().filter(|group| self.group_states.contains_key(&group.name));
        let first = |group: &VrrpGroup| {
            let mut members = self.instances.iter();
            members
                .find(|own| group.instances.contains(&own.plan.vrrp.name))
                .map(|own| own.machine.priority())
        };
        groups.filter_map(|group| Some((group.clone(), first(group)?))).collect()
    }

    /// Tells programs of groups whose members are all in one new state.
    pub(super) fn follow_groups(&mut self) {
        let groups = &self.plan.groups;
        self.group_states.retain(|name, _| groups.iter().any(|group| group.name == *name));
        for group in groups {
            let members = self.instances.iter().filter(|own| group.instances.contains(&own.plan.vrrp.name));
            let mut states = members.map(|own| (own.machine.state(), own.machine.priority()));
            let Some((state, priority)) = states.next() else { continue };
            if state == State::Taking
                || states.any(|(other, _)| other != state)
                || self.group_states.insert(group.name.clone(), state) == Some(state)
                || state == State::Init
            {
                continue;
            }
            let why = self.group_reason(group).map_or_else(String::new, |why| format!(": {why}"));
            info!(group = %group.name, to = state.as_str(), "vrrp group state{why}");
            let (notify, own) = (&group.notify, of_state(&group.notify, state));
            let text = format!("group {}: {}{why}", group.name, state.as_str());
            self.out.news.push(News { kind: NewsKind::Vrrp, text, mail: notify.mail });
            tell(&mut self.out.programs, notify, own, ("GROUP", &group.name, state.word(), priority));
        }
    }
}

fn of_state(notify: &VrrpNotify, state: State) -> &[String] {
    match state {
        State::Master => &notify.master,
        State::Backup => &notify.backup,
        State::Fault => &notify.fault,
        State::Init => &notify.stop,
        State::Taking => &[],
    }
}

/// Runs the program of a change, and the one of all changes with what keepalived passes to it.
pub(super) fn tell(
    programs: &mut Vec<Program>,
    notify: &VrrpNotify,
    own: &[String],
    (kind, name, word, priority): (&str, &str, &str, u8),
) {
    let user = &notify.user;
    if !own.is_empty() {
        programs.push(Program { command: own.to_vec(), user: user.clone() });
    }
    if !notify.any.is_empty() {
        let mut command = notify.any.clone();
        command.extend([kind, name, word].map(str::to_owned));
        command.push(priority.to_string());
        programs.push(Program { command, user: user.clone() });
    }
}

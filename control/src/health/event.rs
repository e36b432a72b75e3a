//! What happened, in order: the last few thousand changes.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

/// Events that are kept; older ones are forgotten.
pub const KEPT: usize = 4096;

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A server passes all its checks.
    ServerUp,
    /// A server fails one.
    ServerDown,
    /// The weight that a server's checks give it has changed.
    Weight,
    /// A service has its quorum.
    QuorumUp,
    /// A service has lost its quorum.
    QuorumDown,
    /// The configuration was changed.
    Config,
    /// A virtual router or a group of them is in another state.
    Vrrp,
    /// A lease of one is.
    Lease,
}

impl EventKind {
    /// Its word for commands, webhooks and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerUp => "up",
            Self::ServerDown => "down",
            Self::Weight => "weight",
            Self::QuorumUp => "quorum_up",
            Self::QuorumDown => "quorum_down",
            Self::Config => "config",
            Self::Vrrp => "vrrp",
            Self::Lease => "lease",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts from 1 since lbd's start.
    pub number: u64,
    /// When, ms since 1970.
    pub time_ms: u64,
    /// What.
    pub kind: EventKind,
    /// Name of the service; empty where none is concerned.
    pub service: String,
    /// Address and port of the server; empty where none is concerned.
    pub server: String,
    /// Why, in words.
    pub reason: String,
}

/// The last events.
#[derive(Clone, Debug, Default)]
pub struct Events {
    list: VecDeque<Event>,
    last: u64,
}

impl Events {
    /// Adds an event that happens now and gives it back.
    pub fn add(
        &mut self,
        kind: EventKind,
        service: &str,
        server: impl Into<String>,
        reason: impl Into<String>,
    ) -> Event {
        self.last += 1;
        let event = Event {
            number: self.last,
            time_ms: wall_ms(SystemTime::now()),
            kind,
            service: service.to_owned(),
            server: server.into(),
            reason: reason.into(),
        };
        if self.list.len() == KEPT {
            self.list.pop_front();
        }
        self.list.push_back(event.clone());
        event
    }

    /// Number of the newest event; 0: there was none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Those after the one of this number, oldest first.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &Event> {
        let kept = self.list.len() as u64;
        let skip = number.saturating_sub(self.last - kept).min(kept);
        self.list.iter().skip(skip as usize)
    }
}

/// Milliseconds since 1970.
pub fn wall_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_numbered() {
        let mut events = Events::default();
        assert_eq!((events.last(), events.after(0).count()), (0, 0));
        for at in 0..KEPT + 10 {
            events.add(EventKind::Config, "", "", at.to_string());
        }
        let numbers = |events: &Events, after| events.after(after).map(|e| e.number).collect::<Vec<_>>();
        assert_eq!(numbers(&events, 0).len(), KEPT);
        assert_eq!(numbers(&events, 0)[0], 11);
        assert_eq!(numbers(&events, events.last() - 2), [events.last() - 1, events.last()]);
        assert!(numbers(&events, events.last()).is_empty() && numbers(&events, u64::MAX).is_empty());
    }
}

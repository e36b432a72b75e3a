//! Who is there: sessions and their numbers.
//!
//! Each side of a session has a number by chance, and a datagram counts when it names both. A session begins with three
//! hellos: one names its sender's number; the other side answers with a number of its own that it has never used; who
//! names that has not been recorded earlier. A director that begins anew, because it was restarted or has not heard the
//! other for a while, has another number.

use super::wire::Ends;

/// Time between hellos, ns.
const HELLO_NS: u64 = 100_000_000;
/// Time without any datagram after which the other is gone, ns.
const SILENCE_NS: u64 = 1_000_000_000;

/// What a datagram's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is of the session.
    Good,
    /// A session begins with it.
    Begins,
    /// It is of none.
    Strange,
}

/// One side.
#[derive(Debug)]
pub struct Session {
    /// Number of the present session, or without one of the next.
    mine: u64,
    /// Number of the other side; `None`: there is no session.
    theirs: Option<u64>,
    /// With a session: the number of the next, and the number of the other side that it was offered to.
    offered: Option<(u64, u64)>,
    heard_ns: u64,
    hello_ns: u64,
    /// A hello that is to be answered now: what the answer carries.
    answer: Option<Ends>,
}

impl Session {
    /// None yet. `mine`: a number by chance, not 0.
    pub fn new(mine: u64) -> Self {
        Self { mine, theirs: None, offered: None, heard_ns: 0, hello_ns: 0, answer: None }
    }

    /// Whether there is one.
    pub fn is_up(&self) -> bool {
        self.theirs.is_some()
    }

    /// What this side's datagrams carry.
    pub fn ends(&self) -> Ends {
        Ends { mine: self.mine, yours: self.theirs.unwrap_or_default() }
    }

    /// A datagram came. `random`: a number by chance, not 0. A hello may begin a session.
    pub fn hear(&mut self, now_ns: u64, ends: Ends, is_hello: bool, random: u64) -> Standing {
        let is_known = self.theirs == Some(ends.mine);
        if is_known && ends.yours == self.mine {
            self.heard_ns = now_ns;
            return Standing::Good;
        }
        if !is_hello {
            return Standing::Strange;
        }
        if is_known {
            // the other side does not know yet that the session stands
            self.answer = Some(self.ends());
            return Standing::Strange;
        }
        // a number that was in no session has been named by nobody who is recorded
        let own = match (self.theirs, self.offered) {
            (None, _) => self.mine,
            (Some(_), Some((number, to))) if to == ends.mine => number,
            (Some(_), _) => random,
        };
        self.answer = Some(Ends { mine: own, yours: ends.mine });
        if ends.yours == own {
            (self.mine, self.theirs, self.offered) = (own, Some(ends.mine), None);
            self.heard_ns = now_ns;
            return Standing::Begins;
        }
        self.offered = self.theirs.map(|_| (own, ends.mine));
        Standing::Strange
    }

    /// What a hello that is due carries; ask until there is none.
    pub fn hello(&mut self, now_ns: u64) -> Option<Ends> {
        if let Some(answer) = self.answer.take() {
            return Some(answer);
        }
        (now_ns >= self.hello_ns).then(|| {
            self.hello_ns = now_ns + HELLO_NS;
            self.ends()
        })
    }

    /// Has a hello sent at once.
    pub fn hurry(&mut self) {
        self.hello_ns = 0;
    }

    /// Whether the other side has fallen silent: then there is no session any more, and `random` is the number of the next.
    pub fn is_lost(&mut self, now_ns: u64, random: u64) -> bool {
        let lost = self.is_up() && now_ns.saturating_sub(self.heard_ns) > SILENCE_NS;
        if lost {
            *self = Self::new(random);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hellos go to and fro until nobody has anything to answer.
    fn talk(now_ns: u64, a: &mut Session, b: &mut Session, next: &mut u64) -> [u32; 2] {
        let mut began = [0; 2];
        for _ in 0..10 {
            for at in 0..2 {
                let (from, to) = if at == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
                while let Some(ends) = from.hello(now_ns) {
                    *next += 1;
                    began[1 - at] += u32::from(to.hear(now_ns, ends, true, *next) == Standing::Begins);
                }
            }
        }
        began
    }

    #[test]
    fn two_sides_find_each_other_whoever_begins() {
        let mut next = 1000;
        let (mut a, mut b) = (Session::new(1), Session::new(2));
        assert_eq!(talk(1, &mut a, &mut b, &mut next), [1, 1]);
        assert!(a.is_up() && b.is_up());
        assert_eq!(a.ends(), Ends { mine: b.ends().yours, yours: b.ends().mine });
        // one is restarted, long before the other misses it
        let mut b = Session::new(3);
        assert_eq!(talk(2_000_000, &mut a, &mut b, &mut next), [1, 1]);
        assert_eq!(a.ends(), Ends { mine: b.ends().yours, yours: b.ends().mine });
        assert_eq!(b.ends().mine, 3);
        assert_ne!(a.ends().mine, 1, "a number counts for one session only");
        // and nothing disturbs them
        assert_eq!(talk(200_000_000, &mut a, &mut b, &mut next), [0, 0]);
        assert!(a.is_lost(3_000_000_000, 77) && !a.is_up());
    }

    #[test]
    fn both_at_once() {
        let (mut a, mut b) = (Session::new(1), Session::new(2));
        for now in 0..4 {
            let (from_a, from_b) = (a.hello(now), b.hello(now));
            from_b.map(|ends| a.hear(1, ends, true, 8));
            from_a.map(|ends| b.hear(1, ends, true, 9));
        }
        assert!(a.is_up() && b.is_up());
        assert_eq!(a.ends(), Ends { mine: b.ends().yours, yours: b.ends().mine });
    }

    #[test]
    fn what_was_recorded_begins_nothing() {
        let (mut a, mut b, mut next) = (Session::new(1), Session::new(2), 1000);
        let first = b.ends();
        talk(1, &mut a, &mut b, &mut next);
        let recorded = [first, b.ends(), Ends { mine: b.ends().mine, yours: 0 }];
        let mut c = Session::new(3);
        talk(1, &mut a, &mut c, &mut next);
        let ends = a.ends();
        for old in recorded.into_iter().cycle().take(30) {
            next += 1;
            assert_eq!(a.hear(2, old, true, next), Standing::Strange);
            assert_eq!(a.hear(2, old, false, next), Standing::Strange);
            // what it says to that reaches nobody who knows the key; what it says of its session goes on
            while a.hello(2 + next * 100_000_000).is_some_and(|own| own != ends) {}
        }
        assert_eq!(a.ends(), ends);
        assert_eq!(a.hear(3, c.ends(), false, 1), Standing::Good);
    }
}

//! Locality-based least connections. Source: IPVS, `ip_vs_lblc.c`.

use std::sync::Mutex;

use super::cache::Cache;
use super::{Remembered, crowded, lock};
use crate::sched::{Candidate, Question, least};

/// A service's memory: the server of every destination address.
#[derive(Debug)]
pub struct Lblc(Mutex<Cache<Remembered>>);

impl Default for Lblc {
    fn default() -> Self {
        Self(Mutex::new(Cache::new()))
    }
}

impl Lblc {
    /// The server that the address was served by, unless it is gone, drained or crowded while another is half empty;
    /// then the one with the least weighted connections, from now on. As in the kernel a known server's upper
    /// threshold does not count.
    pub fn pick<'a>(&self, question: &Question<'a>) -> Option<&'a Candidate> {
        question.begin_reading();
        let known = lock(&self.0).get(question.new.target).map(|server| *server);
        let server = known.and_then(|server| server.find(question));
        if let Some(server) = server.filter(|server| server.weight > 0 && !crowded(server, question)) {
            return Some(server);
        }
        let chosen = least::wlc(question)?;
        let remembered = Remembered::new(chosen, question);
        let mut cache = lock(&self.0);
        match cache.get(question.new.target) {
            Some(server) => *server = remembered,
            // without room the choice is as good, it is only not remembered
            None => drop(cache.insert(question.new.target, remembered)),
        }
        Some(chosen)
    }

    /// What [`Lblc::pick`] would say; nothing is remembered.
    pub fn look<'a>(&self, question: &Question<'a>) -> Option<&'a Candidate> {
        question.begin_reading();
        let known = lock(&self.0).peek(question.new.target).copied();
        let server = known.and_then(|server| server.find(question));
        let server = server.filter(|server| server.weight > 0 && !crowded(server, question));
        server.or_else(|| least::wlc(question))
    }

    /// Control core, once a second: forgets what is old. `now_s`: since any fixed point, s.
    pub fn tick(&self, now_s: u32) {
        let Some(mut sweep) = lock(&self.0).look(now_s) else { return };
        while lock(&self.0).sweep(&mut sweep, |_| {}) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::lab::Lab;
    use std::net::IpAddr;

    fn ask(lblc: &Lblc, lab: &mut Lab, target: u8) -> Option<u32> {
        lab.new.target = IpAddr::from([10, 1, 0, target]);
        let chosen = lblc.pick(&lab.question())?.dest.0;
        lab.open(0, chosen, true);
        Some(chosen)
    }

    #[test]
    fn an_address_stays_until_its_server_is_crowded_and_another_half_empty() {
        let lblc = Lblc::default();
        let mut lab = Lab::new(&[2, 2]);
        let picks: Vec<_> = (0..3).map(|_| ask(&lblc, &mut lab, 1)).collect();
        assert_eq!(picks, [Some(0); 3], "up to weight + 1 active ones");
        assert_eq!(ask(&lblc, &mut lab, 1), Some(1), "3 > 2, and 0 * 2 < 2");
        assert_eq!(ask(&lblc, &mut lab, 1), Some(1), "it stays with the new one");
        lab.fill(1);
        assert_eq!(ask(&lblc, &mut lab, 1), Some(1), "full counts for new addresses only");
        assert_eq!(ask(&lblc, &mut lab, 2), Some(0));
    }

    #[test]
    fn a_server_that_comes_back_under_another_index_has_its_addresses_again() {
        let lblc = Lblc::default();
        let mut lab = Lab::new(&[1, 1, 1]);
        assert_eq!(ask(&lblc, &mut lab, 1), Some(0));
        lab.remove(0);
        lab.insert(2, 5, 1);
        lab.candidates[2].tag = 0;
        assert_eq!(ask(&lblc, &mut lab, 1), Some(5));
        lab.remove(5);
        assert_eq!(ask(&lblc, &mut lab, 1), Some(1));
    }
}

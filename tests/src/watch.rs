//! Who has the VIP, as seen on the wire: the client asks by ARP all the time, and a capture tells which station answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::director::PATIENCE;
use crate::frames::{self, Wire};
use crate::lab::{CLIENT, Lab, VIP};
use crate::process::Process;
use crate::wait::wait_until;

/// Time between two questions.
const STEP: Duration = Duration::from_millis(5);

/// A watch that goes on; dropped, it ends.
#[derive(Debug)]
pub struct Watch {
    capture: Process,
    stop: Arc<AtomicBool>,
    asker: Option<JoinHandle<Result<()>>>,
}

impl Watch {
    /// Begins to ask, and to listen.
    pub fn start(lab: &Lab) -> Result<Self> {
        let vip = VIP.parse::<std::net::Ipv4Addr>()?;
        let filter = format!("arp and arp[6:2] = 2 and arp[14:4] = {:#x}", vip.to_bits());
        let argv = ["tcpdump", "-l", "--immediate-mode", "-n", "-tt", "-i", "eth0", &filter];
        let capture = lab.client.start(&argv, &lab.dir().join("watch"))?;
        wait_until("tcpdump listens", PATIENCE, || Ok(capture.log().contains("listening on")))?;
        let wire = Wire::open(&lab.client, "eth0")?;
        let own = frames::mac(&lab.client.mac("eth0")?)?;
        let question = frames::arp_request(own, CLIENT.parse()?, vip);
        let question = frames::ethernet([0xff; 6], own, frames::ARP, &question);
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let asker = thread::spawn(move || {
            while !ended.load(Relaxed) {
                wire.send(&question)?;
                thread::sleep(STEP);
            }
            Ok(())
        });
        Ok(Self { capture, stop, asker: Some(asker) })
    }

    /// Answers and announcements so far: time, s, and station.
    pub fn answers(&self) -> Vec<(f64, String)> {
        let line = |line: &str| {
            let time = line.split_whitespace().next()?.parse().ok()?;
            let mac = line.split("is-at ").nth(1)?.split(',').next()?.trim().to_owned();
            Some((time, mac))
        };
        self.capture.log().lines().filter_map(line).collect()
    }

    /// Waits until `mac` answers.
    pub fn wait_for(&self, mac: &str) -> Result<()> {
        let last = || self.answers().last().map(|(_, last)| last == mac);
        wait_until(&format!("{mac} answers for the VIP"), PATIENCE, || Ok(last() == Some(true)))
    }

    /// Waits for the next answer: until the next question, some milliseconds from then on, nobody is about to answer.
    pub fn wait_for_any(&self) -> Result<()> {
        let before = self.answers().len();
        let begun = Instant::now();
        while self.answers().len() == before {
            ensure!(begun.elapsed() < PATIENCE, "nobody answers for the VIP");
            thread::sleep(STEP / 20);
        }
        Ok(())
    }

    /// Waits until nobody has answered for half a second.
    pub fn wait_for_silence(&self) -> Result<()> {
        let mut before = self.answers().len();
        wait_until("nobody answers for the VIP", PATIENCE, || {
            thread::sleep(Duration::from_millis(500));
            let now = self.answers().len();
            Ok(std::mem::replace(&mut before, now) == now)
        })
    }

    /// Ends, and checks that the stations that answered are these, one after the other: at no moment two had the VIP.
    /// Gives the time without an answer at each change, ms.
    pub fn owners(self, wanted: &[&str]) -> Result<Vec<f64>> {
        self.owners_within(wanted, 0.0)
    }

    /// As [`Watch::owners`], but at each change the one that yields may answer for `handover` seconds yet.
    pub fn owners_within(mut self, wanted: &[&str], handover: f64) -> Result<Vec<f64>> {
        self.stop.store(true, Relaxed);
        if let Some(asker) = self.asker.take() {
            asker.join().map_err(|_| anyhow!("the asker panicked"))??;
        }
        let answers = self.answers();
        let (mut owners, mut gaps): (Vec<&str>, Vec<f64>) = (Vec::new(), Vec::new());
        let (mut before, mut changed, mut overlap) = (0.0, 0.0, 0.0_f64);
        for (time, mac) in &answers {
            if owners.last() != Some(&mac.as_str()) {
                let yields = owners.iter().rev().nth(1) == Some(&mac.as_str());
                if yields && time - changed < handover {
                    overlap = overlap.max(time - changed);
                    continue;
                }
                if !owners.is_empty() {
                    gaps.push((time - before) * 1000.0);
                }
                changed = *time;
                owners.push(mac);
            }
            before = *time;
        }
        eprintln!("gaps {gaps:.0?} ms, two answered for {:.0} ms at the most", overlap * 1000.0);
        ensure!(
            owners == wanted,
            "the VIP's owners were {owners:?}, not {wanted:?}, in {} answers; around the changes:\n{}",
            answers.len(),
            changes(&answers)
        );
        Ok(gaps)
    }
}

/// The answers around each change of stations, one a line.
fn changes(answers: &[(f64, String)]) -> String {
    let is_change = |at: usize| match (answers.get(at), answers.get(at + 1)) {
        (Some((_, one)), Some((_, next))) => one != next,
        _ => false,
    };
    let shown = (0..answers.len()).filter(|at| (at.saturating_sub(3)..at + 3).any(is_change));
    let lines = shown.filter_map(|at| answers.get(at)).map(|(time, mac)| format!("{time:.6} {mac}\n"));
    lines.collect()
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

//! The thread that moves frames between the workers and the kernel's interfaces.
//!
//! It waits for the kernel in `ppoll`, and looks at the workers' queues in between: more often the more there was to do, so
//! that workers need not wake it. It does nothing that blocks, and takes a bounded number of frames of each side in turn.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use lb_dataplane::exception::Kernel;
use lb_dataplane::io::WorkerId;
use lb_dataplane::neighbor::LinkId;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tracing::{info, warn};

use super::netlink::{Netlink, Route};
use super::plan::{Plan, TapPlan};
use super::quiet::Quiet;
use super::share::Share;
use crate::follower::{Follower, Order};

/// Frames taken from one worker, or from one interface, before the next one's turn.
const MOST: usize = 64;
/// How long the thread sleeps while there is something to do, for so many turns after there was.
const AWAKE: (Duration, u32) = (Duration::from_micros(50), 40);
/// And then, for about a second.
const IDLE: (Duration, u32) = (Duration::from_millis(1), 1000);
/// And then; a worker that has had nothing to do for so long sleeps as long.
const LONELY: Duration = Duration::from_millis(4);
/// How often the same complaint is logged.
const COMPLAINT: Duration = Duration::from_secs(10);

/// The control core's end. Dropped, it ends the thread, and the interfaces go.
#[derive(Debug)]
pub struct Handle {
    thread: Follower<Plan>,
}

impl Handle {
    /// Has the interfaces be as another plan says; ports neither come nor go.
    pub fn update(&self, plan: Plan) {
        self.thread.update(plan);
    }
}

/// Configures the interfaces and starts the thread. `files`: those of [`Plan::taps`], in their order.
///
/// Errors: an interface cannot be configured, or the system gives no thread.
pub fn start(plan: Plan, kernel: Kernel, files: Vec<File>) -> io::Result<Handle> {
    let netlink = Netlink::open()?;
    let mut quiet = Quiet::default();
    let mut taps = Vec::with_capacity(files.len());
    for (tap, file) in plan.taps.iter().zip(files) {
        let index = if_nametoindex(&*tap.name)?;
        tap.devices.iter().for_each(|device| quiet.add(device));
        bring_up(&netlink, tap, index)
            .map_err(|error| io::Error::new(error.kind(), format!("interface {}: {error}", tap.name)))?;
        info!(interface = %tap.name, "exception path");
        let share = Share::of(tap);
        taps.push(Tap { share, index, file, pending: VecDeque::new(), plan: tap.clone() });
    }
    let longest = plan.longest();
    kernel.furnish(longest);
    let mover = move |orders| Mover {
        kernel,
        taps,
        netlink,
        orders,
        buffer: vec![0; longest],
        complained: None,
        lost: 0,
        _quiet: quiet,
    };
    let thread = Follower::start("exception", move |orders| mover(orders).run())?;
    Ok(Handle { thread })
}

fn bring_up(netlink: &Netlink, tap: &TapPlan, index: u32) -> io::Result<()> {
    netlink.set_link(index, tap.mac, tap.mtu)?;
    if tap.addresses.iter().any(|own| own.addr.is_ipv6()) {
        // Where new interfaces have none, this one must.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.name), "0");
    }
    netlink.set_up(index)?;
    for address in &tap.addresses {
        netlink.address(index, *address, true)?;
    }
    for route in routes(tap) {
        netlink.route(index, route, true)?;
    }
    Ok(())
}

/// The routes of an interface beside those that come with its addresses.
fn routes(tap: &TapPlan) -> Vec<Route> {
    let defaults = tap.gateways.iter().map(|gateway| Route::Default(*gateway));
    let here = tap.vips.iter().map(|vip| Route::Here(*vip));
    let asked = tap.asked.iter().map(|vip| Route::OnLink(*vip));
    defaults.chain(here).chain(asked).collect()
}

struct Tap {
    share: Share,
    index: u32,
    file: File,
    /// A frame of the kernel's for which the worker had no room, for each port that it goes out by.
    pending: VecDeque<(LinkId, Vec<u8>)>,
    plan: TapPlan,
}

struct Mover {
    kernel: Kernel,
    taps: Vec<Tap>,
    netlink: Netlink,
    orders: Receiver<Order<Plan>>,
    buffer: Vec<u8>,
    complained: Option<Instant>,
    /// Frames that the kernel did not take since the last complaint.
    lost: u64,
    /// Ends after the interfaces.
    _quiet: Quiet,
}

impl Mover {
    fn run(mut self) {
        let mut idle = 0u32;
        loop {
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Plan(plan) => self.update(&plan),
                    Order::Stop => return,
                }
            }
            let moved = self.up() + self.down();
            idle = if moved > 0 { 0 } else { idle.saturating_add(1) };
            if moved == 0 {
                self.wait(pause(idle));
            }
        }
    }

    /// From the workers to the kernel.
    fn up(&mut self) -> usize {
        let mut moved = 0;
        for worker in (0..self.kernel.workers()).map(WorkerId) {
            for _ in 0..MOST {
                let Some(mut parcel) = self.kernel.next(worker) else { break };
                let tap = self.taps.iter_mut().find(|tap| tap.share.has(parcel.link));
                let written = tap.map(|tap| {
                    tap.share.up(parcel.link, &mut parcel.bytes);
                    tap.file.write(&parcel.bytes)
                });
                if let Some(Err(error)) = written {
                    self.complain(&error);
                }
                self.kernel.done(worker, parcel);
                moved += 1;
            }
        }
        moved
    }

    /// From the kernel to the workers. A frame for which there is no room waits, and those behind it in the kernel.
    fn down(&mut self) -> usize {
        let Self { kernel, taps, buffer, .. } = self;
        let mut moved = 0;
        for tap in taps {
            let Tap { share, file, pending, .. } = tap;
            while let Some((link, frame)) = pending.front() {
                if !kernel.send(*link, frame) {
                    break;
                }
                pending.pop_front();
                moved += 1;
            }
            for _ in 0..MOST {
                if !pending.is_empty() {
                    break;
                }
                // there is none, or the interface is down
                let Ok(len) = file.read(buffer) else { break };
                let Some(frame) = buffer.get_mut(..len).filter(|frame| !frame.is_empty()) else { break };
                share.down(frame, |link, frame| {
                    if !kernel.send(link, frame) {
                        pending.push_back((link, frame.to_vec()));
                    }
                });
                moved += 1;
            }
        }
        moved
    }

    /// Sleeps until the kernel has a frame, or for so long.
    fn wait(&self, time: Duration) {
        let waits = |tap: &&Tap| tap.pending.is_empty();
        let mut fds: Vec<PollFd<'_>> = self
            .taps
            .iter()
            .filter(waits)
            .map(|tap| PollFd::new(tap.file.as_fd(), PollFlags::POLLIN))
            .collect();
        // Interrupted or not: the loop looks at everything.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(time)), None);
    }

    /// Writing fails while an interface is switched off, and when memory is short.
    fn complain(&mut self, error: &io::Error) {
        self.lost += 1;
        if self.complained.is_none_or(|since| since.elapsed() >= COMPLAINT) {
            self.complained = Some(Instant::now());
            warn!(frames = self.lost, %error, "the kernel does not take frames of the exception path");
            self.lost = 0;
        }
    }

    /// Changes addresses and routes to those of another plan.
    fn update(&mut self, plan: &Plan) {
        for tap in &mut self.taps {
            let Some(new) = plan.taps.iter().find(|new| new.name == tap.plan.name) else { continue };
            let (old, name, index) = (&tap.plan, &new.name, tap.index);
            let log = |what: &str, of: &dyn std::fmt::Debug, done: io::Result<()>| {
                if let Err(error) = done {
                    warn!(interface = %name, ?of, %error, "{what}");
                }
            };
            let (before, after) = (routes(old), routes(new));
            for route in before.iter().filter(|route| !after.contains(route)) {
                // The kernel takes a route away with the address that it needs.
                let _ = self.netlink.route(index, *route, false);
            }
            for gone in old.addresses.iter().filter(|own| !new.addresses.contains(own)) {
                log("address was not taken away", gone, self.netlink.address(index, *gone, false));
            }
            for came in new.addresses.iter().filter(|own| !old.addresses.contains(own)) {
                log("address was not set", came, self.netlink.address(index, *came, true));
            }
            // All of them: some may have gone with an address.
            for route in &after {
                log("route was not set", route, self.netlink.route(index, *route, true));
            }
            tap.plan = new.clone();
            tap.share.follow(new);
        }
    }
}

/// How long to sleep after so many turns in a row without a frame.
fn pause(idle: u32) -> Duration {
    match idle {
        idle if idle <= AWAKE.1 => AWAKE.0,
        idle if idle <= AWAKE.1 + IDLE.1 => IDLE.0,
        _ => LONELY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_sleeps_longer_the_longer_there_was_nothing() {
        assert_eq!(pause(1), Duration::from_micros(50));
        assert_eq!(pause(41), Duration::from_millis(1));
        assert_eq!(pause(2000), Duration::from_millis(4));
    }
}

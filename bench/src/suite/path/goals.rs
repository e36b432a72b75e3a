//! What the lines of [`super::hits`] reach, and how they look.

use crate::context::Context;
use crate::frames::{Family, Leg};
use crate::record::{Plot, Reached};
use crate::site::Forwarding;

use super::hits::{Line, Variety, Who, setting};
use super::published;

/// Says what was reached of P1 to P7 and P10.
pub fn reached(context: &mut Context, lines: &[Line]) -> anyhow::Result<()> {
    for line in lines.iter().filter(|line| line.family == Family::V4) {
        let Who::Sluice(forwarding, _) = line.who else { continue };
        let Some(goal) = goal_of(forwarding, line.flows) else { continue };
        let (case, cell) = (line.name(), setting(forwarding, line.flows));
        let mut reached =
            Reached::new(goal, line.net).case(case.trim_end_matches(", IPv4")).of(&[cell.as_str()]);
        // the goals are of unique flows in random order; cold buffers and Zipf's law are published beside them
        if line.variety != Variety::Hot {
            reached = reached.aside();
        }
        for peer in lines.iter().filter(|peer| peer.flows == line.flows && peer.variety == line.variety) {
            match peer.who {
                Who::HashMap if forwarding == Forwarding::Dr => {
                    reached = reached.peer("HashMap balancer", peer.net)
                }
                Who::MacRewrite if forwarding == Forwarding::Dr => {
                    reached = reached.peer("MACs rewritten", peer.net)
                }
                _ => {}
            }
        }
        match (forwarding, katran_at(line.flows)) {
            (Forwarding::Ipip, Some(katran)) => reached = reached.published("Katran", katran),
            (Forwarding::FullNat, _) => {
                reached = reached.published("DPVS with I/O", published::DPVS_FULL_NAT)
            }
            (Forwarding::Dr, _) if line.variety == Variety::Hot => {
                let nearest = published::IPVS.iter().rfind(|(at, _)| *at <= line.flows as f64);
                reached = nearest.iter().fold(reached, |reached, (at, ns)| {
                    reached.published(&format!("Linux IPVS at {}", crate::stats::short(*at)), *ns)
                });
            }
            _ => {}
        }
        context.reached(reached)?;
        // Katran's figure at 8 M stands against ours at 10 M
        if forwarding == Forwarding::Ipip
            && line.variety == Variety::Hot
            && let Some(katran) = katran_at(line.flows)
        {
            let goal = match line.flows {
                1_000 => "P10/1k",
                1_000_000 => "P10/1M",
                _ => "P10/8M",
            };
            let note = if goal == "P10/8M" { "ours at 10 M connections" } else { "" };
            let reached = Reached::new(goal, katran / line.net).of(&[cell.as_str()]);
            context.reached(reached.published("Katran, ns", katran).note(note))?;
        }
    }
    for line in lines.iter().filter(|line| line.family == Family::V6 && line.flows == 1_000_000) {
        let same = |other: &&Line| {
            other.family == Family::V4 && other.flows == line.flows && other.variety == line.variety
        };
        if let (Who::Sluice(forwarding, _), Some(four)) =
            (line.who, lines.iter().filter(same).find(|other| other.who == line.who))
        {
            let case = format!("{} at 1 M connections", line.name().trim_end_matches(", IPv6"));
            let cell = setting(forwarding, line.flows);
            context.reached(Reached::new("P7", line.net / four.net).case(case).of(&[cell.as_str()]))?;
        }
    }
    Ok(())
}

/// The goal for packets by this forwarding at this number of connections.
fn goal_of(forwarding: Forwarding, flows: u64) -> Option<&'static str> {
    let goals = match forwarding {
        Forwarding::Dr => ["P1", "P2", "P3"],
        Forwarding::Ipip | Forwarding::Gue => ["P5/1k", "P5/1M", "P5/10M"],
        Forwarding::Nat | Forwarding::FullNat => ["P6/1k", "P6/1M", "P6/10M"],
    };
    match flows {
        1_000 => Some(goals[0]),
        1_000_000 => Some(goals[1]),
        10_000_000 => Some(goals[2]),
        100_000_000 if forwarding == Forwarding::Dr => Some("P4"),
        _ => None,
    }
}

/// Katran's figure at about this number of connections.
fn katran_at(flows: u64) -> Option<f64> {
    let flows = if flows == 10_000_000 { 8e6 } else { flows as f64 };
    published::KATRAN.iter().find(|(at, _)| *at == flows).map(|(_, ns)| *ns)
}

/// Draws ns per packet over connections, per family, and with cold buffers and Zipf's law.
pub fn plots(context: &mut Context, lines: &[Line]) {
    let y = "ns per packet, less the floor";
    for family in [Family::V4, Family::V6] {
        let title = format!("Established connections, {}, one core, in memory", family.name());
        let mut plot = Plot::new(&family.name().to_lowercase(), &title, "connections", y);
        draw(&mut plot, lines, |line| {
            line.family == family && line.variety == Variety::Hot && line.who != Who::MacRewrite
        });
        if family == Family::V4 {
            plot.log_y = true;
            plot.published("Katran XDP, IPIP (p)", published::KATRAN[1..].iter().copied());
            plot.published("Linux IPVS, DR (p)", published::IPVS[1..].iter().copied());
            plot.published("Concury, no keys (p)", published::CONCURY);
        }
        context.plot(plot);
    }
    let mut plot = Plot::new("buffers", "Direct routing: buffers and choice of flows", "connections", y);
    let is_dr = |who| matches!(who, Who::Sluice(Forwarding::Dr, Leg::In) | Who::MacRewrite);
    draw(&mut plot, lines, |line| line.family == Family::V4 && is_dr(line.who));
    context.plot(plot);
}

/// Adds a line for every name among the lines that are wanted.
fn draw(plot: &mut Plot, lines: &[Line], wanted: impl Fn(&Line) -> bool) {
    let wanted: Vec<&Line> = lines.iter().filter(|line| line.who != Who::Floor && wanted(line)).collect();
    for (at, line) in wanted.iter().enumerate() {
        let name = line.name();
        if wanted[..at].iter().all(|before| before.name() != name) {
            let points = wanted.iter().filter(|other| other.name() == name);
            plot.line(&name, points.map(|point| (point.flows as f64, point.net)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(who: Who, family: Family, flows: u64, net: f64) -> Line {
        Line { who, family, variety: Variety::Hot, flows, net }
    }

    #[test]
    fn lines_reach_the_goals_of_their_forwarding_and_size() {
        let mut context = Context::new("path", true, std::path::Path::new("/nonexistent"));
        let ipip = Who::Sluice(Forwarding::Ipip, Leg::In);
        for cell in [setting(Forwarding::Dr, 1_000), setting(Forwarding::Ipip, 1_000_000)] {
            context.cell(&cell, |_| Ok(())).unwrap();
        }
        let lines = [
            line(Who::HashMap, Family::V4, 1_000, 9.0),
            line(Who::Sluice(Forwarding::Dr, Leg::In), Family::V4, 1_000, 20.0),
            line(ipip, Family::V4, 1_000_000, 43.1),
            line(ipip, Family::V6, 1_000_000, 86.2),
            Line { variety: Variety::Cold, ..line(ipip, Family::V4, 1_000_000, 50.0) },
        ];
        reached(&mut context, &lines).unwrap();
        let got: Vec<_> =
            context.document.reached.iter().map(|r| (r.goal.as_str(), r.value.round())).collect();
        assert_eq!(got, [("P1", 20.0), ("P5/1M", 43.0), ("P10/1M", 10.0), ("P5/1M", 50.0), ("P7", 2.0)]);
        let aside: Vec<bool> = context.document.reached.iter().map(|reached| reached.aside).collect();
        assert_eq!(aside, [false, false, false, true, false]);
        assert_eq!(context.document.reached[0].peers[0].value, 9.0);
        plots(&mut context, &lines);
        assert_eq!(context.document.plots[0].lines[0].points, [(1e3, 9.0)]);
    }
}

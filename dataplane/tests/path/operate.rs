//! What an operator asks of a running director: connections to be forgotten, packets to be explained.

use lb_dataplane::DropReason;
use lb_dataplane::classify::{How, Lookup};
use lb_dataplane::director::Outcome;
use lb_dataplane::io::DeviceId;
use lb_dataplane::mailbox::ConnFilter;
use lb_dataplane::parse::L4;
use lb_dataplane::policy::{Answer, Refusal};
use lb_dataplane::snapshot::Way;

use crate::frames::{ACK, FIN, SYN, segment, server_mac};
use crate::lab::{BASE, Lab, web};
use crate::policy::{BOTH, CIP, NATED, RIP, VIP, asking, established, far, own, through, warm};

#[test]
fn connections_are_flushed_by_what_they_match_and_counted() {
    let text = web("rr", &BOTH).replace("forwarding", "persistence = { timeout = \"300s\" }\nforwarding");
    let mut lab = Lab::warm_of(&format!("{BASE}{text}"), 2);
    (101..=120).for_each(|port| {
        lab.pass(&segment(port, SYN));
    });
    let flush = |lab: &mut Lab, filter| {
        let ticket = lab.director.flush_connections(filter).expect("a free mailbox");
        (0..40).for_each(|_| lab.turn());
        lab.director.connections(ticket).expect("done")
    };
    let filter = ConnFilter { client_port: Some(107), ..ConnFilter::default() };
    assert_eq!(flush(&mut lab, filter), (vec![], 1));
    assert_eq!(lab.connections().len(), 19);
    let row = lab.director.services()[0].dests[0].clone();
    assert_eq!((row.active, row.inactive), (19, 0));
    assert_eq!(flush(&mut lab, ConnFilter::default()).1, 19);
    assert_eq!((lab.connections().len(), lab.director.templates().len()), (0, 0), "it was never established");
    assert_eq!(lab.counts(), [(0, 0), (0, 0)]);
}

#[test]
fn a_flushed_connection_takes_its_way_back_along() {
    let mut lab = warm(&far("", "tcp", "nat", "", NATED));
    through(&mut lab, (0, 1), &asking((CIP, 1000), (VIP, 80), SYN));
    lab.director.flush_connections(ConnFilter::default()).expect("a free mailbox");
    lab.settle();
    assert_eq!(through(&mut lab, (1, 0), &asking((RIP, 8080), (CIP, 1000), ACK)), Vec::<Vec<u8>>::new());
    assert_eq!(lab.dropped(DropReason::NotForUs), 1);
}

fn lookup(port: u16) -> Lookup {
    Lookup {
        src: CIP.into(),
        dst: VIP.into(),
        src_port: port,
        dst_port: 80,
        protocol: L4::Tcp,
        device: DeviceId(0),
        vlan: 0,
    }
}

#[test]
fn what_is_explained_happens_and_explaining_leaves_no_trace() {
    let schedulers =
        ["rr", "wrr", "lc", "wlc", "sed", "nq", "lblc", "lblcr", "dh", "sh", "fo", "ovf", "mh", "maglev"];
    for scheduler in schedulers {
        let mut lab = Lab::warm(&web(scheduler, &[(12, 3), (13, 1), (14, 0), (15, 2)]));
        for port in 1001..=1040 {
            let say = |lab: &Lab| lab.director.explain(&lookup(port), None);
            let explained = say(&lab);
            assert_eq!(explained, say(&lab), "{scheduler}: the same when asked twice");
            let Outcome::Scheduled(dest) = explained.outcome else {
                assert_eq!((scheduler, lab.server_of(&segment(port, SYN))), ("ovf", None), "all are full");
                break;
            };
            let server = lab.director.server_of(dest).expect("known").address.to_string();
            let got = lab.server_of(&segment(port, SYN)).expect("a server");
            assert_eq!(server, format!("192.168.150.{got}"), "{scheduler}, port {port}");
            assert_eq!(explained.service.expect("found"), ("web".to_owned(), How::Exact));
            let hop = explained.hop.expect("a way");
            assert_eq!(hop.neighbor.expect("known").mac, Some(server_mac(got)));
            assert_eq!((hop.link.as_deref(), hop.way, hop.mtu), (Some("lan"), Way::Dr, 1500));
        }
    }
}

#[test]
fn known_connections_templates_limits_and_strangers_are_explained() {
    let mut lab = Lab::warm(&own("max_connections = 2\non_no_server = \"drop\"", &BOTH));
    let outcome = |lab: &mut Lab, port| {
        let row = lab.connections().into_iter().find(|row| row.client.1 == port);
        lab.director.explain(&lookup(port), row.as_ref()).outcome
    };
    established(&mut lab, 1);
    assert!(matches!(outcome(&mut lab, 1), Outcome::Known(_)));
    lab.pass(&segment(1, FIN | ACK));
    assert!(matches!(outcome(&mut lab, 1), Outcome::Scheduled(_)), "a SYN begins anew");
    lab.pass(&segment(2, SYN));
    let full = Refusal { reason: DropReason::ServiceFull, answer: Answer::Nothing };
    assert_eq!(outcome(&mut lab, 3), Outcome::Refused(full));
    let nobody = Lookup { dst_port: 81, ..lookup(1) };
    let refusal = Refusal { reason: DropReason::NoService, answer: Answer::Reset };
    assert_eq!(lab.director.explain(&nobody, None).outcome, Outcome::Refused(refusal));

    let text = web("rr", &BOTH).replace("forwarding", "persistence = { timeout = \"300s\" }\nforwarding");
    let mut lab = Lab::warm(&text);
    assert_eq!(established(&mut lab, 1), 12);
    let explained = lab.director.explain(&lookup(2), None);
    assert!(matches!(explained.outcome, Outcome::Persistent(_)));
    let (dest, assured, _, holds) = explained.template.expect("a template");
    assert_eq!((Some(dest), assured, holds), (explained.outcome.dest(), true, true));
}

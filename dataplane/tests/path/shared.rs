//! VIPs that another director may have, and the frames that decide it.

use lb_dataplane::DropReason;
use lb_dataplane::classify::Lookup;
use lb_dataplane::director::Outcome;
use lb_dataplane::io::DeviceId;
use lb_dataplane::parse::L4;

use crate::frames::{ACK, CLIENT, DIRECTOR, SYN, arp, ethernet, from_client, icmp, ipv4, segment, udp};
use crate::lab::{Lab, web};

const VRRP: &str = "\n[[vrrp]]\nname = \"v\"\nport = \"lan\"\nvrid = 51\nvirtual_addresses = [\"192.168.150.100\"]\n\
                    excluded_addresses = [\"192.168.150.77\"]\n";
const BFD: &str = "\n[[bfd]]\nname = \"b\"\nport = \"lan\"\nneighbor = \"192.168.150.1\"\n";

fn lab(more: &str) -> Lab {
    Lab::warm(&format!("{}{VRRP}{more}", web("rr", &[(12, 1)])))
}

fn master(lab: &Lab, is: bool) {
    let id = lab.director.owner_of("v").expect("an instance");
    lab.director.owner_cells().set(id, is);
}

fn who_has(last: u8) -> Vec<u8> {
    arp(1, [0xff; 6], (CLIENT, [192, 168, 150, 1]), ([0; 6], [192, 168, 150, last]))
}

fn ping(last: u8) -> Vec<u8> {
    from_client("192.168.150.1", &format!("192.168.150.{last}"), 1, &icmp(vec![8, 0, 0, 0, 0, 1, 0, 1]))
}

/// An advert for a virtual router, from the client's place.
fn advert(vrid: u8, len: usize) -> Vec<u8> {
    let mut message = vec![0x31, vrid, 100, 1, 0, 100, 0, 0];
    message.resize(len.max(8), 0);
    let packet = ipv4([192, 168, 150, 1].into(), [224, 0, 0, 18].into(), 112, 255, false, &message);
    ethernet([1, 0, 0x5e, 0, 0, 0x12], CLIENT, 0x0800, &packet)
}

#[test]
fn a_vip_is_balanced_and_answered_for_by_its_master_alone() {
    let mut lab = lab("");
    let absent = |lab: &mut Lab| {
        for (what, frame) in [("ARP", who_has(100)), ("ARP for another", who_has(77))] {
            let count = lab.dropped(DropReason::ArpNotForUs);
            assert_eq!(lab.pass(&frame), Vec::<Vec<u8>>::new(), "{what}");
            assert_eq!(lab.dropped(DropReason::ArpNotForUs), count + 1, "{what}");
        }
        for (what, frame) in [("SYN", segment(9, SYN)), ("ping", ping(100)), ("known", segment(8, ACK))] {
            let count = lab.dropped(DropReason::NotMaster);
            assert_eq!(lab.pass(&frame), Vec::<Vec<u8>>::new(), "{what}");
            assert_eq!(lab.dropped(DropReason::NotMaster), count + 1, "{what}");
        }
        assert_eq!(lab.pass(&who_has(11)).len(), 1, "its own address is its own");
    };
    absent(&mut lab);
    master(&lab, true);
    assert_eq!(lab.pass(&who_has(100)).len(), 1);
    assert_eq!(lab.pass(&who_has(77)).len(), 1, "an address without a service");
    assert_eq!(lab.pass(&ping(77)).len(), 1);
    assert_eq!(lab.server_of(&segment(8, SYN)), Some(12));
    master(&lab, false);
    absent(&mut lab);
    assert_eq!(lab.connections().len(), 1, "what is established stays in the table");
    let syn = Lookup {
        src: [192, 168, 150, 1].into(),
        dst: [192, 168, 150, 100].into(),
        src_port: 9,
        dst_port: 80,
        protocol: L4::Tcp,
        device: DeviceId(0),
        vlan: 0,
    };
    let Outcome::Refused(refusal) = lab.director.explain(&syn, None).outcome else { panic!("not refused") };
    assert_eq!(refusal.reason, DropReason::NotMaster);
    master(&lab, true);
    assert_eq!(lab.server_of(&segment(8, ACK)), Some(12), "and goes on");
}

#[test]
fn a_worker_that_was_held_up_answers_nothing_before_vrrps_thread_has_looked() {
    let mut lab = lab("");
    let cells = lab.director.owner_cells();
    master(&lab, true);
    cells.settle(cells.doubts());
    // probes of next hops go out too, whatever comes
    let answers = |sent: Vec<Vec<u8>>| sent.iter().filter(|frame| frame[20..22] == [0, 2]).count();
    assert_eq!(answers(lab.pass(&who_has(100))), 1);
    // stopped for a second, in which a question came; the thread finds that another director is master
    lab.now_ms += 1_000;
    let refused = lab.dropped(DropReason::ArpNotForUs);
    assert_eq!(answers(lab.pass(&who_has(100))), 0);
    assert_eq!(lab.dropped(DropReason::ArpNotForUs), refused, "it is not looked at yet");
    let doubts = cells.doubts();
    master(&lab, false);
    cells.settle(doubts);
    lab.settle();
    assert_eq!((answers(lab.sent()), lab.dropped(DropReason::ArpNotForUs)), (0, refused + 1));
    // or that it is master still: then nothing was lost
    master(&lab, true);
    lab.now_ms += 1_000;
    assert_eq!(answers(lab.pass(&who_has(100))), 0);
    cells.settle(cells.doubts());
    lab.settle();
    assert_eq!(answers(lab.sent()), 1);
    // without such a thread nobody is waited for
    cells.leave();
    lab.now_ms += 1_000;
    assert_eq!(answers(lab.pass(&who_has(100))), 1);
}

#[test]
fn a_backup_that_hears_the_master_sees_no_conflict() {
    let mut lab = lab("");
    let announced = arp(1, [0xff; 6], (CLIENT, [192, 168, 150, 100]), ([0; 6], [192, 168, 150, 100]));
    lab.put(&announced);
    lab.workers[0].turn(lab.now_ms * 1_000_000);
    assert!(lab.director.poll(lab.now_ms).is_empty());
    master(&lab, true);
    lab.put(&announced);
    lab.workers[0].turn(lab.now_ms * 1_000_000);
    assert_eq!(lab.director.poll(lab.now_ms).len(), 1);
}

#[test]
fn shared_addresses_are_not_announced_at_the_start() {
    let lab = &mut Lab::cold(&format!("{}{VRRP}", web("rr", &[])));
    lab.wait(4000);
    let about = |frame: &Vec<u8>| frame[12..14] == [8, 6] && frame[38..42] == [192, 168, 150, 100];
    assert_eq!(lab.sent().iter().filter(|frame| about(frame)).count(), 0, "that is VRRP's to do");
}

#[test]
fn ping_is_for_masters_that_accept() {
    let mut lab = lab("accept = false\n");
    master(&lab, true);
    assert!(lab.pass(&ping(100)).is_empty());
    assert_eq!(lab.dropped(DropReason::NotAccepted), 1);
    assert_eq!(lab.server_of(&segment(8, SYN)), Some(12), "services are balanced all the same");
    assert_eq!(lab.pass(&ping(11)).len(), 1);
}

#[test]
fn a_virtual_mac_is_the_masters() {
    let mut lab = lab("vmac = true\n");
    let mac = [0, 0, 0x5e, 0, 1, 51];
    let to_it = |frame: Vec<u8>| [&mac[..], &frame[6..]].concat();
    assert!(lab.pass(&to_it(segment(8, SYN))).is_empty());
    assert_eq!(lab.dropped(DropReason::NotOurMac), 1);
    master(&lab, true);
    let reply = lab.pass(&who_has(100)).remove(0);
    assert_eq!((&reply[6..12], &reply[22..28]), (&mac[..], &mac[..]));
    let reply = lab.pass(&who_has(11)).remove(0);
    assert_eq!(reply[22..28], DIRECTOR);
    assert_eq!(lab.server_of(&to_it(segment(8, SYN))), Some(12));
}

#[test]
fn adverts_reach_the_control_core_before_packets_leave_room() {
    let mut lab = lab(BFD);
    let channel = lab.director.channel();
    lab.pass(&advert(51, 12));
    let heard = channel.receive().unwrap();
    assert_eq!((&heard.frame[..], heard.l3, heard.link.0), (&advert(51, 12)[..], 14, 0));
    lab.pass(&advert(52, 12));
    lab.pass(&advert(51, 1490));
    assert!(channel.receive().is_none());
    assert_eq!(lab.dropped(DropReason::ControlNotForUs), 2, "another router's, and one that is too long");
    let control = from_client("192.168.150.1", "192.168.150.11", 17, &udp(49152, 3784, 24));
    lab.pass(&control);
    assert_eq!(channel.receive().unwrap().frame[..], control[..]);
    let stranger = from_client("192.168.150.2", "192.168.150.11", 17, &udp(49152, 3784, 24));
    lab.pass(&stranger);
    assert!(channel.receive().is_none());
    assert_eq!(lab.dropped(DropReason::NoService), 1);
    master(&lab, true);
    lab.pass(&control);
    assert_eq!(channel.receive().unwrap().frame[..], control[..], "when every address is its own, too");
    for _ in 0..70 {
        lab.pass(&advert(51, 12));
    }
    assert_eq!(lab.dropped(DropReason::ControlQueueFull), 6, "of 70, with room for 64");
    let totals = lab.director.totals();
    assert_eq!(totals.rx + totals.originated, totals.tx + totals.delivered + totals.dropped + totals.held);
}

#[test]
fn what_the_control_core_sends_leaves_first_and_finds_room() {
    let mut lab = lab("");
    master(&lab, true);
    let channel = lab.director.channel();
    for port in 0..3 {
        lab.put(&segment(port, SYN));
    }
    channel.send(DeviceId(0), &advert(51, 12)).unwrap();
    assert!(!channel.is_drained());
    lab.turn();
    let sent = lab.sent();
    assert_eq!((sent.len(), &sent[0]), (4, &advert(51, 12)), "before the packets of the turn");
    assert!(channel.is_drained());
    // the device takes nothing: a burst of packets waits, one of which makes room
    lab.workers[0].io_mut().room = 0;
    for port in 0..32 {
        lab.put(&segment(100 + port, SYN));
    }
    lab.turn();
    channel.send(DeviceId(0), &advert(51, 16)).unwrap();
    lab.turn();
    assert_eq!(lab.dropped(DropReason::TxFull), 1);
    lab.workers[0].io_mut().room = usize::MAX;
    lab.turn();
    assert_eq!(lab.sent()[0], advert(51, 16));
    for _ in 0..64 {
        channel.send(DeviceId(0), &advert(51, 12)).unwrap();
    }
    assert!(channel.send(DeviceId(0), &advert(51, 12)).is_err(), "64 may wait");
    assert!(channel.send(DeviceId(0), &[0; 1519]).is_err());
}

#[test]
fn an_instance_keeps_its_bit_and_a_new_one_gets_another() {
    let mut lab = lab("");
    let first = lab.director.owner_of("v").unwrap();
    master(&lab, true);
    lab.apply(&format!("{}{}{VRRP}", web("rr", &[(12, 1)]), BFD));
    lab.settle();
    lab.clear();
    assert_eq!(lab.director.owner_of("v"), Some(first));
    assert_eq!(lab.server_of(&segment(8, SYN)), Some(12), "a change takes no VIP away");
    let renamed = VRRP.replace("\"v\"", "\"w\"");
    lab.apply(&format!("{}{renamed}", web("rr", &[(12, 1)])));
    lab.settle();
    lab.clear();
    assert_ne!(lab.director.owner_of("w"), Some(first), "the old one's thread may still write its bit");
    assert!(lab.pass(&segment(9, SYN)).is_empty());
    lab.apply(&web("rr", &[(12, 1)]));
    lab.settle();
    let vip = |frame: &Vec<u8>| frame[12..14] == [8, 6] && frame[38..42] == [192, 168, 150, 100];
    assert!(lab.sent().iter().any(vip), "now it is announced as any other");
    assert_eq!(lab.server_of(&segment(10, SYN)), Some(12), "without VRRP it is this director's alone");
}

#[test]
fn a_worker_that_was_stopped_between_clock_and_queue_does_not_answer_either() {
    let mut lab = lab("");
    let cells = lab.director.owner_cells();
    master(&lab, true);
    cells.settle(cells.doubts());
    lab.workers[0].io_mut().clock_ns = 1_000_000;
    lab.settle();
    let _ = lab.sent();
    let answers = |sent: Vec<Vec<u8>>| sent.iter().filter(|frame| frame[20..22] == [0, 2]).count();
    // the time of the turn is old, that of the port is not; the thread looks a little later than the worker
    for (is, wanted) in [(true, 1), (false, 0)] {
        lab.workers[0].io_mut().clock_ns += 50_000_000;
        let id = lab.director.owner_of("v").expect("an instance");
        let (cells, before) = (cells.clone(), cells.doubts());
        let thread = std::thread::spawn(move || {
            while cells.doubts() == before {
                std::thread::yield_now();
            }
            cells.set(id, is);
            cells.settle(cells.doubts());
        });
        assert_eq!(answers(lab.pass(&who_has(100))), wanted);
        thread.join().expect("it looked");
    }
    // a rest as long as workers have is none
    lab.workers[0].io_mut().clock_ns += 4_000_000;
    master(&lab, true);
    assert_eq!(answers(lab.pass(&who_has(100))), 1);
}

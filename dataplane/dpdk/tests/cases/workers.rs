//! Several workers: rings between them, queues that they share, their threads.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lb_config::Device;
use lb_dataplane::io::{Burst, DeviceId, Packet, PacketIo, WorkerId};
use lb_dpdk::{Clock, LaunchError, Mbuf, idle_sleep};

use crate::support::{MBUFS, eal, frame, open, packet, receive, send, wait_for};

pub fn hand_over() {
    let eal = eal(2);
    let (devices, mut ios) = open(&eal, &[Device::Ring("a".into())]).unwrap();
    let mut second = ios.pop().unwrap();
    let mut first = ios.pop().unwrap();

    send(&mut first, 0, &(0..20).map(|n| frame(n, 60)).collect::<Vec<_>>());
    let mut burst = Burst::new();
    first.rx(DeviceId(0), &mut burst);
    assert_eq!(burst.len(), 20);
    first.hand_over(WorkerId(0), &mut burst);
    first.hand_over(WorkerId(2), &mut burst);
    assert_eq!(burst.len(), 20, "no ring leads to ourselves or to a worker that does not exist");
    first.hand_over(WorkerId(1), &mut burst);
    assert!(burst.is_empty());

    let mut taken = Burst::<Mbuf>::new();
    first.take_over(&mut taken);
    assert!(taken.is_empty());
    second.take_over(&mut taken);
    let numbers: Vec<_> = taken.iter().map(|packet| packet.bytes().to_vec()).collect();
    assert_eq!(numbers, (0..20).map(|n| frame(n, 60)).collect::<Vec<_>>());
    assert!(taken.iter().all(|packet| packet.device() == DeviceId(0)), "the device is lost on the way");
    taken.clear();
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
}

pub fn full() {
    let eal = eal(2);
    let (devices, mut ios) = open(&eal, &[Device::Null]).unwrap();
    let mut sent = 0;
    let left = loop {
        let mut burst: Burst<Mbuf> = (0..32).map(|n| packet(&mut ios[0], &frame(sent + n, 60))).collect();
        ios[0].hand_over(WorkerId(1), &mut burst);
        sent += 32 - burst.len() as u32;
        if !burst.is_empty() {
            break burst;
        }
        assert!(sent < MBUFS, "the ring never fills");
    };
    assert_eq!(left[0].bytes(), frame(sent, 60), "what is left is what did not fit");
    drop(left);

    // Frames on a ring go back to the pool with it.
    let (free, all) = devices.mbufs();
    assert_eq!(free + sent, all);
    let mut taken = Burst::<Mbuf>::new();
    ios[1].take_over(&mut taken);
    assert_eq!(taken[31].bytes(), frame(31, 60));
    drop(taken);
    drop(ios);
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
}

pub fn shared_queue() {
    let input = std::env::temp_dir().join(format!("sluice-shared-{}.pcap", std::process::id()));
    let output = input.with_extension("pcap.out");
    std::fs::write(
        &input,
        [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0],
    )
    .unwrap();
    let eal = eal(2);
    let (devices, mut ios) = open(&eal, &[Device::Pcap(input.clone())]).unwrap();
    let info = &devices.infos()[0];
    assert_eq!((info.rx_queues, info.tx_queues, info.rss), (1, 1, false));

    let sent = |devices: &lb_dpdk::Devices| devices.stats(DeviceId(0)).unwrap().tx_packets;
    send(&mut ios[1], 0, &(0..100).map(|n| frame(n, 60)).collect::<Vec<_>>());
    assert_eq!(sent(&devices), 0, "a worker sent on a queue that is not its own");
    for _ in 0..4 {
        ios[0].rx(DeviceId(0), &mut Burst::new());
    }
    assert_eq!(sent(&devices), 100, "the queue's owner sends for the others when it receives");
    send(&mut ios[1], 0, &[frame(100, 60)]);
    send(&mut ios[0], 0, &[frame(101, 60)]);
    assert_eq!(sent(&devices), 102, "the queue's owner sends for the others when it sends");
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
    std::fs::remove_file(input).unwrap();
    std::fs::remove_file(output).unwrap();
}

pub fn own_queues() {
    let eal = eal(2);
    let (devices, mut ios) = open(&eal, &[Device::Ring("a".into())]).unwrap();
    assert_eq!((devices.infos()[0].rx_queues, devices.infos()[0].tx_queues), (2, 2));
    send(&mut ios[1], 0, &[frame(1, 60)]);
    let mut burst = Burst::<Mbuf>::new();
    ios[0].rx(DeviceId(0), &mut burst);
    assert!(burst.is_empty());
    assert_eq!(receive(&mut ios[1], 0, 1), [frame(1, 60)]);
}

pub fn threads() {
    const FRAMES: u32 = 100_000;

    let eal = eal(2);
    let (devices, mut ios) = open(&eal, &[Device::Ring("a".into())]).unwrap();
    let (mut second, mut first) = (ios.pop().unwrap(), ios.pop().unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let stop = done.clone();

    // Worker 0 makes frames and hands them to worker 1, which sends them through its ring and hands them back.
    let one = eal.launch(WorkerId(0), move || {
        let (mut made, mut back) = (0, 0);
        let mut burst = Burst::<Mbuf>::new();
        while back < FRAMES {
            while made < FRAMES && !burst.is_full() && made - back < 512 {
                burst.push(packet(&mut first, &frame(made, 60)));
                made += 1;
            }
            first.hand_over(WorkerId(1), &mut burst);
            let mut returned = Burst::<Mbuf>::new();
            first.take_over(&mut returned);
            for packet in returned {
                assert_eq!(packet.bytes(), frame(back, 60));
                back += 1;
            }
            std::thread::yield_now();
        }
        stop.store(true, Ordering::SeqCst);
    });
    let (cpu, cpus) = mpsc::channel();
    let two = eal.launch(WorkerId(1), move || {
        let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
        let pinned: Vec<_> =
            (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).collect();
        cpu.send(pinned).unwrap();
        let mut burst = Burst::<Mbuf>::new();
        let mut outgoing = Burst::<Mbuf>::new();
        while !done.load(Ordering::SeqCst) {
            second.take_over(&mut burst);
            second.tx(DeviceId(0), &mut burst);
            second.rx(DeviceId(0), &mut outgoing);
            second.hand_over(WorkerId(0), &mut outgoing);
            std::thread::yield_now();
        }
    });
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(cpus.recv().unwrap(), [1], "worker 1 is not pinned to its CPU");
    assert!(matches!(eal.launch(WorkerId(1), || ()), Err(LaunchError::Refused { worker: 1, .. })));
    assert!(matches!(
        eal.launch(WorkerId(2), || ()),
        Err(LaunchError::NoSuchWorker { worker: 2, workers: 2 })
    ));
    one.join();
    wait_for("worker 1 to end", || two.is_finished());
    two.join();
    assert_eq!(devices.mbufs(), (MBUFS, MBUFS));
    // A worker that ended can be started again.
    eal.launch(WorkerId(1), || ()).unwrap().join();
}

pub fn panic() {
    let eal = eal(1);
    eal.launch(WorkerId(0), || panic!("as the test wants")).unwrap().join();
}

pub fn judge_panic(status: ExitStatus, output: &str) -> Result<(), String> {
    use std::os::unix::process::ExitStatusExt;
    if status.signal() != Some(nix::libc::SIGABRT) {
        return Err(format!("ended with {status}"));
    }
    let wanted = "a worker panicked, the process ends: as the test wants";
    if output.contains(wanted) { Ok(()) } else { Err("the panic's message is missing".to_owned()) }
}

pub fn sleeps() {
    let eal = eal(1);
    let (sender, receiver) = mpsc::channel();
    let clock = Clock::new(&eal);
    let run = move || {
        let sleep = |asked| {
            let (start, from) = (Instant::now(), clock.now_ns());
            idle_sleep(asked);
            let counted = clock.now_ns() - from;
            (start.elapsed(), Duration::from_nanos(counted))
        };
        let short: Vec<_> = (0..500).map(|_| sleep(Duration::from_micros(20)).0).collect();
        let long: Vec<_> = (0..10).map(|_| sleep(Duration::from_millis(20))).collect();
        sender.send((short, long)).unwrap();
    };
    eal.launch(WorkerId(0), run).unwrap().join();
    let (mut short, long) = receiver.recv().unwrap();
    short.sort();
    assert!(short[0] >= Duration::from_micros(20));
    // With the kernel's usual slack of 50 us all take 70 us and more. On a busy machine some do anyhow.
    assert!(short[50] < Duration::from_micros(60), "20 us took {:?} at the 10th percentile", short[50]);
    let agree = |(elapsed, counted): &(Duration, Duration)| elapsed.abs_diff(*counted) < *elapsed / 100;
    assert!(long.iter().any(agree), "time passed and time counted: {long:?}");
}

/// Tells the second director from the first.
const SECOND: &str = "SLUICE_DPDK_SECOND";

pub fn side_by_side() {
    let eal = eal(1);
    let (_devices, mut ios) = open(&eal, &[Device::Ring("a".into())]).unwrap();
    send(&mut ios[0], 0, &[frame(1, 60)]);
    if std::env::var_os(SECOND).is_none() {
        let second = std::process::Command::new(std::env::current_exe().unwrap()).env(SECOND, "1").status();
        assert!(second.unwrap().success());
    }
    assert_eq!(receive(&mut ios[0], 0, 1), [frame(1, 60)]);
}

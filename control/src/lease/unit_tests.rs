use std::sync::mpsc::{Receiver, channel};

use lb_config::Lease;

use super::super::fake::Fake;
use super::super::{Client, Order};
use super::*;

struct Side {
    client: Client,
    told: Receiver<Told>,
}

/// A director's end, which was told to watch `u`.
fn side(fake: &Fake, name: &str) -> Side {
    let lease = Lease {
        endpoints: vec![fake.endpoint()],
        ttl: Duration::from_secs(2),
        margin: Duration::from_millis(500),
        timeout: Duration::from_millis(200),
        ..Lease::default()
    };
    let (reports, told) = channel();
    let client = Client::start(Arc::new(lease), name, reports, std::thread::current()).unwrap();
    client.order(Order::Watch("u".to_owned()));
    Side { client, told }
}

impl Side {
    fn want(&self, wish: u64) {
        self.client.order(Order::Want("u".to_owned(), wish));
    }

    /// What is told until `wanted` is; how long that took.
    fn until(&self, wanted: impl Fn(&Told) -> bool) -> (Told, Duration) {
        let begun = Instant::now();
        loop {
            let told = self.told.recv_timeout(Duration::from_secs(6)).expect("told in time");
            if wanted(&told) {
                return (told, begun.elapsed());
            }
        }
    }
}

fn held(told: &Told) -> bool {
    matches!(told.state, SeatState::Held(_))
}

fn other(told: &Told) -> bool {
    matches!(told.state, SeatState::Other(_))
}

#[test]
fn one_holds_it_and_gives_it_back_at_once() {
    let fake = Fake::start();
    let (one, two) = (side(&fake, "one"), side(&fake, "two"));
    one.until(|told| told.state == SeatState::Free);
    let begun = Instant::now();
    one.want(7);
    let (told, _) = one.until(held);
    assert_eq!(told.wish, 7);
    let SeatState::Held(until) = told.state else { unreachable!() };
    let lasts = until.duration_since(begun);
    assert!((Duration::from_millis(1_450)..Duration::from_millis(2_000)).contains(&lasts), "{lasts:?}");
    two.want(1);
    assert_eq!(two.until(other).0.state, SeatState::Other("one".to_owned()));
    // renewed for longer than it lasts
    let later = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < later {
        assert!(!held(&two.until(|_| true).0), "two hold it");
    }
    let (told, _) = one.until(|told| matches!(told.state, SeatState::Held(until) if until > later));
    assert!(held(&told));
    one.client.order(Order::Yield("u".to_owned()));
    let (_, took) = two.until(held);
    assert!(took < Duration::from_millis(1_000), "{took:?} although it was given back");
    // and at the end as well
    two.client.finish();
    assert_eq!(fake.leases(), 0);
}

#[test]
fn one_that_is_dead_is_followed_when_its_lease_has_ended_and_not_before() {
    let fake = Fake::start();
    let two = side(&fake, "two");
    // somebody who was killed
    let etcd = Etcd::new(Arc::new(Lease {
        endpoints: vec![fake.endpoint()],
        ttl: Duration::from_secs(2),
        ..Lease::default()
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    runtime.block_on(async {
        let (id, _) = etcd.grant().await.unwrap();
        assert_eq!(etcd.make("/sluice/vip/u", "one", id).await, Ok(true));
    });
    two.want(1);
    two.until(held);
    let took = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[test]
fn silence_of_etcd_is_told_and_so_is_its_end() {
    let fake = Fake::start();
    let one = side(&fake, "one");
    one.want(1);
    one.until(held);
    fake.silence(true);
    let (_, took) = one.until(|told| told.state == SeatState::Away);
    assert!((Duration::from_millis(1_400)..Duration::from_secs(4)).contains(&took), "{took:?}");
    fake.silence(false);
    // its lease has ended meanwhile or not: it is held again, and nobody was told that it was free
    let (told, _) = one.until(|told| told.state != SeatState::Away);
    assert!(held(&told), "{told:?}");
}

#[test]
fn a_key_that_is_taken_away_by_hand_is_noticed() {
    let fake = Fake::start();
    let one = side(&fake, "one");
    one.want(1);
    one.until(held);
    fake.delete("/sluice/vip/u");
    let (_, took) = one.until(|told| told.state == SeatState::Free);
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    // it is still wanted
    one.until(held);
    // what is watched no more is given back
    one.client.order(Order::Forget("u".to_owned()));
    let until = Instant::now() + Duration::from_secs(2);
    while fake.leases() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(fake.leases(), 0);
}

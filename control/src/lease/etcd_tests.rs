use std::net::TcpListener;
use std::time::Duration;

use super::super::fake::Fake;
use super::*;

fn etcd(endpoints: Vec<Endpoint>) -> Etcd {
    Etcd::new(Arc::new(Lease { endpoints, timeout: Duration::from_millis(300), ..Lease::default() }))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_key_is_made_once_and_ends_with_its_lease() {
    let fake = Fake::start();
    let etcd = etcd(vec![fake.endpoint()]);
    run(async {
        assert_eq!(etcd.get("/k").await, Ok(None));
        let (lease, seconds) = etcd.grant().await.unwrap();
        assert_eq!(seconds, 3);
        assert_eq!(etcd.make("/k", "node01", lease).await, Ok(true));
        assert_eq!(etcd.get("/k").await, Ok(Some(Entry { value: "node01".to_owned(), lease })));
        let (other, _) = etcd.grant().await.unwrap();
        assert_eq!(etcd.make("/k", "node02", other).await, Ok(false));
        assert_eq!(etcd.renew(lease).await, Ok(Some(3)));
        assert_eq!(etcd.revoke(lease).await, Ok(()));
        assert_eq!(etcd.get("/k").await, Ok(None));
        assert_eq!(etcd.renew(lease).await, Ok(None), "a lease that is gone");
        assert_eq!(etcd.revoke(lease).await, Ok(()), "given back already");
        let refused = etcd.make("/k", "node01", lease).await.unwrap_err();
        assert!(refused.to_string().contains("requested lease not found (code 5)"), "{refused}");
    });
}

#[test]
fn another_member_is_asked_when_one_does_not_answer() {
    let (silent, whole) = (Fake::start(), Fake::start());
    silent.silence(true);
    // nobody listens at the first
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed: Endpoint = format!("http://{closed}").parse().unwrap();
    let etcd = etcd(vec![closed, silent.endpoint(), whole.endpoint()]);
    run(async {
        assert_eq!(etcd.get("/k").await, Ok(None));
        // the one that answered is asked first from now on
        let begun = std::time::Instant::now();
        assert_eq!(etcd.get("/k").await, Ok(None));
        assert!(begun.elapsed() < Duration::from_millis(300));
        // a member that is unavailable is passed by as well, a refusal is all of theirs
        whole.refuse(Some(14));
        assert!(matches!(etcd.get("/k").await, Err(EtcdError::Away { .. })));
        whole.refuse(Some(7));
        assert!(matches!(etcd.get("/k").await, Err(EtcdError::Refused { code: 7, .. })));
    });
}

#[test]
fn a_user_gets_a_new_token_when_the_old_one_has_ended() {
    let fake = Fake::start();
    fake.auth("me", "hush", "token-1");
    let with = |password: &str| {
        Etcd::new(Arc::new(Lease {
            endpoints: vec![fake.endpoint()],
            user: Some("me".to_owned()),
            password: Some(password.to_owned()),
            ..Lease::default()
        }))
    };
    run(async {
        let etcd = with("hush");
        assert_eq!(etcd.get("/k").await, Ok(None));
        assert_eq!(etcd.get("/k").await, Ok(None));
        fake.auth("me", "hush", "token-2");
        assert_eq!(etcd.get("/k").await, Ok(None));
        let asked = ["/v3/auth/authenticate", "/v3/kv/range"];
        let wanted = [asked[0], asked[1], asked[1], asked[1], asked[0], asked[1]];
        assert_eq!(fake.log(), wanted);
        assert!(matches!(with("wrong").get("/k").await, Err(EtcdError::Refused { code: 3, .. })));
    });
}

#[test]
fn over_tls_both_sides_show_who_they_are() {
    let dir = std::env::temp_dir().join(format!("sluice-lease-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let fake = Fake::start_tls(&dir);
    let endpoint: Endpoint = format!("https://{}", fake.address).parse().unwrap();
    let whole = Lease {
        endpoints: vec![endpoint],
        ca: Some(dir.join("ca.pem")),
        certificate: Some(dir.join("client.pem")),
        key: Some(dir.join("client.key")),
        timeout: Duration::from_secs(5),
        ..Lease::default()
    };
    let asked = |lease: &Lease| run(Etcd::new(Arc::new(lease.clone())).get("/k"));
    assert_eq!(asked(&whole), Ok(None));
    for less in [
        // a stranger to etcd
        Lease { certificate: None, key: None, ..whole.clone() },
        // signed by nobody whom the system knows
        Lease { ca: None, ..whole.clone() },
        Lease { ca: Some(dir.join("nosuch.pem")), ..whole.clone() },
    ] {
        let result = asked(&less);
        assert!(matches!(result, Err(EtcdError::Away { .. })), "{result:?}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_is_no_answer_is_none() {
    use std::io::Write;
    for text in ["HTTP/1.1 200 OK\r\n\r\nnonsense", "HTTP/1.1 502 X\r\n\r\n<html>", "SSH-2.0\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(text.as_bytes());
        });
        let etcd = etcd(vec![format!("http://{address}").parse().unwrap()]);
        let result = run(etcd.get("/k"));
        assert!(matches!(result, Err(EtcdError::Away { .. })), "{text:?}: {result:?}");
        answers.join().unwrap();
    }
}

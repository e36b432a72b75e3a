//! An etcd of one member, as far as leases go: for tests. Written from etcd's documentation, not from the client.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};

#[derive(Default)]
struct State {
    keys: HashMap<String, (String, i64)>,
    leases: HashMap<i64, (Instant, u64)>,
    next: i64,
    silent: bool,
    refuses: Option<i64>,
    /// User, password and the token that is valid.
    auth: Option<(String, String, String)>,
    log: Vec<String>,
}

/// See the module. Its threads end with the test's process.
#[derive(Clone)]
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// One that speaks TLS and wants a certificate of its clients; what they need is in `dir` then: `ca.pem`, and
    /// `client.pem` with `client.key`.
    pub fn start_tls(dir: &Path) -> Self {
        Self::listen(Some(Arc::new(tls(dir))))
    }

    fn listen(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let served = fake.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (served, tls) = (served.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => served.serve(&mut stream),
                    Some(config) => {
                        let mut connection = ServerConnection::new(config).unwrap();
                        let mut both = rustls::Stream::new(&mut connection, &mut stream);
                        served.serve(&mut both);
                        connection.send_close_notify();
                        let _ = connection.complete_io(&mut stream);
                    }
                });
            }
        });
        fake
    }

    pub fn endpoint(&self) -> lb_config::Endpoint {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// Takes connections and answers nothing.
    pub fn silence(&self, silent: bool) {
        self.state.lock().unwrap().silent = silent;
    }

    /// Answers everything with this code.
    pub fn refuse(&self, code: Option<i64>) {
        self.state.lock().unwrap().refuses = code;
    }

    /// Wants this user; tokens given out before are not valid any more.
    pub fn auth(&self, user: &str, password: &str, token: &str) {
        let own = (user.to_owned(), password.to_owned(), token.to_owned());
        self.state.lock().unwrap().auth = Some(own);
    }

    /// Paths so far.
    pub fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }

    /// Takes a key away by hand.
    pub fn delete(&self, key: &str) {
        self.state.lock().unwrap().keys.remove(&STANDARD.encode(key));
    }

    /// Leases that are there.
    pub fn leases(&self) -> usize {
        self.state.lock().unwrap().leases.len()
    }

    fn serve(&self, stream: &mut (impl Read + Write)) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let length = field("content-length").map_or(0, |text| text.parse().unwrap());
        let token = field("authorization");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        if self.state.lock().unwrap().silent {
            thread::sleep(Duration::from_secs(30));
            return;
        }
        let (status, answer) = self.answer(&path, &body, token.as_deref());
        let mut text = answer.to_string();
        if path.ends_with("keepalive") {
            text.push('\n');
        }
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
        let _ = stream.write_all((head + &text).as_bytes()).and_then(|()| stream.flush());
    }

    fn answer(&self, path: &str, body: &Value, token: Option<&str>) -> (u16, Value) {
        let no =
            |status, code: i64, why: &str| (status, json!({ "error": why, "code": code, "message": why }));
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        state.log.push(path.to_owned());
        if let Some(code) = state.refuses {
            return no(503, code, "refused");
        }
        if let Some((user, password, valid)) = &state.auth {
            if path == "/v3/auth/authenticate" {
                let right = body["name"] == **user && body["password"] == **password;
                return match right {
                    true => (200, json!({ "token": valid })),
                    false => no(400, 3, "authentication failed"),
                };
            }
            if token != Some(valid) {
                return no(401, 16, "invalid auth token");
            }
        }
        let now = Instant::now();
        let over: Vec<i64> =
            state.leases.iter().filter(|(_, (end, _))| *end <= now).map(|(id, _)| *id).collect();
        for id in over {
            state.leases.remove(&id);
            state.keys.retain(|_, (_, lease)| *lease != id);
        }
        let id = || body["ID"].as_str().unwrap_or("0").parse::<i64>().unwrap();
        match path {
            "/v3/lease/grant" => {
                state.next += 1;
                let ttl = body["TTL"].as_u64().unwrap();
                state.leases.insert(state.next, (now + Duration::from_secs(ttl), ttl));
                (200, json!({ "ID": state.next.to_string(), "TTL": ttl.to_string() }))
            }
            "/v3/lease/keepalive" => match state.leases.get_mut(&id()) {
                Some((end, ttl)) => {
                    *end = now + Duration::from_secs(*ttl);
                    (200, json!({ "result": { "ID": id().to_string(), "TTL": ttl.to_string() } }))
                }
                // etcd leaves zeros out
                None => (200, json!({ "result": { "ID": id().to_string() } })),
            },
            "/v3/lease/revoke" => match state.leases.remove(&id()) {
                Some(_) => {
                    state.keys.retain(|_, (_, lease)| *lease != id());
                    (200, json!({ "header": {} }))
                }
                None => no(404, 5, "etcdserver: requested lease not found"),
            },
            "/v3/kv/range" => {
                let key = body["key"].as_str().unwrap();
                match state.keys.get(key) {
                    Some((value, lease)) => {
                        let found = json!({ "key": key, "value": value, "lease": lease.to_string() });
                        (200, json!({ "kvs": [found], "count": "1" }))
                    }
                    None => (200, json!({ "header": {} })),
                }
            }
            "/v3/kv/txn" => {
                let compare = &body["compare"][0];
                assert_eq!(
                    (&compare["target"], &compare["create_revision"]),
                    (&json!("CREATE"), &json!("0"))
                );
                let put = &body["success"][0]["request_put"];
                let key = put["key"].as_str().unwrap().to_owned();
                if state.keys.contains_key(compare["key"].as_str().unwrap()) {
                    return (200, json!({ "header": {} }));
                }
                let lease = put["lease"].as_str().unwrap().parse().unwrap();
                if !state.leases.contains_key(&lease) {
                    return no(404, 5, "etcdserver: requested lease not found");
                }
                state.keys.insert(key, (put["value"].as_str().unwrap().to_owned(), lease));
                (200, json!({ "succeeded": true }))
            }
            _ => no(404, 5, "not found"),
        }
    }
}

fn tls(dir: &Path) -> ServerConfig {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let sign = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    let (certificate, key) = sign("director");
    std::fs::write(dir.join("client.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("client.key"), key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let (certificate, key) = sign("127.0.0.1");
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder = builder.with_client_cert_verifier(verifier);
    builder.with_single_cert(vec![certificate.der().clone()], key).unwrap()
}

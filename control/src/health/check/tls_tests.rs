//! HTTPS checks against a server whose certificates are made here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::tests::{fail, pass, run};

/// A signer and what it signed, as files.
struct Paper {
    dir: PathBuf,
    authority: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Paper {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sluice-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
        Self { dir, authority, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A server of `www.example.org` and 127.0.0.1 that may want a certificate of its clients; tells the name that each asked for.
    fn serve(&self, wants_client: bool) -> (SocketAddr, mpsc::Receiver<Option<String>>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let builder = match wants_client {
            true => builder.with_client_cert_verifier(verifier),
            false => builder.with_no_client_auth(),
        };
        let (certificate, key) = self.sign("www.example.org");
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, names) = mpsc::channel();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut session = ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::Stream::new(&mut session, &mut socket);
                let mut buffer = [0; 1024];
                if stream.read(&mut buffer).is_err() {
                    continue;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                session.send_close_notify();
                let _ = session.complete_io(&mut socket);
                let _ = sender.send(session.server_name().map(str::to_owned));
            }
        });
        (address, names)
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        // What is left in /tmp disturbs nobody.
        let _ = std::fs::remove_dir_all(Path::new(&self.dir));
    }
}

#[test]
fn certificates_count_where_that_is_wanted() {
    let paper = Paper::new("server");
    let (address, names) = paper.serve(false);
    let asked = || names.recv_timeout(Duration::from_secs(10)).unwrap();
    let check = |more: &str| run(&format!("{{ type = \"https\", regex = \"^ok$\", {more} }}"), address);
    assert_eq!(pass(check("status = 200")).0, "status 200");
    assert_eq!(asked(), None, "an address is not sent as a name");
    pass(check("host = \"www.example.org\""));
    assert_eq!(asked().as_deref(), Some("www.example.org"));
    pass(check("host = \"www.example.org\", sni = \"other.example.org\""));
    assert_eq!(asked().as_deref(), Some("other.example.org"));
    let ca = paper.file("ca.pem");
    pass(check(&format!("verify = true, ca = \"{ca}\", sni = \"www.example.org\"")));
    let why = fail(check(&format!("verify = true, ca = \"{ca}\", sni = \"other.example.org\"")));
    assert!(why.starts_with("TLS: invalid peer certificate: certificate not valid for name"), "{why}");
    let stranger = Paper::new("stranger");
    let ca = stranger.file("ca.pem");
    let why = fail(check(&format!("verify = true, ca = \"{ca}\", sni = \"www.example.org\"")));
    assert!(why.starts_with("TLS: invalid peer certificate"), "{why}");
    let why = fail(check("verify = true, ca = \"/nonexistent.pem\", sni = \"www.example.org\""));
    assert!(why.starts_with("/nonexistent.pem: "), "{why}");
}

#[test]
fn a_webhook_is_told_whose_certificate_is_signed_as_configured() {
    use crate::health::event::{EventKind, Events};
    let (paper, stranger) = (Paper::new("hook"), Paper::new("other-hook"));
    let (address, _names) = paper.serve(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = |ca: Option<String>| {
        let news = crate::health::tell::News {
            event: Events::default().add(EventKind::Vrrp, "", "", "instance a: master"),
            director: "node01".to_owned(),
            command: Vec::new(),
            user: None,
            webhooks: Vec::new(),
            ca: ca.map(PathBuf::from),
            mail: None,
            timeout: Duration::from_secs(10),
        };
        runtime.block_on(crate::health::tell::post(&format!("https://{address}/hook"), &news))
    };
    told(Some(paper.file("ca.pem"))).unwrap();
    let why = told(Some(stranger.file("ca.pem"))).unwrap_err().0;
    assert!(why.starts_with("TLS: invalid peer certificate"), "{why}");
    told(None).unwrap_err();
}

#[test]
fn a_certificate_is_shown_to_a_server_that_wants_one() {
    let paper = Paper::new("client");
    let (address, _names) = paper.serve(true);
    let (certificate, key) = paper.sign("checker");
    std::fs::write(paper.file("own.pem"), certificate.pem()).unwrap();
    std::fs::write(paper.file("own.key"), key.serialize_pem()).unwrap();
    let own = format!("certificate = \"{}\", key = \"{}\"", paper.file("own.pem"), paper.file("own.key"));
    assert_eq!(pass(run(&format!("{{ type = \"https\", {own} }}"), address)).0, "status 200");
    fail(run("{ type = \"https\" }", address));
}

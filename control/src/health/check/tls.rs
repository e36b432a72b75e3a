//! TLS of checks and webhooks.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use lb_config::health::TlsCheck;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Failure;

/// Where Debian keeps the certificates of those who sign others.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A side that connects.
pub(crate) struct Client(TlsConnector);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Reads the certificates.
    ///
    /// Errors: a file cannot be read or holds no certificate or key.
    pub async fn new(config: &TlsCheck) -> Result<Self, Failure> {
        let config = config.clone();
        // Files may be on a slow disk.
        let made = tokio::task::spawn_blocking(move || client_config(&config)).await;
        let config = made.map_err(|error| Failure(error.to_string()))??;
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Errors: no handshake comes about, or the certificate is not valid and must be.
    pub async fn connect(
        &self,
        stream: TcpStream,
        name: Option<&str>,
        address: IpAddr,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        // A virtual host may carry a port; an address is never sent as a name.
        let bare = name.map(|name| name.rsplit_once(':').map_or(name, |(host, _)| host));
        let name = match bare {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| Failure(format!("{name:?} cannot be a server's name")))?,
            None => ServerName::from(address),
        };
        self.0.connect(name, stream).await.map_err(|error| Failure(format!("TLS: {error}")))
    }
}

fn client_config(tls: &TlsCheck) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|error| Failure(error.to_string()))?;
    let builder = match tls.verify {
        true => {
            let mut roots = RootCertStore::empty();
            let file = tls.ca.as_deref().unwrap_or(Path::new(CERTIFICATES));
            // One odd certificate among many is no reason to trust none.
            let (added, _) = roots.add_parsable_certificates(certificates(file)?);
            if added == 0 {
                return Err(format!("{} holds no certificate", file.display()).into());
            }
            builder.with_root_certificates(roots)
        }
        false => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
    };
    let mut config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, error))?;
            let own = builder.with_client_auth_cert(certificates(certificate)?, secret);
            own.map_err(|error| Failure(format!("{}: {error}", key.display())))?
        }
        _ => builder.with_no_client_auth(),
    };
    // Every check shows that a whole handshake works.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let list = CertificateDer::pem_file_iter(file).map_err(|error| unread(file, error))?;
    list.collect::<Result<_, _>>().map_err(|error| unread(file, error))
}

fn unread(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure(format!("{}: {error}", file.display()))
}

/// Takes any certificate, but wants its key proven.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! What a server is asked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{
    Assume, DEFAULT_INTERVAL, DEFAULT_RETRIES, DEFAULT_RETRY_DELAY, DEFAULT_TIMEOUT, Digest, FullCheck,
    FullTarget, Pace, Pattern, Rhythm, StatusRange,
};
use crate::text::words;

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// Whom, and from where.
    pub target: Target,
    /// When; what is absent is the server's or the service's.
    pub pace: Pace,
}

/// Where a check goes and where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Address that is asked; `None`: the server's. keepalived: `connect_ip`.
    pub address: Option<IpAddr>,
    /// Port that is asked; `None`: the server's, or the protocol's own (DNS, SMTP: also the server's).
    pub port: Option<u16>,
    /// Address that it comes from. keepalived: `bindto`.
    pub bind: Option<IpAddr>,
    /// Port that it comes from.
    pub bind_port: Option<u16>,
    /// Interface that it goes out by. keepalived: `bind_if`.
    pub device: Option<String>,
    /// Firewall mark of its packets. keepalived: `fwmark`.
    pub mark: Option<u32>,
    /// By which way it goes. keepalived knows one.
    pub via: Via,
}

/// The way of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Via {
    /// To the server itself, as the kernel's routes say.
    #[default]
    Kernel,
    /// To the VIP, and by the packet path to the server, as clients' packets go.
    Path,
}

words!(Via, "a way of a check", [
    "kernel" => Self::Kernel => Self::Kernel,
    "path" => Self::Path => Self::Path,
]);

impl Check {
    /// A check of this kind with everything else open.
    pub fn new(kind: CheckKind) -> Self {
        Self { kind, target: Target::default(), pace: Pace::default() }
    }

    /// What holds for a server at `at` whose checks run at `wider`; `host`: for HTTP checks that name none.
    pub fn full(&self, at: SocketAddr, wider: &Pace, host: Option<&String>) -> FullCheck {
        let pace = self.pace.or(wider);
        let interval = pace.interval.unwrap_or(DEFAULT_INTERVAL);
        let retries = match self.kind {
            CheckKind::Script(_) | CheckKind::File(_) => 0,
            _ => DEFAULT_RETRIES,
        };
        let mut kind = self.kind.clone();
        if let (CheckKind::Http(http), Some(host)) = (&mut kind, host) {
            for url in http.urls.iter_mut().filter(|url| url.host.is_none()) {
                url.host = Some(host.clone());
            }
        }
        let target = &self.target;
        let mut to = SocketAddr::new(target.address.unwrap_or(at.ip()), target.port.unwrap_or(at.port()));
        match kind {
            // Checks that ask the same are one: what a file says does not depend on the server.
            CheckKind::Script(_) => to = at,
            CheckKind::File(_) => to = SocketAddr::from(([0, 0, 0, 0], 0)),
            CheckKind::Ping => to.set_port(0),
            _ => {}
        }
        FullCheck {
            kind,
            target: FullTarget {
                to,
                bind: target.bind,
                bind_port: target.bind_port.unwrap_or(0),
                device: target.device.clone(),
                mark: target.mark.unwrap_or(0),
                path: None,
            },
            rhythm: Rhythm {
                interval,
                timeout: pace.timeout.unwrap_or(DEFAULT_TIMEOUT.min(interval)),
                retries: pace.retries.unwrap_or(retries),
                retry_delay: pace.retry_delay.unwrap_or(DEFAULT_RETRY_DELAY.min(interval)),
                warmup: pace.warmup.unwrap_or(interval),
                fast_recovery: pace.fast_recovery.unwrap_or(false),
            },
            assume: pace.assume.unwrap_or(Assume::Down),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// A TCP connection comes about.
    Tcp,
    /// HTTP, or HTTPS.
    Http(Box<HttpCheck>),
    /// A datagram is answered, or at least not refused.
    Udp(Box<UdpCheck>),
    /// A name server answers.
    Dns(DnsCheck),
    /// A mail server greets.
    Smtp {
        /// Name in HELO.
        helo: String,
    },
    /// An ICMP echo is answered.
    Ping,
    /// A program says so by its exit code.
    Script(Box<ScriptCheck>),
    /// A file says so.
    File(Box<FileCheck>),
}

impl CheckKind {
    /// Its word in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(http) if http.tls.is_some() => "https",
            Self::Http(_) => "http",
            Self::Udp(_) => "udp",
            Self::Dns(_) => "dns",
            Self::Smtp { .. } => "smtp",
            Self::Ping => "ping",
            Self::Script(_) => "script",
            Self::File(_) => "file",
        }
    }
}

/// Words of `type`.
pub(crate) const KINDS: [&str; 9] = ["tcp", "http", "https", "udp", "dns", "smtp", "ping", "script", "file"];

/// An HTTP check: every URL must give what is expected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// HTTPS.
    pub tls: Option<TlsCheck>,
    /// Version of the request.
    pub version: HttpVersion,
    /// What is asked, at least one, one after the other.
    pub urls: Vec<UrlCheck>,
    /// Field of the answer's header that gives the server's weight; without it the weight is the configured one.
    pub weight_header: Option<String>,
}

/// TLS of an HTTPS check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsCheck {
    /// Server name in the handshake; `None`: the URL's host, else none is sent.
    pub sni: Option<String>,
    /// Whether the server's certificate must be valid for that name.
    pub verify: bool,
    /// Certificates of those who may have signed it; `None`: the machine's.
    pub ca: Option<PathBuf>,
    /// Certificate that is shown to the server.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Version and manner of an HTTP request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.0.
    V10,
    /// HTTP/1.0 with `Connection: close`.
    V10Close,
    /// HTTP/1.1.
    #[default]
    V11,
}

words!(HttpVersion, "a version of HTTP", [
    "1.0" => Self::V10 => Self::V10,
    "1.0c" => Self::V10Close => Self::V10Close,
    "1.1" => Self::V11 => Self::V11,
]);

/// Method of an HTTP request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// GET.
    #[default]
    Get,
    /// HEAD.
    Head,
}

words!(HttpMethod, "a method", [
    "GET" => Self::Get => Self::Get,
    "HEAD" => Self::Head => Self::Head,
]);

/// One request and what must come back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UrlCheck {
    /// Path and query.
    pub path: String,
    /// Virtual host; `None`: the server's address.
    pub host: Option<String>,
    /// Method.
    pub method: HttpMethod,
    /// Status codes of which one must come.
    pub status: Vec<StatusRange>,
    /// Digest that the body must have.
    pub digest: Option<Digest>,
    /// What the body must hold, or must not.
    pub regex: Option<RegexCheck>,
}

impl UrlCheck {
    /// A GET that expects any status of 200 to 299.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            host: None,
            method: HttpMethod::Get,
            status: vec![StatusRange::SUCCESS],
            digest: None,
            regex: None,
        }
    }
}

/// A regular expression over the body's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegexCheck {
    /// Of the crate regex; flags go in front, as in `(?i)`.
    pub pattern: String,
    /// It must not match.
    pub absent: bool,
    /// Bytes of the body in front of which no match may begin.
    pub min_offset: u32,
    /// Offset behind which no match may begin.
    pub max_offset: Option<u32>,
}

/// A UDP check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdpCheck {
    /// What is sent.
    pub payload: Pattern,
    /// What the answer must begin with; `None`: no answer is needed, only no ICMP error.
    pub reply: Option<Pattern>,
    /// Shortest answer, bytes. keepalived: 0.
    pub min_length: u32,
    /// Longest answer, bytes. keepalived: 255.
    pub max_length: u32,
}

/// A DNS check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsCheck {
    /// Type of the record.
    pub record: RecordType,
    /// Name that is asked for.
    pub name: String,
}

/// Types of DNS records. Source: RFC 1035 section 3.2.2, RFC 3596, RFC 2782, IANA's registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the record of its name")]
pub enum RecordType {
    A,
    Ns,
    Cname,
    #[default]
    Soa,
    Ptr,
    Mx,
    Txt,
    Aaaa,
    Srv,
    Rrsig,
    Dnskey,
    Any,
}

words!(RecordType, "a record type", [
    "A" => Self::A => Self::A,
    "NS" => Self::Ns => Self::Ns,
    "CNAME" => Self::Cname => Self::Cname,
    "SOA" => Self::Soa => Self::Soa,
    "PTR" => Self::Ptr => Self::Ptr,
    "MX" => Self::Mx => Self::Mx,
    "TXT" => Self::Txt => Self::Txt,
    "AAAA" => Self::Aaaa => Self::Aaaa,
    "SRV" => Self::Srv => Self::Srv,
    "RRSIG" => Self::Rrsig => Self::Rrsig,
    "DNSKEY" => Self::Dnskey => Self::Dnskey,
    "ANY" => Self::Any => Self::Any,
]);

impl RecordType {
    /// Its number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ns => 2,
            Self::Cname => 5,
            Self::Soa => 6,
            Self::Ptr => 12,
            Self::Mx => 15,
            Self::Txt => 16,
            Self::Aaaa => 28,
            Self::Srv => 33,
            Self::Rrsig => 46,
            Self::Dnskey => 48,
            Self::Any => 255,
        }
    }
}

/// A check by a program: exit code 0 is up, 1 is down; others see `dynamic`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScriptCheck {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Exit codes of 2 and more are up, with the code less 2 for a weight. keepalived: `misc_dynamic`.
    pub dynamic: bool,
    /// User that it runs as; `None`: lbd's.
    pub user: Option<String>,
}

/// A check by a whole number in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileCheck {
    /// The file; one that cannot be read is down.
    pub path: PathBuf,
    /// What the number means.
    pub meaning: FileMeaning,
    /// What the number is multiplied by where it means an offset.
    pub factor: i32,
}

/// What the number in a file means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FileMeaning {
    /// 0 is up, anything else down. keepalived: weight 0.
    #[default]
    State,
    /// 0 is down, anything else up. keepalived: `reverse`.
    Reverse,
    /// It is the weight; below 0 is down.
    Weight,
    /// Times `factor` it is added to the weight; a weight of 0 and less is down. keepalived: weight N.
    Offset,
}

words!(FileMeaning, "a meaning of a number", [
    "state" => Self::State => Self::State,
    "reverse" => Self::Reverse => Self::Reverse,
    "weight" => Self::Weight => Self::Weight,
    "offset" => Self::Offset => Self::Offset,
]);

//! Telling people and programs of changes: commands, webhooks, mails.
//!
//! One change after the other, so that nobody hears "up" before "down"; what one change sets off runs side by side.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use lb_config::health::{Mail, TlsCheck};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::check::{Dialogue, Failure, http::Ends, run_command, tls};
use super::event::{Event, EventKind};

/// Changes that wait to be told; more are dropped, with a word in the log.
const WAITING: usize = 1024;

/// A change and who is to hear of it.
#[derive(Clone, Debug)]
pub struct News {
    /// The change.
    pub event: Event,
    /// Name of the director.
    pub director: String,
    /// Program and arguments; empty: none.
    pub command: Vec<String>,
    /// User that it runs as.
    pub user: Option<String>,
    /// URLs that are posted to.
    pub webhooks: Vec<String>,
    /// Certificates of those who may have signed theirs; `None`: the machine's.
    pub ca: Option<PathBuf>,
    /// Who is mailed.
    pub mail: Option<Mail>,
    /// Longest that the command and each post may take.
    pub timeout: Duration,
}

/// What is posted.
#[derive(Serialize)]
struct Posted<'n> {
    director: &'n str,
    event: &'static str,
    service: &'n str,
    server: &'n str,
    reason: &'n str,
    time_ms: u64,
}

/// Who tells.
#[derive(Debug)]
pub(super) struct Teller {
    queue: mpsc::Sender<News>,
    task: JoinHandle<()>,
}

impl Teller {
    /// Must be called inside a runtime.
    pub fn start() -> Self {
        let (queue, mut waiting) = mpsc::channel::<News>(WAITING);
        let task = tokio::spawn(async move {
            while let Some(news) = waiting.recv().await {
                tell(&news).await;
            }
        });
        Self { queue, task }
    }

    pub fn tell(&self, news: News) {
        if let Err(error) = self.queue.try_send(news) {
            let news = error.into_inner();
            warn!(event = news.event.kind.as_str(), service = %news.event.service, "{WAITING} changes wait to be told, this one is not");
        }
    }

    /// Waits until all is told.
    pub async fn finish(self) {
        drop(self.queue);
        // It ends with the queue.
        let _ = self.task.await;
    }
}

async fn tell(news: &News) {
    let posts = async {
        for url in &news.webhooks {
            log(url, timeout(news.timeout, post(url, news)).await);
        }
    };
    let mailed = async {
        if let Some(mail) = &news.mail {
            log(&mail.server, timeout(mail.timeout, send_mail(mail, news)).await);
        }
    };
    tokio::join!(run(news), posts, mailed);
}

fn log(whom: &str, result: Result<Result<(), Failure>, tokio::time::error::Elapsed>) {
    match result {
        Ok(Ok(())) => debug!(whom, "told"),
        Ok(Err(Failure(why))) => warn!(whom, why, "could not be told of a change"),
        Err(_) => warn!(whom, "could not be told of a change in time"),
    }
}

async fn run(news: &News) {
    let Some(program) = news.command.first() else { return };
    let event = &news.event;
    let env = [
        ("SLUICE_DIRECTOR", news.director.clone()),
        ("SLUICE_EVENT", event.kind.as_str().to_owned()),
        ("SLUICE_SERVICE", event.service.clone()),
        ("SLUICE_SERVER", event.server.clone()),
        ("SLUICE_REASON", event.reason.clone()),
    ];
    let ran = timeout(news.timeout, run_command(&news.command, news.user.as_deref(), &env)).await;
    let result = ran.map(|ran| match ran {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure(status.to_string())),
        Err(failure) => Err(failure),
    });
    log(program, result);
}

pub(super) async fn post(url: &str, news: &News) -> Result<(), Failure> {
    let event = &news.event;
    let posted = Posted {
        director: &news.director,
        event: event.kind.as_str(),
        service: &event.service,
        server: &event.server,
        reason: &event.reason,
        time_ms: event.time_ms,
    };
    let body = serde_json::to_vec(&posted).map_err(|error| Failure(error.to_string()))?;
    let uri: hyper::Uri = url.parse().map_err(|_| Failure("not a URL".to_owned()))?;
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or_else(|| Failure("a URL without a host".to_owned()))?;
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let request = Request::post(path)
        .header(HOST, authority)
        .header(USER_AGENT, "sluice")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Failure(error.to_string()))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await?;
    if !secure {
        return send(stream, request).await;
    }
    // What is told is for whom it is meant: the certificate must be valid.
    let client =
        tls::Client::new(&TlsCheck { verify: true, ca: news.ca.clone(), ..TlsCheck::default() }).await?;
    let address = stream.peer_addr()?.ip();
    let name = bare.parse::<std::net::IpAddr>().is_err().then_some(bare);
    send(client.connect(stream, name, address).await?, request).await
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), Failure> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| Failure(error.to_string()))?;
    let _connection = Ends(tokio::spawn(async move {
        // Its errors come out at the request.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|error| Failure(error.to_string()))?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("status {status}").into()),
    }
}

async fn send_mail(mail: &Mail, news: &News) -> Result<(), Failure> {
    let stream = TcpStream::connect((mail.server.as_str(), mail.port)).await?;
    let mut server = Dialogue::new(stream);
    server.expect(2).await?;
    server.say(&format!("HELO {}", mail.helo.as_deref().unwrap_or(&news.director)), 2).await?;
    server.say(&format!("MAIL FROM:<{}>", mail.from), 2).await?;
    for to in &mail.to {
        server.say(&format!("RCPT TO:<{to}>"), 2).await?;
    }
    server.say("DATA", 3).await?;
    server.send(&letter(mail, news)).await?;
    server.expect(2).await?;
    // The letter is taken; the goodbye does not matter.
    let _ = server.say("QUIT", 2).await;
    Ok(())
}

/// Header and text, with the line that ends it. Source: RFC 5322 section 2, RFC 5321 section 4.5.2.
fn letter(mail: &Mail, news: &News) -> String {
    let event = &news.event;
    let what = match event.kind {
        EventKind::QuorumUp => "has its quorum",
        EventKind::QuorumDown => "has lost its quorum",
        other => other.as_str(),
    };
    // No byte of a reason, which may come from a server, begins a line or a header of its own.
    let clean = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
    };
    let reason = clean(&event.reason);
    let (subject, text) = match (event.service.as_str(), event.server.as_str()) {
        // of a virtual router the reason says it all
        ("", _) => (reason.clone(), reason),
        (service, "") => (format!("service {service} {what}"), format!("service {service} {what}: {reason}")),
        (service, server) => (
            format!("server {server} of {service} {what}"),
            format!("server {server} of {service} is {what}: {reason}"),
        ),
    };
    format!(
        "Date: {}\r\nFrom: <{}>\r\nTo: {}\r\nSubject: [{}] {}\r\nX-Mailer: sluice\r\n\r\n{}\r\n.\r\n",
        date(event.time_ms / 1000),
        mail.from,
        mail.to.iter().map(|to| format!("<{to}>")).collect::<Vec<_>>().join(", "),
        clean(&news.director),
        clean(&subject),
        clean(&text),
    )
}

/// A date as in RFC 5322 section 3.3, in UTC; `seconds` since 1970.
fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March: then the leap day is the last one (days from civil, H. Hinnant).
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + era * 400 + u64::from(month >= 10);
    let name = |names: &[&'static str], at: u64| names.get(at as usize).copied().unwrap_or_default();
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} +0000",
        name(&DAYS, days % 7),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // date -u -d @N -R
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(date(951_782_399), "Mon, 28 Feb 2000 23:59:59 +0000");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(date(1_767_225_599), "Wed, 31 Dec 2025 23:59:59 +0000");
    }

    #[test]
    fn a_reason_stays_in_its_line() {
        let event = Event {
            number: 1,
            time_ms: 0,
            kind: EventKind::ServerDown,
            service: "web".into(),
            server: "10.0.0.1:80".into(),
            reason: "a\r\n.\r\nRCPT TO:<x>".into(),
        };
        let mail = Mail {
            server: "m".into(),
            port: 25,
            helo: None,
            from: "lb@x".into(),
            to: vec!["a@x".into(), "b@x".into()],
            timeout: Duration::from_secs(1),
        };
        let news = News {
            event,
            director: "node01".into(),
            command: Vec::new(),
            user: None,
            webhooks: Vec::new(),
            ca: None,
            mail: None,
            timeout: Duration::from_secs(1),
        };
        let want = "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nFrom: <lb@x>\r\nTo: <a@x>, <b@x>\r\n\
                    Subject: [node01] server 10.0.0.1:80 of web down\r\nX-Mailer: sluice\r\n\r\n\
                    server 10.0.0.1:80 of web is down: a??.??RCPT TO:<x>\r\n.\r\n";
        assert_eq!(letter(&mail, &news), want);
        let event = Event {
            kind: EventKind::QuorumDown,
            service: "web".into(),
            server: String::new(),
            reason: "weight 0 of 1 is up".into(),
            ..news.event
        };
        let quorum = letter(&mail, &News { event, ..news.clone() });
        assert!(quorum.contains("Subject: [node01] service web has lost its quorum\r\n"), "{quorum}");
        let event = Event {
            kind: EventKind::Vrrp,
            service: String::new(),
            server: String::new(),
            reason: "instance VI_1: master, priority 100".into(),
            ..news.event
        };
        let letter = letter(&mail, &News { event, ..news });
        assert!(letter.contains("Subject: [node01] instance VI_1: master, priority 100\r\n"), "{letter}");
    }
}

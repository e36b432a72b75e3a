//! HTTP and HTTPS: each URL in turn on a connection of its own.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, USER_AGENT};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::TokioIo;
use lb_config::health::{Digest, FullTarget, HttpCheck, HttpMethod, HttpVersion, UrlCheck};
use md5::Digest as _;
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::{Checker, Failure, Outcome, Say, socket, tls};

/// Most of a body that is looked at, bytes.
const BODY: usize = 4 << 20;

/// Ends its task when it goes: a connection lives no longer than the check.
pub(crate) struct Ends<T>(pub JoinHandle<T>);

impl<T> Drop for Ends<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The compiled expressions, one per URL. A Model has no expression that does not compile.
pub(super) fn regexes(http: &HttpCheck) -> Vec<Option<Regex>> {
    http.urls.iter().map(|url| Regex::new(&url.regex.as_ref()?.pattern).ok()).collect()
}

impl Checker {
    pub(super) async fn http(&mut self, http: &HttpCheck, target: &FullTarget) -> Result<Outcome, Failure> {
        let mut say = Say::Nothing;
        let mut told = String::new();
        for (at, url) in http.urls.iter().enumerate() {
            let regex = self.regexes.get(at).and_then(Option::clone);
            let mut response = self.ask(http, url, target).await.map_err(|failure| of(http, url, failure))?;
            let seen = read(&mut response, url).await.map_err(|failure| of(http, url, failure))?;
            told = judge(url, regex.as_ref(), seen.status, &seen.body)
                .map_err(|failure| of(http, url, failure))?;
            if let Some(name) = &http.weight_header
                && let Some(weight) = weight(&seen.headers, name)?
            {
                say = Say::Weight(weight);
            }
        }
        Ok(Outcome::Pass { why: told, say })
    }

    async fn ask(
        &mut self,
        http: &HttpCheck,
        url: &UrlCheck,
        target: &FullTarget,
    ) -> Result<Answer, Failure> {
        let request = request(http, url, target)?;
        let stream = socket::connect(target).await?;
        match &http.tls {
            None => send(stream, request).await,
            Some(config) => {
                let name = config.sni.as_deref().or(url.host.as_deref());
                let client = match &self.tls {
                    Some(client) => client,
                    None => self.tls.insert(tls::Client::new(config).await?),
                };
                send(client.connect(stream, name, target.to.ip()).await?, request).await
            }
        }
    }
}

/// A failure of one of several URLs says of which.
fn of(http: &HttpCheck, url: &UrlCheck, Failure(why): Failure) -> Failure {
    match http.urls.len() {
        1 => Failure(why),
        _ => Failure(format!("{}: {why}", url.path)),
    }
}

struct Answer {
    response: Response<Incoming>,
    _connection: Ends<()>,
}

struct Seen {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

fn request(http: &HttpCheck, url: &UrlCheck, target: &FullTarget) -> Result<Request<Empty<Bytes>>, Failure> {
    let method = match url.method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
    };
    let (version, close) = match http.version {
        HttpVersion::V10 => (Version::HTTP_10, false),
        HttpVersion::V10Close => (Version::HTTP_10, true),
        HttpVersion::V11 => (Version::HTTP_11, true),
    };
    let default_port = if http.tls.is_some() { 443 } else { 80 };
    let host = match &url.host {
        Some(host) => host.clone(),
        None if target.to.port() == default_port => match target.to {
            SocketAddr::V4(to) => to.ip().to_string(),
            SocketAddr::V6(to) => format!("[{}]", to.ip()),
        },
        None => target.to.to_string(),
    };
    let mut request = Request::builder().method(method).uri(&url.path).version(version).header(HOST, host);
    request = request.header(USER_AGENT, "sluice-health");
    if close {
        request = request.header(CONNECTION, "close");
    }
    request.body(Empty::new()).map_err(|error| Failure(error.to_string()))
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, Failure> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| Failure(error.to_string()))?;
    let connection = Ends(tokio::spawn(async move {
        // Its errors come out at the request.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|error| Failure(of_hyper(&error)))?;
    Ok(Answer { response, _connection: connection })
}

fn of_hyper(error: &hyper::Error) -> String {
    use std::error::Error;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None if error.is_incomplete_message() => "closed without an answer".to_owned(),
        None => error.to_string(),
    }
}

async fn read(answer: &mut Answer, url: &UrlCheck) -> Result<Seen, Failure> {
    let status = answer.response.status().as_u16();
    let headers = answer.response.headers().clone();
    let mut body = BytesMut::new();
    let wanted = url.digest.is_some() || url.regex.is_some();
    while let Some(frame) = answer.response.body_mut().frame().await {
        let frame = frame.map_err(|error| Failure(of_hyper(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        if body.len() + data.len() > BODY {
            if url.digest.is_some() {
                return Err(format!("a body above the limit of {BODY} bytes, which has no digest").into());
            }
            break;
        }
        // Read to its end where it is short: a server that is cut off complains in its log.
        body.extend_from_slice(data);
        if !wanted && body.len() > 64 << 10 {
            break;
        }
    }
    Ok(Seen { status, headers, body: body.freeze() })
}

/// Whether an answer is what it should be, and in words what it was.
fn judge(url: &UrlCheck, regex: Option<&Regex>, status: u16, body: &[u8]) -> Result<String, Failure> {
    if !url.status.iter().any(|range| range.contains(status)) {
        let wanted: Vec<String> = url.status.iter().map(ToString::to_string).collect();
        return Err(format!("status {status}, not {}", wanted.join(", ")).into());
    }
    if let Some(wanted) = url.digest {
        let found = match wanted {
            Digest::Md5(_) => Digest::Md5(md5::Md5::digest(body).into()),
            Digest::Sha256(_) => Digest::Sha256(sha2::Sha256::digest(body).into()),
        };
        if found != wanted {
            return Err(format!("digest {found}, not {wanted}").into());
        }
    }
    if let (Some(check), Some(regex)) = (&url.regex, regex) {
        let last = check.max_offset.map_or(usize::MAX, |max| max as usize);
        let first = body.len().min(check.min_offset as usize);
        // Anchors see the whole body; a match that begins too far in is none.
        let found = regex.find_at(body, first).is_some_and(|found| found.start() <= last);
        match (found, check.absent) {
            (false, false) => return Err(format!("the body does not match {:?}", check.pattern).into()),
            (true, true) => return Err(format!("the body matches {:?}", check.pattern).into()),
            _ => {}
        }
    }
    Ok(format!("status {status}"))
}

/// The weight in a header. Errors: it is none.
fn weight(headers: &HeaderMap, name: &str) -> Result<Option<u32>, Failure> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number =
        value.to_str().ok().and_then(|text| text.trim().parse::<u32>().ok()).filter(|n| *n <= 65_535);
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(format!("{name}: {value:?} is not a weight of 0 to 65535").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_config::health::RegexCheck;

    fn judged(url: &UrlCheck, status: u16, body: &str) -> Result<String, String> {
        let regex = url.regex.as_ref().map(|check| Regex::new(&check.pattern).unwrap());
        judge(url, regex.as_ref(), status, body.as_bytes()).map_err(|Failure(why)| why)
    }

    #[test]
    fn any_of_the_status_codes_will_do() {
        let mut url = UrlCheck::new("/");
        url.status = vec!["200-201".parse().unwrap(), "404".parse().unwrap()];
        assert_eq!(judged(&url, 201, ""), Ok("status 201".into()));
        assert_eq!(judged(&url, 404, ""), Ok("status 404".into()));
        assert_eq!(judged(&url, 302, ""), Err("status 302, not 200-201, 404".into()));
    }

    #[test]
    fn digests_are_those_of_the_tools() {
        let mut url = UrlCheck::new("/");
        // printf hello | md5sum; printf hello | sha256sum
        for text in [
            "5d41402abc4b2a76b9719d911017c592",
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        ] {
            url.digest = Some(text.parse().unwrap());
            assert!(judged(&url, 200, "hello").is_ok());
            assert!(judged(&url, 200, "hellO").unwrap_err().starts_with("digest "));
        }
    }

    #[test]
    fn a_match_counts_between_its_offsets() {
        let mut url = UrlCheck::new("/");
        let check = RegexCheck { pattern: "ok".into(), absent: false, min_offset: 3, max_offset: Some(5) };
        url.regex = Some(check.clone());
        for (body, good) in
            [("ok", false), ("012ok", true), ("01234ok", true), ("012345ok", false), ("01okok", true)]
        {
            assert_eq!(judged(&url, 200, body).is_ok(), good, "{body}");
            url.regex = Some(RegexCheck { absent: true, ..check.clone() });
            assert_eq!(judged(&url, 200, body).is_ok(), !good, "{body}");
            url.regex = Some(check.clone());
        }
    }

    #[test]
    fn a_weight_is_a_number() {
        let mut headers = HeaderMap::new();
        assert_eq!(weight(&headers, "x-weight"), Ok(None));
        headers.insert("x-weight", " 17 ".parse().unwrap());
        assert_eq!(weight(&headers, "X-Weight"), Ok(Some(17)));
        headers.insert("x-weight", "65536".parse().unwrap());
        assert!(weight(&headers, "X-Weight").is_err());
    }
}

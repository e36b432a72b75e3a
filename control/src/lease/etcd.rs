//! What is asked of etcd, and how it answers: its API version 3 as JSON over HTTP (the "gRPC gateway").
//!
//! Source: etcd's `rpc.proto` and documentation of 3.4, "API reference: concurrency" and "gRPC gateway". Keys and values
//! are base64, 64-bit numbers are strings. Each request has a connection of its own: they are few, and one that hangs
//! holds no other up.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lb_config::health::TlsCheck;
use lb_config::{Endpoint, Lease};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::health::check::{Failure, http::Ends, tls};

/// Longest answer, bytes: a key, its value, and what is around them.
const ANSWER: usize = 64 << 10;
/// gRPC's code of what is not there. Source: `google.rpc.Code`.
const NOT_FOUND: i64 = 5;

/// Why there is no answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EtcdError {
    /// No endpoint could be asked; why not the last one.
    #[error("{endpoint}: {why}")]
    Away {
        /// The endpoint.
        endpoint: String,
        /// In words.
        why: String,
    },
    /// etcd said no.
    #[error("{endpoint}: etcd refuses: {message} (code {code})")]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// gRPC's code.
        code: i64,
        /// In its words.
        message: String,
    },
}

/// A key that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub value: String,
    /// The lease that it ends with; 0: none.
    pub lease: i64,
}

/// A cluster.
#[derive(Debug)]
pub struct Etcd {
    lease: Arc<Lease>,
    tls: OnceCell<tls::Client>,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The endpoint that answered last.
    first: usize,
    /// What a user is known by.
    token: Option<String>,
}

impl Etcd {
    /// One that nothing was asked of yet.
    pub fn new(lease: Arc<Lease>) -> Self {
        Self { lease, tls: OnceCell::new(), memory: Mutex::default() }
    }

    /// What it goes by.
    pub fn settings(&self) -> &Lease {
        &self.lease
    }

    /// A new lease: its number, and how long it lasts, s (etcd may give more than was asked for).
    pub async fn grant(&self) -> Result<(i64, u64), EtcdError> {
        let answer = self.call("/v3/lease/grant", json!({ "TTL": self.lease.ttl.as_secs() })).await?;
        Ok((number(&answer, "ID"), seconds(&answer)))
    }

    /// Renews a lease: how long it lasts from now on, s; `None`: there is no such lease any more.
    pub async fn renew(&self, lease: i64) -> Result<Option<u64>, EtcdError> {
        let answer = self.call("/v3/lease/keepalive", json!({ "ID": lease.to_string() })).await?;
        let left = answer.get("result").map_or(0, seconds);
        Ok((left > 0).then_some(left))
    }

    /// Ends a lease, and the keys that depend on it. One that has ended already is none that fails.
    pub async fn revoke(&self, lease: i64) -> Result<(), EtcdError> {
        match self.call("/v3/lease/revoke", json!({ "ID": lease.to_string() })).await {
            Ok(_) | Err(EtcdError::Refused { code: NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A key as a majority of the cluster knows it.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, EtcdError> {
        let answer = self.call("/v3/kv/range", json!({ "key": STANDARD.encode(key) })).await?;
        let Some(found) = answer.get("kvs").and_then(|list| list.get(0)) else { return Ok(None) };
        let value = found.get("value").and_then(Value::as_str).unwrap_or_default();
        let value = STANDARD.decode(value).unwrap_or_default();
        let value = String::from_utf8_lossy(&value).into_owned();
        Ok(Some(Entry { value, lease: number(found, "lease") }))
    }

    /// Makes a key that ends with `lease`. False: there is one already, and nothing was changed.
    pub async fn make(&self, key: &str, value: &str, lease: i64) -> Result<bool, EtcdError> {
        let key = STANDARD.encode(key);
        let put = json!({ "key": key, "value": STANDARD.encode(value), "lease": lease.to_string() });
        let body = json!({
            "compare": [{ "key": key, "target": "CREATE", "create_revision": "0", "result": "EQUAL" }],
            "success": [{ "request_put": put }],
        });
        let answer = self.call("/v3/kv/txn", body).await?;
        Ok(answer.get("succeeded").and_then(Value::as_bool).unwrap_or(false))
    }

    /// Asks one endpoint after the other, the one that answered last first.
    async fn call(&self, path: &str, body: Value) -> Result<Value, EtcdError> {
        let endpoints = &self.lease.endpoints;
        let first = self.memory().first;
        let mut last = None;
        for at in (0..endpoints.len()).map(|step| (first + step) % endpoints.len()) {
            let Some(endpoint) = endpoints.get(at) else { continue };
            let away = |why: String| EtcdError::Away { endpoint: endpoint.to_string(), why };
            match timeout(self.lease.timeout, self.ask(endpoint, path, &body)).await {
                Ok(Ok(answer)) => {
                    self.memory().first = at;
                    return Ok(answer);
                }
                // a refusal is the cluster's, but for what a member without a leader says
                Ok(Err(Answer::No { code, message })) if !is_members_own(code) => {
                    return Err(EtcdError::Refused { endpoint: endpoint.to_string(), code, message });
                }
                Ok(Err(Answer::No { message, .. })) => last = Some(away(message)),
                Ok(Err(Answer::None(why))) => last = Some(away(why)),
                Err(_) => last = Some(away(format!("no answer within {:?}", self.lease.timeout))),
            }
        }
        Err(last.unwrap_or(EtcdError::Away { endpoint: String::new(), why: "no endpoint".to_owned() }))
    }

    async fn ask(&self, endpoint: &Endpoint, path: &str, body: &Value) -> Result<Value, Answer> {
        let Some((name, password)) = self.lease.user.as_ref().zip(self.lease.password.as_ref()) else {
            return self.post(endpoint, path, body, None).await;
        };
        // A token ends, after some minutes or with etcd: then there is a new one, once.
        for fresh in [false, true] {
            let known = self.memory().token.clone().filter(|_| !fresh);
            let token = match known {
                Some(token) => token,
                None => {
                    let body = json!({ "name": name, "password": password });
                    let answer = self.post(endpoint, "/v3/auth/authenticate", &body, None).await?;
                    let token = answer.get("token").and_then(Value::as_str).unwrap_or_default().to_owned();
                    self.memory().token = Some(token.clone());
                    token
                }
            };
            match self.post(endpoint, path, body, Some(&token)).await {
                Err(Answer::No { code: 16, .. }) if !fresh => {}
                other => return other,
            }
        }
        Err(Answer::None("no token".to_owned()))
    }

    async fn post(
        &self,
        endpoint: &Endpoint,
        path: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Result<Value, Answer> {
        let host = match endpoint.host.contains(':') {
            true => format!("[{}]:{}", endpoint.host, endpoint.port),
            false => format!("{}:{}", endpoint.host, endpoint.port),
        };
        let mut request = Request::post(path)
            .header(HOST, host)
            .header(USER_AGENT, "sluice")
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).map_err(none)?;
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(none)?;
        stream.set_nodelay(true).map_err(none)?;
        if !endpoint.tls {
            return exchange(stream, request).await;
        }
        let client = self.tls.get_or_try_init(|| self.client()).await.map_err(said)?;
        let name = endpoint.host.parse::<IpAddr>().is_err().then_some(endpoint.host.as_str());
        let address = stream.peer_addr().map_err(none)?.ip();
        exchange(client.connect(stream, name, address).await.map_err(said)?, request).await
    }

    async fn client(&self) -> Result<tls::Client, Failure> {
        let Lease { ca, certificate, key, .. } = &*self.lease;
        tls::Client::new(&TlsCheck {
            verify: true,
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
            ..TlsCheck::default()
        })
        .await
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not what was asked for.
#[derive(Debug)]
enum Answer {
    /// etcd said no.
    No { code: i64, message: String },
    /// It said nothing that can be read.
    None(String),
}

fn none(error: impl std::fmt::Display) -> Answer {
    Answer::None(error.to_string())
}

fn said(Failure(why): Failure) -> Answer {
    Answer::None(why)
}

/// Whether a refusal may be one member's alone: another is asked. Source: `google.rpc.Code`: deadline exceeded, resource
/// exhausted, internal, unavailable.
fn is_members_own(code: i64) -> bool {
    matches!(code, 4 | 8 | 13 | 14)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Value, Answer> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(none)?;
    let _connection = Ends(tokio::spawn(async move {
        // Its errors come out at the request.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(none)?;
    let status = response.status();
    let text = read(response).await?;
    let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    let value = values.next().and_then(Result::ok);
    match (status, value) {
        (StatusCode::OK, Some(value)) if value.get("error").is_none() => Ok(value),
        (_, Some(value)) => {
            // a stream has its error in an object of its own
            let error = value.get("error").filter(|error| error.is_object()).unwrap_or(&value);
            let code = ["code", "grpc_code"].iter().map(|key| number(error, key)).find(|code| *code != 0);
            let message = ["message", "error"].iter().find_map(|key| error.get(key)?.as_str());
            let message = message.unwrap_or(status.as_str()).to_owned();
            Err(Answer::No { code: code.unwrap_or(0), message })
        }
        (status, None) => Err(Answer::None(format!("status {status} without JSON"))),
    }
}

/// The first line of an answer: one that renews a lease is a stream, whose end is not waited for.
async fn read(response: Response<Incoming>) -> Result<BytesMut, Answer> {
    let mut body = response.into_body();
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(none)?;
        let Some(data) = frame.data_ref() else { continue };
        if text.len() + data.len() > ANSWER {
            return Err(Answer::None(format!("an answer of more than {ANSWER} bytes")));
        }
        text.extend_from_slice(data);
        if data.contains(&b'\n') {
            break;
        }
    }
    Ok(text)
}

/// A number, which JSON has as a string when it is one of 64 bits; 0 when there is none.
fn number(value: &Value, key: &str) -> i64 {
    match value.get(key) {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        _ => 0,
    }
}

fn seconds(value: &Value) -> u64 {
    u64::try_from(number(value, "TTL")).unwrap_or(0)
}

#[cfg(test)]
#[path = "etcd_tests.rs"]
mod tests;

//! Messages: a value as TOML text and back.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::frame::{FrameTooLong, wrap};

/// A payload that is not the message that was expected, or a message that fits in no frame.
#[derive(Debug, Error)]
pub enum MessageError {
    /// The payload is not text.
    #[error("message is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// The payload is not TOML, or not a message of this protocol.
    #[error("message cannot be read: {0}")]
    NotAMessage(String),
    /// The value has no TOML form.
    #[error("message cannot be written: {0}")]
    Unwritable(#[from] toml::ser::Error),
    /// The message is too long.
    #[error(transparent)]
    TooLong(#[from] FrameTooLong),
}

/// The frame that carries `message`.
///
/// Errors: the TOML is above [`super::frame::MAX_FRAME`], or a number is above 2^63-1 (TOML's integers are signed).
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, MessageError> {
    Ok(wrap(toml::to_string(message)?.as_bytes())?)
}

/// Reads a message from a frame's payload.
///
/// Errors: not UTF-8, not TOML, or not a `T`; the error says which and where.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, MessageError> {
    let text = std::str::from_utf8(payload).map_err(|e| MessageError::NotUtf8(e.valid_up_to()))?;
    toml::from_str(text).map_err(|e| MessageError::NotAMessage(e.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::{MessageError, decode, encode};
    use proptest::prelude::*;

    fn payload<T: serde::Serialize>(message: &T) -> Vec<u8> {
        encode(message).unwrap()[frame::HEADER..].to_vec()
    }

    fn requests() -> Vec<Request> {
        let service = || "web".to_owned();
        let address = [192, 168, 150, 12].into();
        let timeouts = TimeoutSpec { udp: Some("30s".into()), ..TimeoutSpec::default() };
        vec![
            Request::Hello(Hello::default()),
            Request::Apply { toml: "[[ports]]\nname = \"\\\"x\"\n'''".into(), dry_run: true },
            Request::Diff { toml: String::new() },
            Request::Show,
            Request::ServiceList,
            Request::ServiceAdd(ServiceSpec {
                scheduler: "maglev".into(),
                scheduler_flags: Some("flag-1".into()),
                maglev_hash: Some("source".into()),
                forwarding: Some("tunnel:gue:6080".into()),
                persistence: Some("300s/64".into()),
                one_packet: true,
                timeouts: timeouts.clone(),
                policy: [("mss".to_owned(), "1400".to_owned())].into(),
                ..ServiceSpec::new(service(), "[fd00::100]:443/tcp")
            }),
            Request::ServiceEdit(ServiceEdit { service: service(), ..ServiceEdit::default() }),
            Request::ServiceDelete { service: service() },
            Request::ServerList { service: None },
            Request::ServerList { service: Some(service()) },
            Request::ServerAdd(ServerSpec {
                port: Some(8080),
                weight: Some(65_535),
                forwarding: Some("nat".into()),
                upper_threshold: Some(10),
                lower_threshold: Some(5),
                ..ServerSpec::new(service(), address)
            }),
            Request::ServerEdit(ServerSpec::new(service(), address)),
            Request::ServerDelete(ServerRef { service: service(), address, port: Some(80) }),
            Request::ServerDrain(DrainSpec { service: service(), address, port: None, deadline: None }),
            Request::ServerDrain(DrainSpec {
                service: service(),
                address,
                port: Some(80),
                deadline: Some("5m".into()),
            }),
            Request::Connections(ConnectionFilter::default()),
            Request::Connections(ConnectionFilter {
                client: Some(address),
                limit: Some(5),
                ..Default::default()
            }),
            Request::FlushConnections(ConnectionFilter {
                state: Some("syn_recv".into()),
                ..Default::default()
            }),
            Request::Explain(ExplainSpec {
                protocol: "tcp".into(),
                client: "[fd00::1]:40000".parse().unwrap(),
                vip: "[fd00::100]:80".parse().unwrap(),
                port: None,
            }),
            Request::Exchange { toml: String::new(), generation: 7 },
            Request::Rates,
            Request::Zero { service: None },
            Request::Zero { service: Some(service()) },
            Request::Stats,
            Request::Drops,
            Request::Neighbors,
            Request::Snat,
            Request::Vrrp,
            Request::Sync,
            Request::Workers,
            Request::Latency,
            Request::Version,
        ]
    }

    #[test]
    fn every_request_survives_its_frame() {
        for request in requests() {
            assert_eq!(decode::<Request>(&payload(&request)).unwrap(), request);
        }
    }

    #[test]
    fn requests_that_change_are_told_from_reads() {
        let changing = requests().iter().filter(|request| request.changes()).count();
        // Three on services, four on servers (one of them twice), three of ipvsadm's, the flush; the sample of `apply`
        // is a dry run.
        assert_eq!(changing, 12);
        assert!(Request::Apply { toml: String::new(), dry_run: false }.changes());
    }

    #[test]
    fn nested_answers_survive_their_frames() {
        let counters =
            Counters { active: 1, inactive: 2, connections: 3, in_packets: 4, in_bytes: i64::MAX as u64 };
        let vip = "[fd00::100]:80".to_owned();
        let server = ServerRow {
            address: vip.parse().unwrap(),
            forwarding: "tunnel".into(),
            tunnel: Some("ipip".into()),
            upper_threshold: 2,
            lower_threshold: 1,
            weight: 1,
            state: "draining".into(),
            drain_left_ms: Some(1),
            counters,
        };
        let service = ServiceRow {
            name: "web".into(),
            protocol: "tcp".into(),
            vip: vip.clone(),
            scheduler: "rr".into(),
            maglev_hash: None,
            forwarding: "tunnel".into(),
            tunnel: Some("gre".into()),
            persistence: Some("300s/24".into()),
            one_packet: true,
            servers: 2,
            servers_in_use: 1,
            counters,
        };
        let servers = ServiceServers {
            service: "web".into(),
            protocol: "tcp".into(),
            vip,
            scheduler: "rr".into(),
            persistence: None,
            one_packet: false,
            servers: vec![server.clone(), server],
        };
        let fault = FaultRow { line: 3, column: 1, path: "ports[0]".into(), message: "bad".into() };
        let refused = ApiError { faults: vec![fault], ..ApiError::new(ErrorKind::Invalid, "two\nlines") };
        for response in [
            Response::Services(Services { services: vec![service.clone(), service] }),
            Response::Servers(Servers { services: vec![servers] }),
            Response::Servers(Servers::default()),
            Response::Stats(Stats::default()),
            Response::Error(refused),
        ] {
            assert_eq!(decode::<Response>(&payload(&response)).unwrap(), response);
        }
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let text = b"request = \"server_list\"\nservcie = \"web\"";
        let error = decode::<Request>(text).unwrap_err().to_string();
        assert!(error.starts_with("message cannot be read: unknown field `servcie`"), "{error}");
        assert!(matches!(decode::<Request>(b"request = \"show\"\xff"), Err(MessageError::NotUtf8(16))));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode::<Request>(&bytes).is_err());
        }

        #[test]
        fn a_broken_request_never_panics(pick in 0usize..26, cut in 0usize..200, byte in any::<u8>()) {
            let mut bytes = payload(&requests()[pick]);
            let at = cut % bytes.len();
            bytes[at] = byte;
            let _ = decode::<Request>(&bytes);
            bytes.truncate(at);
            let _ = decode::<Request>(&bytes);
        }

        #[test]
        fn any_text_survives(toml in any::<String>()) {
            let request = Request::Diff { toml };
            prop_assert_eq!(decode::<Request>(&payload(&request)).unwrap(), request);
        }
    }
}

//! The recordings' format, strictly: what is not known is a fault.
#![allow(dead_code, reason = "fields that are read to be known, not to be used")]

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub kernel: String,
    pub ipvs: String,
    pub scheduler: String,
    pub deterministic: bool,
    pub scenarios: Vec<Scenario>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub scheduler: String,
    pub servers: Vec<Server>,
    pub setup: Vec<String>,
    pub events: Vec<Event>,
    pub proto: Option<String>,
    pub options: Option<String>,
    pub timeouts: Option<String>,
    pub fwmark: Option<u32>,
    #[serde(default)]
    pub ipv6: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub name: String,
    pub addr: std::net::IpAddr,
    pub weight: u32,
    pub upper: Option<u32>,
    pub lower: Option<u32>,
}

pub type Conns = BTreeMap<String, [u32; 2]>;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Event {
    Open {
        client: String,
        dst: Option<String>,
        server: Option<String>,
        back: Option<String>,
        conns: Option<Conns>,
    },
    Syn {
        client: String,
        dst: Option<String>,
        server: Option<String>,
        back: Option<String>,
        conns: Option<Conns>,
    },
    Data {
        client: String,
        dst: Option<String>,
        server: Option<String>,
        back: Option<String>,
        conns: Option<Conns>,
    },
    Close {
        client: String,
        dst: Option<String>,
        back: Option<String>,
        conns: Conns,
    },
    Reset {
        client: String,
        dst: Option<String>,
        back: Option<String>,
        conns: Conns,
    },
    Ctl {
        cmd: String,
        conns: Conns,
    },
    Wait {
        seconds: f64,
        conns: Conns,
    },
}

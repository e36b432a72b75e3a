//! What tables are: one small file, read before anything else is believed.

use lb_dataplane::conn::HashKey;
use lb_dataplane::keep::{Secrets, WorkerSecrets};
use lb_dataplane::setup::FloodSeed;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What tables of one generation are.
#[derive(Clone, Debug)]
pub struct Head {
    /// How everything is laid out, see [`lb_dataplane::keep::fingerprint()`].
    pub layout: u64,
    /// Which start of the machine it is of.
    pub boot: String,
    /// Ends the names of its files.
    pub generation: u64,
    /// Connections that fit each worker's tables.
    pub connections_per_worker: u32,
    /// Templates that there is room for.
    pub templates: u64,
    /// Secrets, and with them the number of workers.
    pub secrets: Secrets,
}

/// The same as text has it: numbers of 64 bits are hexadecimal, as TOML's are signed.
#[derive(Serialize, Deserialize)]
struct Raw {
    layout: String,
    boot: String,
    generation: u64,
    connections_per_worker: u32,
    templates: u64,
    steering: [String; 4],
    flows: [String; 2],
    template_key: [String; 4],
    tables: Vec<[String; 4]>,
    cookies: Vec<[String; 4]>,
}

fn words<const N: usize>(words: [u64; N]) -> [String; N] {
    words.map(|word| format!("{word:016x}"))
}

fn numbers<const N: usize>(words: &[String; N]) -> Result<[u64; N], String> {
    let mut numbers = [0; N];
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = u64::from_str_radix(word, 16).map_err(|error| error.to_string())?;
    }
    Ok(numbers)
}

/// What the first line says of the rest.
fn sum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Head {
    /// As text.
    pub fn to_text(&self) -> String {
        let secrets = &self.secrets;
        let raw = Raw {
            layout: format!("{:016x}", self.layout),
            boot: self.boot.clone(),
            generation: self.generation,
            connections_per_worker: self.connections_per_worker,
            templates: self.templates,
            steering: words(secrets.steering.0),
            flows: words(secrets.flows),
            template_key: words(secrets.templates.0),
            tables: secrets.workers.iter().map(|worker| words(worker.table.0)).collect(),
            cookies: secrets.workers.iter().map(|worker| words(worker.flood.cookies.0)).collect(),
        };
        // A struct of strings and numbers is a table.
        let text = toml::to_string(&raw).unwrap_or_default();
        format!("# {}\n{text}", sum(&text))
    }

    /// Reads what [`Head::to_text`] wrote. Times of floods are not in it.
    ///
    /// Errors: what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (first, rest) = text.split_once('\n').ok_or("it is empty")?;
        if first.strip_prefix("# ") != Some(sum(rest).as_str()) {
            return Err("its sum is wrong".to_owned());
        }
        let raw: Raw = toml::from_str(rest).map_err(|error| error.message().to_owned())?;
        if raw.tables.len() != raw.cookies.len() || !(1..=64).contains(&raw.tables.len()) {
            return Err(format!("it is of {} workers", raw.tables.len()));
        }
        let mut workers = Vec::new();
        for (table, cookies) in raw.tables.iter().zip(&raw.cookies) {
            let flood = FloodSeed { cookies: HashKey(numbers(cookies)?), ..FloodSeed::random() };
            workers.push(WorkerSecrets { table: HashKey(numbers(table)?), flood });
        }
        Ok(Self {
            layout: u64::from_str_radix(&raw.layout, 16).map_err(|error| error.to_string())?,
            boot: raw.boot,
            generation: raw.generation,
            connections_per_worker: raw.connections_per_worker,
            templates: raw.templates,
            secrets: Secrets {
                steering: HashKey(numbers(&raw.steering)?),
                flows: numbers(&raw.flows)?,
                templates: HashKey(numbers(&raw.template_key)?),
                workers,
            },
        })
    }
}

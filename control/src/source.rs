//! What a director is configured by: a TOML file, or one beside a keepalived.conf.

use std::io;
use std::path::{Path, PathBuf};

use lb_config::keepalived::{Note, Options};
use lb_config::{Faults, LoadError, Model, Warning};
use thiserror::Error;

use crate::keepalived::{import_file, read_text};

/// The files of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Configuration file (TOML); beside a keepalived.conf what that does not say: ports, workers, marks.
    pub config: PathBuf,
    /// The keepalived.conf.
    pub keepalived: Option<PathBuf>,
    /// Its configuration id, see [`Options::id`].
    pub id: Option<String>,
}

/// A configuration, and what there is to say of its files.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub model: Model,
    /// What is doubtful.
    pub warnings: Vec<Warning>,
    /// What was not carried over from the keepalived.conf.
    pub notes: Vec<Note>,
}

/// The files are no configuration.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The configuration file alone is at fault.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Both together are wrong; lines are those of what `lbctl import keepalived --base` prints.
    #[error(
        "what `lbctl import keepalived --base {} {}` prints:\n{faults}{notes}",
        config.display(),
        keepalived.display()
    )]
    Faulty {
        /// The configuration file.
        config: PathBuf,
        /// The keepalived.conf.
        keepalived: PathBuf,
        /// All that is wrong.
        faults: Faults,
        /// What was not carried over, which may be why; a line each, behind a line break.
        notes: String,
    },
}

impl Source {
    /// A configuration file alone.
    pub fn file(config: impl Into<PathBuf>) -> Self {
        Self { config: config.into(), keepalived: None, id: None }
    }

    /// Reads and checks it.
    pub fn load(&self) -> Result<Loaded, SourceError> {
        let Some(keepalived) = &self.keepalived else {
            let (model, warnings) = lb_config::load_with_warnings(&self.config)?;
            return Ok(Loaded { model, warnings, notes: Vec::new() });
        };
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| SourceError::Read { path, source }
        };
        let base = read_text(&self.config).map_err(read(&self.config))?;
        let options = Options { base: Some(&base), id: self.id.as_deref() };
        let imported = import_file(keepalived, &options).map_err(read(keepalived))?;
        match lb_config::parse_with_warnings(&imported.toml) {
            Ok((model, warnings)) => Ok(Loaded { model, warnings, notes: imported.notes }),
            Err(faults) => {
                let (config, keepalived) = (self.config.clone(), keepalived.clone());
                let notes = imported.notes.iter().map(|note| format!("\nnot carried over: {note}")).collect();
                Err(SourceError::Faulty { config, keepalived, faults, notes })
            }
        }
    }

    /// Name for the log.
    pub fn name(&self) -> String {
        match &self.keepalived {
            Some(keepalived) => format!("{} and {}", self.config.display(), keepalived.display()),
            None => self.config.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn both_files_together_are_a_configuration() {
        let dir = std::env::temp_dir().join(format!("sluice-source-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (config, keepalived) = (dir.join("ports.toml"), dir.join("keepalived.conf"));
        fs::write(
            &config,
            "[[ports]]\nname = \"lan\"\ndevice = \"af_packet:eth0\"\naddresses = [\"10.0.0.1/24\"]\n",
        )
        .unwrap();
        fs::write(
            &keepalived,
            "@a vrrp_instance A {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress {\n 10.0.0.100\n }\n}\n\
             virtual_server 10.0.0.100 80 {\n lb_kind DR\n protocol TCP\n nosuch\n real_server 10.0.0.2 80 {\n }\n}\n"
                .replace("@a vrrp_instance A {\n", "vrrp_instance A {\n@a priority 7\n@b priority 8\n"),
        )
        .unwrap();
        let mut source =
            Source { config: config.clone(), keepalived: Some(keepalived.clone()), id: Some("b".into()) };
        let loaded = source.load().unwrap();
        assert_eq!((loaded.model.ha.vrrp[0].port.as_str(), loaded.model.ha.vrrp[0].priority), ("lan", 8));
        assert_eq!(loaded.model.services[0].servers.len(), 1);
        assert_eq!(
            loaded.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["line 13: nosuch: unknown key"]
        );
        assert_eq!(source.name(), format!("{} and {}", config.display(), keepalived.display()));
        fs::write(
            &config,
            "[[ports]]\nname = \"lan\"\ndevice = \"af_packet:eth1\"\naddresses = [\"10.0.0.1/24\"]\n",
        )
        .unwrap();
        let error = source.load().map(drop).unwrap_err().to_string();
        assert!(error.contains("is not the name of a port of the director"), "{error}");
        assert!(error.contains("not carried over: line 4: interface: \"eth0\" is no interface"), "{error}");
        source.keepalived = Some(dir.join("nosuch"));
        assert!(
            source
                .load()
                .map(drop)
                .unwrap_err()
                .to_string()
                .ends_with("nosuch: No such file or directory (os error 2)")
        );
        source = Source::file(&config);
        assert_eq!(source.load().unwrap().model.services, []);
        fs::remove_dir_all(&dir).unwrap();
    }
}

//! Who is told of changes.

use std::path::PathBuf;
use std::time::Duration;

/// What the whole director does to tell of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// URL that every change is posted to as JSON, beside those of services.
    pub webhook: Option<String>,
    /// Certificates of those who may have signed that of an https webhook, of services as well; `None`: the machine's.
    pub ca: Option<PathBuf>,
    /// Longest that a command or a post may take.
    pub timeout: Duration,
    /// User that commands run as; `None`: lbd's. keepalived: `script_user`.
    pub user: Option<String>,
    /// Mails.
    pub mail: Option<Mail>,
}

impl Default for Notify {
    fn default() -> Self {
        Self { webhook: None, ca: None, timeout: Duration::from_secs(30), user: None, mail: None }
    }
}

/// How mails are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Mail server, host or address. keepalived: `smtp_server`.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// Name in HELO; `None`: the director's. keepalived: `smtp_helo_name`.
    pub helo: Option<String>,
    /// Sender. keepalived: `notification_email_from`.
    pub from: String,
    /// Receivers, at least one. keepalived: `notification_email`.
    pub to: Vec<String>,
    /// Longest wait for the server. keepalived: `smtp_connect_timeout`.
    pub timeout: Duration,
}

/// Who is told of changes of a service and its servers. A command is a program with its arguments; none: empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceNotify {
    /// Runs when a server comes up.
    pub up: Vec<String>,
    /// Runs when a server goes down.
    pub down: Vec<String>,
    /// Runs when the quorum is there.
    pub quorum_up: Vec<String>,
    /// Runs when the quorum is lost.
    pub quorum_down: Vec<String>,
    /// URL that changes are posted to as JSON.
    pub webhook: Option<String>,
    /// Whether mails are sent; `None`: when the director can. keepalived: `smtp_alert`.
    pub mail: Option<bool>,
}

/// Who is told of changes of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNotify {
    /// Runs when it comes up, in place of the service's.
    pub up: Vec<String>,
    /// Runs when it goes down, in place of the service's.
    pub down: Vec<String>,
}

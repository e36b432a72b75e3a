//! The socket's file: made with its final rights, taken over only from the dead, removed at the end.

use std::fs::{self, File};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Group;
use thiserror::Error;
use tracing::warn;

/// How long an lbd that was killed may take to end: what it listened on goes after its memory.
const ENDING: Duration = Duration::from_secs(2);

/// The umask is the process's: two sockets made at once would get each other's mode.
static UMASK: Mutex<()> = Mutex::new(());

/// Where the socket is and who may open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// Path; its directory is made if it is missing.
    pub path: PathBuf,
    /// Group of the file.
    pub group: Option<String>,
    /// Mode 0666 instead of 0660.
    pub public_read: bool,
}

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another process listens.
    #[error("socket {}: another lbd listens on it; set `appliance.socket` to another path", .0.display())]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("socket {}: a file of that name exists and is no socket", .0.display())]
    NotASocket(PathBuf),
    /// No such group.
    #[error("socket {}: there is no group {group:?} (`appliance.socket_group`)", path.display())]
    NoGroup {
        /// Path of the socket.
        path: PathBuf,
        /// The name that was configured.
        group: String,
    },
    /// The kernel refused.
    #[error("socket {}: cannot {what}: {source}", path.display())]
    Os {
        /// Path of the socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A listening socket whose file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Group id of [`SocketSettings::group`].
    group: Option<u32>,
    /// Device and inode of the file, to remove no other's.
    identity: (u64, u64),
}

impl Socket {
    /// Makes the socket and listens.
    ///
    /// A socket file that nobody listens on is replaced; one that somebody listens on is waited for, two seconds at the
    /// most, as who was just killed listens until the kernel has cleared up. Not for use while other threads make files: the process's
    /// umask is changed for a moment.
    pub fn bind(settings: &SocketSettings) -> Result<Self, SocketError> {
        let path = settings.path.clone();
        let os = |what| {
            let path = path.clone();
            move |source| SocketError::Os { path, what, source }
        };
        let group = settings.group.as_deref().map(|name| find_group(&path, name)).transpose()?;
        let directory = match path.parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        };
        fs::create_dir_all(directory).map_err(os("make its directory"))?;
        // Held until the file is ours, so that of two lbd that start at once one sees the other's.
        let directory = File::open(directory).map_err(os("open its directory"))?;
        let lock = Flock::lock(directory, FlockArg::LockExclusive);
        let _lock = lock.map_err(|(_, errno)| os("lock its directory")(errno.into()))?;
        let given_up = Instant::now() + ENDING;
        while let Err(error) = clear_stale(&path) {
            if !matches!(error, SocketError::InUse(_)) || Instant::now() >= given_up {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }

        // With the right umask the file never has another mode, not even between bind and chmod.
        let forbidden = if settings.public_read { 0o111 } else { 0o117 };
        let listener = {
            let _one_at_a_time = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
            let before = umask(Mode::from_bits_truncate(forbidden));
            let listener = UnixListener::bind(&path);
            umask(before);
            listener.map_err(os("bind to it"))?
        };
        let metadata = fs::symlink_metadata(&path).map_err(os("look at it"))?;
        let socket = Self { path: path.clone(), listener, group, identity: (metadata.dev(), metadata.ino()) };
        if group.is_some() {
            chown(&path, None, group).map_err(os("set its group"))?;
        }
        Ok(socket)
    }

    /// A handle to accept with.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Group that may change the configuration.
    pub fn group(&self) -> Option<u32> {
        self.group
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody may have removed the file and started another lbd: its socket is not ours to remove.
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the API socket");
        }
    }
}

fn find_group(path: &Path, name: &str) -> Result<u32, SocketError> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(SocketError::NoGroup { path: path.to_owned(), group: name.to_owned() }),
        Err(errno) => {
            Err(SocketError::Os { path: path.to_owned(), what: "look up its group", source: errno.into() })
        }
    }
}

/// Removes a socket file that nobody listens on.
fn clear_stale(path: &Path) -> Result<(), SocketError> {
    let os = |what, source| SocketError::Os { path: path.to_owned(), what, source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == Io::NotFound => return Ok(()),
        Err(e) => return Err(os("look at it", e)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == Io::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| os("remove the stale file", e))
        }
        Err(e) if e.kind() == Io::NotFound => Ok(()),
        // A full backlog (WouldBlock) is a listener too.
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(e) if e.kind() == Io::WouldBlock => Err(SocketError::InUse(path.to_owned())),
        Err(e) => Err(os("see whether anybody listens", e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn settings(name: &str) -> SocketSettings {
        let directory = std::env::temp_dir().join(format!("sluice-socket-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        SocketSettings { path: directory.join("run/lbd.sock"), group: None, public_read: false }
    }

    fn tidy(settings: &SocketSettings) {
        let _ = fs::remove_dir_all(settings.path.parent().unwrap().parent().unwrap());
    }

    fn mode(settings: &SocketSettings) -> u32 {
        fs::metadata(&settings.path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_file_has_its_mode_and_goes_with_the_socket() {
        let mut settings = settings("mode");
        let socket = Socket::bind(&settings).unwrap();
        assert_eq!(mode(&settings), 0o660);
        drop(socket);
        assert!(!settings.path.exists());
        settings.public_read = true;
        let socket = Socket::bind(&settings).unwrap();
        assert_eq!(mode(&settings), 0o666);
        drop(socket);
        tidy(&settings);
    }

    #[test]
    fn a_living_socket_is_left_alone_and_a_stale_one_replaced() {
        let settings = settings("stale");
        let first = Socket::bind(&settings).unwrap();
        let refused = Socket::bind(&settings).unwrap_err();
        assert!(matches!(&refused, SocketError::InUse(path) if *path == settings.path), "{refused}");
        assert!(settings.path.exists());
        // As after kill -9: the listener is gone, the file is not.
        let stale = settings.path.with_extension("stale");
        fs::rename(&settings.path, &stale).unwrap();
        drop(first);
        fs::rename(&stale, &settings.path).unwrap();
        let second = Socket::bind(&settings).unwrap();
        assert!(UnixStream::connect(&settings.path).is_ok());
        drop(second);
        tidy(&settings);
    }

    #[test]
    fn who_is_about_to_end_is_waited_for() {
        let settings = settings("ending");
        let first = Socket::bind(&settings).unwrap();
        let stale = settings.path.with_extension("stale");
        fs::hard_link(&settings.path, &stale).unwrap();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(first);
        });
        let second = Socket::bind(&settings).unwrap();
        assert!(UnixStream::connect(&settings.path).is_ok());
        ends.join().unwrap();
        drop(second);
        tidy(&settings);
    }

    #[test]
    fn another_file_of_that_name_is_kept() {
        let settings = settings("file");
        fs::create_dir_all(settings.path.parent().unwrap()).unwrap();
        fs::write(&settings.path, "precious").unwrap();
        let refused = Socket::bind(&settings).unwrap_err();
        assert!(matches!(refused, SocketError::NotASocket(_)), "{refused}");
        assert_eq!(fs::read_to_string(&settings.path).unwrap(), "precious");
        tidy(&settings);
    }

    #[test]
    fn the_socket_of_a_successor_is_not_removed() {
        let settings = settings("successor");
        let first = Socket::bind(&settings).unwrap();
        fs::remove_file(&settings.path).unwrap();
        let second = Socket::bind(&settings).unwrap();
        drop(first);
        assert!(settings.path.exists());
        drop(second);
        assert!(!settings.path.exists());
        tidy(&settings);
    }

    #[test]
    fn an_unknown_group_is_named() {
        let mut settings = settings("group");
        settings.group = Some("no-such-group".into());
        let message = Socket::bind(&settings).unwrap_err().to_string();
        assert!(
            message.ends_with("there is no group \"no-such-group\" (`appliance.socket_group`)"),
            "{message}"
        );
        tidy(&settings);
    }
}

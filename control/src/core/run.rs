//! The loop of the control core.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::Core;
use crate::api::Response;
use crate::server::{Access, Call, Work};
use crate::source::Source;

/// Serves calls and keeps the director's timers until `stop` is there.
///
/// `start`: the origin of all times.
pub async fn run(
    core: &mut Core,
    start: Instant,
    calls: &mut mpsc::Receiver<Call>,
    stop: impl Future<Output = ()>,
) {
    // A u64 of milliseconds lasts for half a billion years.
    let now_ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    tokio::pin!(stop);
    loop {
        core.tick(now_ms());
        let pause = tokio::time::sleep(Duration::from_millis(core.pause_ms(now_ms())));
        tokio::select! {
            // A flood of calls puts neither the end off nor the timers: each call is followed by a turn.
            biased;
            () = &mut stop => return core.farewell(),
            Some(call) = calls.recv() => core.handle(call, now_ms()),
            () = core.woken() => {}
            () = pause => {}
        }
    }
}

/// Reads the configuration's files again and has it applied; a fault in them changes nothing. The log says how it
/// went.
pub async fn reload(source: &Source, calls: &mpsc::Sender<Call>) {
    let files = source.clone();
    // Off the control core's thread: a large file takes a second.
    let result = match tokio::task::spawn_blocking(move || files.load()).await {
        Ok(Ok(loaded)) => {
            loaded.notes.iter().for_each(|note| warn!(%note, "not carried over"));
            let (reply, response) = oneshot::channel();
            let call = Call { work: Work::Replace(Box::new(loaded.model)), access: Access::Change, reply };
            match calls.send(call).await {
                Ok(()) => response.await.map_err(|_| "lbd is stopping".to_owned()),
                Err(_) => Err("lbd is stopping".to_owned()),
            }
        }
        Ok(Err(faulty)) => Err(faulty.to_string()),
        Err(failed) => Err(failed.to_string()),
    };
    let file = source.name();
    match result {
        Ok(Response::Error(refused)) => error!(%file, "configuration file not applied: {refused}"),
        Ok(answer) => {
            if let Response::Changes(changes) = answer {
                changes.warnings.iter().for_each(|warning| warn!(%file, %warning, "configuration"));
            }
            info!(%file, "configuration file read again and applied");
        }
        Err(reason) => error!(%file, "configuration file not applied: {reason}"),
    }
}

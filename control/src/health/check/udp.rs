//! UDP: an answer, or at least no refusal.

use std::time::Duration;

use lb_config::health::{FullTarget, UdpCheck};
use tokio::time::timeout;

use super::{Failure, Outcome, socket};

/// How long an ICMP error is waited for where no answer is needed.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) async fn check(udp: &UdpCheck, target: &FullTarget, limit: Duration) -> Result<Outcome, Failure> {
    let socket = socket::udp(target)?;
    socket.send(&udp.payload.bytes().unwrap_or_default()).await?;
    let mut buffer = vec![0; 65_536];
    let Some(pattern) = &udp.reply else {
        // Silence is fine, an answer as well; the kernel tells of ICMP unreachable here.
        return match timeout(SILENCE.min(limit / 2), socket.recv(&mut buffer)).await {
            Ok(Ok(_)) => Ok(Outcome::pass("answered")),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Ok(Outcome::pass("not refused")),
        };
    };
    let length = socket.recv(&mut buffer).await?;
    let reply = buffer.get(..length).unwrap_or_default();
    if length < udp.min_length as usize || length > udp.max_length as usize {
        let (min, max) = (udp.min_length, udp.max_length);
        return Err(format!("an answer of {length} bytes, not {min} to {max}").into());
    }
    match pattern.matches(reply) {
        true => Ok(Outcome::pass("answered")),
        false => Err(format!("an answer that does not begin with {pattern}").into()),
    }
}

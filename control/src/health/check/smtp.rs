//! SMTP: the side that connects. Source: RFC 5321 sections 4.1 and 4.2.

use std::time::Duration;

use lb_config::health::FullTarget;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Failure, Outcome, socket};

/// Longest reply, bytes; a line has 512 at most.
const REPLY: usize = 16 << 10;

/// How long the server's last word is waited for.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) async fn check(helo: &str, target: &FullTarget) -> Result<Outcome, Failure> {
    let mut server = Dialogue::new(socket::connect(target).await?);
    let greeting = server.expect(2).await?;
    server.say(&format!("HELO {helo}"), 2).await?;
    // It has shown that it works; how it says goodbye does not matter.
    let _ = tokio::time::timeout(GOODBYE, server.say("QUIT", 2)).await;
    Ok(Outcome::pass(greeting))
}

/// A conversation with a mail server.
#[derive(Debug)]
pub(in crate::health) struct Dialogue(BufReader<TcpStream>);

impl Dialogue {
    pub fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends a line and waits for a reply whose code begins with the digit `class`.
    pub async fn say(&mut self, line: &str, class: u8) -> Result<String, Failure> {
        self.send(&format!("{line}\r\n")).await?;
        self.expect(class).await
    }

    /// Sends a text as it is.
    pub async fn send(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.0.get_mut().write_all(text.as_bytes()).await?)
    }

    /// Waits for a reply whose code begins with the digit `class`; gives its last line.
    pub async fn expect(&mut self, class: u8) -> Result<String, Failure> {
        let mut read = 0;
        loop {
            let mut line = Vec::new();
            loop {
                let chunk = self.0.fill_buf().await?;
                if chunk.is_empty() {
                    return Err("closed by the server".into());
                }
                let end = chunk.iter().position(|byte| *byte == b'\n');
                let take = end.map_or(chunk.len(), |end| end + 1);
                line.extend_from_slice(chunk.get(..take).unwrap_or_default());
                self.0.consume(take);
                read += take;
                if read > REPLY {
                    return Err(format!("a reply above the limit of {REPLY} bytes").into());
                }
                if end.is_some() {
                    break;
                }
            }
            let text: String = String::from_utf8_lossy(&line).trim_end().chars().take(80).collect();
            match line.as_slice() {
                // More lines follow.
                [a, b, c, b'-', ..] if [a, b, c].iter().all(|byte| byte.is_ascii_digit()) => {}
                [a, b, c, ..] if [a, b, c].iter().all(|byte| byte.is_ascii_digit()) => {
                    return match a - b'0' == class {
                        true => Ok(text),
                        false => Err(format!("answer {text:?}").into()),
                    };
                }
                _ => return Err(format!("not a reply of SMTP: {text:?}").into()),
            }
        }
    }
}

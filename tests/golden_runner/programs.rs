//! The programs that transcripts call, and the shell that calls them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, anyhow, bail};

use crate::hosts::{Connected, Hosts};
use crate::shell::{self, Cmd, Item, List, Part, Redirect, When, Word};

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    fn ok(stdout: impl Into<String>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    fn failed(code: i32, stderr: impl Into<String>) -> Self {
        Self { code, stderr: stderr.into(), ..Self::default() }
    }
}

/// A file of the kernel's, which this director does not have.
#[derive(Debug, thiserror::Error)]
#[error("{0} is a file of the kernel")]
pub struct KernelFile(pub String);

/// A client that keeps its connection open in the background.
struct Held {
    pid: u32,
    local: SocketAddr,
    remote: SocketAddr,
}

/// The shell.
pub struct Shell {
    pub hosts: Hosts,
    vars: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    held: Vec<Held>,
    next_pid: u32,
    status: i32,
    /// Addresses and ports that a bulk transfer went to.
    pub bulk: Vec<SocketAddr>,
}

impl Shell {
    /// A shell over these hosts.
    pub fn new(hosts: Hosts) -> Self {
        let (files, held, bulk) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { hosts, vars: BTreeMap::new(), files, held, next_pid: 100, status: 0, bulk }
    }

    /// Runs a command line.
    pub fn run(&mut self, line: &str) -> Result<Done> {
        let list = shell::parse(line)?;
        // every command of a recording had a shell of its own, in which these were set
        let vars = [("VIP", "10.0.0.100"), ("VIP6", "fd00:a::100")];
        self.vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        self.hosts.control.lab.moment(5);
        self.list(&list, "")
    }

    /// Ends the first connections that are held.
    pub fn end_held(&mut self, how_many: usize) -> Result<()> {
        if self.held.len() < how_many {
            bail!("{} connections are held, {how_many} are to end", self.held.len());
        }
        let ending: Vec<_> = self.held.drain(..how_many).collect();
        ending.iter().for_each(|held| self.hosts.close(held.local, held.remote));
        Ok(())
    }

    fn list(&mut self, list: &List, stdin: &str) -> Result<Done> {
        let mut all = Done::default();
        for item in &list.0 {
            let runs = match item.when {
                When::Always => true,
                When::Success => self.status == 0,
                When::Failure => self.status != 0,
            };
            if !runs {
                continue;
            }
            let done = self.item(item, stdin)?;
            self.status = done.code;
            all.code = done.code;
            all.stdout.push_str(&done.stdout);
            all.stderr.push_str(&done.stderr);
        }
        Ok(all)
    }

    fn item(&mut self, item: &Item, stdin: &str) -> Result<Done> {
        let mut stderr = String::new();
        let mut input = stdin.to_owned();
        let mut done = Done::default();
        for command in &item.pipeline {
            done = self.command(command, &input, item.background)?;
            stderr.push_str(&done.stderr);
            input = std::mem::take(&mut done.stdout);
        }
        Ok(Done { code: done.code, stdout: input, stderr })
    }

    fn command(&mut self, command: &Cmd, stdin: &str, background: bool) -> Result<Done> {
        match command {
            Cmd::For(name, words, body) => {
                if background {
                    bail!("a loop in the background is not understood");
                }
                let mut all = Done::default();
                for value in self.expand_all(words)? {
                    self.vars.insert(name.clone(), value);
                    let done = self.list(body, stdin)?;
                    all.code = done.code;
                    all.stdout.push_str(&done.stdout);
                    all.stderr.push_str(&done.stderr);
                }
                Ok(all)
            }
            Cmd::Simple(words, redirects) => {
                let words = self.expand_all(words)?;
                let mut input = stdin.to_owned();
                for redirect in redirects {
                    if let Redirect::In(file) = redirect {
                        let file = self.expand_one(file)?;
                        input = self.read(&file)?;
                    }
                }
                let mut done = self.program(&words, &input, background)?;
                for redirect in redirects {
                    match redirect {
                        Redirect::In(_) => {}
                        Redirect::Out(stream, file) => {
                            let file = self.expand_one(file)?;
                            let from = if *stream == 2 { &mut done.stderr } else { &mut done.stdout };
                            let text = std::mem::take(from);
                            if file != "/dev/null" {
                                self.files.insert(file, text);
                            }
                        }
                        // `>FILE 2>&1` sends both to the file, which only /dev/null is used for
                        Redirect::ErrToOut if redirects.len() > 1 => done.stderr.clear(),
                        Redirect::ErrToOut => {
                            let text = std::mem::take(&mut done.stderr);
                            done.stdout.push_str(&text);
                        }
                    }
                }
                Ok(done)
            }
        }
    }

    fn read(&self, file: &str) -> Result<String> {
        if file.starts_with("/proc/") {
            return Err(KernelFile(file.to_owned()).into());
        }
        if file == "/dev/null" {
            return Ok(String::new());
        }
        self.files.get(file).cloned().ok_or_else(|| anyhow!("there is no file {file}"))
    }

    fn expand_one(&mut self, word: &Word) -> Result<String> {
        let mut fields = self.expand(word)?;
        match fields.len() {
            1 => Ok(fields.remove(0)),
            n => bail!("{n} words where one is wanted"),
        }
    }

    fn expand_all(&mut self, words: &[Word]) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for word in words {
            all.extend(self.expand(word)?);
        }
        Ok(all)
    }

    fn expand(&mut self, word: &Word) -> Result<Vec<String>> {
        let mut fields = vec![String::new()];
        let mut any = false;
        for part in word {
            let (text, splits) = match part {
                Part::Text(text) => (text.clone(), false),
                Part::Arith(expression) => {
                    (shell::arithmetic(expression, &mut self.vars)?.to_string(), false)
                }
                Part::Var(name, quoted) => {
                    let value = match name.as_str() {
                        "?" => self.status.to_string(),
                        name => self.vars.get(name).cloned().ok_or_else(|| anyhow!("${name} is not set"))?,
                    };
                    (value, !quoted)
                }
                Part::Output(list, quoted) => {
                    let done = self.list(list, "")?;
                    (done.stdout.trim_end_matches('\n').to_owned(), !quoted)
                }
            };
            any |= !splits || !text.trim().is_empty();
            let mut pieces =
                if splits { text.split_whitespace().collect() } else { vec![text.as_str()] }.into_iter();
            if let (Some(first), Some(last)) = (pieces.next(), fields.last_mut()) {
                last.push_str(first);
            }
            fields.extend(pieces.map(str::to_owned));
        }
        Ok(if any { fields } else { Vec::new() })
    }

    fn program(&mut self, words: &[String], stdin: &str, background: bool) -> Result<Done> {
        let args: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let program = words.first().map(String::as_str).unwrap_or_default();
        if background && program != "ip" {
            bail!("{program} in the background is not understood");
        }
        match program {
            "ipvsadm" => {
                let args: Vec<String> = words[1..].to_vec();
                let output = self.hosts.control.ipvsadm(&args, stdin.as_bytes());
                Ok(Done { code: output.code, stdout: output.stdout, stderr: output.stderr })
            }
            "ip" => match args[..] {
                ["netns", "exec", place, ..] => self.at(place, &args[3..], stdin, background),
                _ => bail!("{words:?} is not understood"),
            },
            "echo" => Ok(Done::ok(format!("{}\n", args.join(" ")))),
            "printf" => match args[..] {
                ["--", format] | [format] if !format.contains('%') => {
                    Ok(Done::ok(format.replace("\\n", "\n")))
                }
                _ => bail!("{words:?} is not understood"),
            },
            "sleep" => match args[..] {
                [seconds] => {
                    self.hosts.control.lab.wait((seconds.parse::<f64>()? * 1000.0) as u64);
                    Ok(Done::default())
                }
                _ => bail!("{words:?} is not understood"),
            },
            "kill" => self.kill(&args),
            "true" => Ok(Done::default()),
            "cat" | "sort" | "grep" | "tail" | "head" | "wc" | "cmp" => self.filter(program, &args, stdin),
            _ => bail!("the program {program:?} is not understood"),
        }
    }

    fn kill(&mut self, args: &[&str]) -> Result<Done> {
        for arg in args {
            let pid: u32 = arg.parse().map_err(|_| anyhow!("kill {arg:?} is not understood"))?;
            let at = self.held.iter().position(|held| held.pid == pid);
            let held = self.held.remove(at.ok_or_else(|| anyhow!("there is no process {pid}"))?);
            self.hosts.close(held.local, held.remote);
        }
        Ok(Done::default())
    }

    fn filter(&self, program: &str, args: &[&str], stdin: &str) -> Result<Done> {
        let joined = |lines: Vec<&str>| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        Ok(match (program, args) {
            ("cat", files) if !files.is_empty() => {
                let texts: Result<String> = files.iter().map(|file| self.read(file)).collect();
                Done::ok(texts?)
            }
            ("sort", files) => {
                let text = if files.is_empty() { stdin.to_owned() } else { self.read(files[0])? };
                let mut lines: Vec<_> = text.lines().collect();
                lines.sort_unstable();
                Done::ok(joined(lines))
            }
            ("tail", ["-n", from]) if from.starts_with('+') => {
                let from: usize = from[1..].parse()?;
                Done::ok(joined(stdin.lines().skip(from.saturating_sub(1)).collect()))
            }
            ("head", ["-n", count]) => Done::ok(joined(stdin.lines().take(count.parse()?).collect())),
            ("wc", ["-l"]) => Done::ok(format!("{}\n", stdin.lines().count())),
            ("cmp", [a, b]) => {
                let same = self.read(a)? == self.read(b)?;
                if same { Done::default() } else { Done { code: 1, ..Done::ok(format!("{a} {b} differ\n")) } }
            }
            ("grep", args) => {
                let (options, rest): (Vec<&str>, Vec<&str>) =
                    args.iter().partition(|arg| arg.starts_with('-'));
                if let Some(option) = options.iter().find(|option| !matches!(**option, "-v" | "-c" | "-E")) {
                    bail!("grep {option} is not understood");
                }
                let has = |option| options.contains(&option);
                let text = match rest[..] {
                    [_] => stdin.to_owned(),
                    [_, file] => self.read(file)?,
                    _ => bail!("grep {args:?} is not understood"),
                };
                let mut lines = Vec::new();
                for line in text.lines() {
                    if shell::grep(rest[0], has("-E"), line)? != has("-v") {
                        lines.push(line);
                    }
                }
                let code = i32::from(lines.is_empty());
                let text = if has("-c") { format!("{}\n", lines.len()) } else { joined(lines) };
                Done { code, ..Done::ok(text) }
            }
            _ => bail!("{program} {args:?} is not understood"),
        })
    }

    /// A program in the namespace of the client or a server.
    fn at(&mut self, place: &str, words: &[&str], stdin: &str, background: bool) -> Result<Done> {
        let words = words.strip_prefix(&["setsid"]).unwrap_or(words);
        let (limit, words) = match words {
            ["timeout", seconds, rest @ ..] => (Some(seconds.parse::<f64>()?), rest),
            _ => (None, words),
        };
        let server = place.strip_prefix("rs").and_then(|number| number.parse::<u8>().ok());
        match (words, server) {
            (["iperf3", "-s", "-p", port, "-1"], Some(server)) if background => {
                self.hosts.listen(server, port.parse()?);
                Ok(Done::default())
            }
            (["nc", args @ ..], None) if place == "client" => self.nc(args, stdin, limit, background),
            (["curl", args @ ..], None) if place == "client" && !background => self.curl(args),
            (["iperf3", "-c", to, "-p", port, "-n", size], None) if place == "client" && !background => {
                self.iperf(SocketAddr::new(to.parse()?, port.parse()?), size)
            }
            _ => bail!("{words:?} in {place} is not understood"),
        }
    }

    fn nc(&mut self, args: &[&str], stdin: &str, limit: Option<f64>, background: bool) -> Result<Done> {
        match *args {
            ["-d", "-p", from, to, port] if background => {
                let to: IpAddr = to.parse()?;
                let remote = SocketAddr::new(to, port.parse()?);
                let local = SocketAddr::new(Hosts::client_address(to), from.parse()?);
                self.next_pid += 1;
                self.vars.insert("!".to_owned(), self.next_pid.to_string());
                if self.hosts.connect(local, remote) == Connected::Yes {
                    self.held.push(Held { pid: self.next_pid, local, remote });
                }
                Ok(Done::default())
            }
            ["-u", "-W", "1", "-p", from, to, port] if !background => {
                let to: IpAddr = to.parse()?;
                let remote = SocketAddr::new(to, port.parse()?);
                let local = SocketAddr::new(Hosts::client_address(to), from.parse()?);
                match (self.hosts.ask(local, remote, stdin.as_bytes()), limit) {
                    (Some(answer), _) => Ok(Done::ok(String::from_utf8_lossy(&answer))),
                    (None, Some(limit)) => {
                        self.hosts.control.lab.wait((limit * 1000.0) as u64);
                        Ok(Done::failed(124, ""))
                    }
                    (None, None) => bail!("nc waits for ever"),
                }
            }
            _ => bail!("nc {args:?} is not understood"),
        }
    }

    fn curl(&mut self, args: &[&str]) -> Result<Done> {
        let (mut port, mut address, mut limit, mut speaks, mut urls) = (None, None, None, true, Vec::new());
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| anyhow!("curl {arg} without a value"));
            match *arg {
                "-s" => speaks = false,
                "-sS" | "-S" => speaks = true,
                "-m" => limit = Some(value()?.parse::<f64>()?),
                "--local-port" => port = Some(value()?.parse::<u16>()?),
                "--interface" => address = Some(value()?.parse::<IpAddr>()?),
                url if url.starts_with("http://") => urls.push(url),
                _ => bail!("curl {arg:?} is not understood"),
            }
        }
        let mut all = Done::default();
        for url in urls {
            let host = url.trim_start_matches("http://").trim_end_matches('/');
            let with_port = if host.ends_with(']') || !host.contains(':') {
                format!("{host}:80")
            } else {
                host.to_owned()
            };
            let remote: SocketAddr = with_port.parse().map_err(|_| anyhow!("{url:?} is not understood"))?;
            let from = address.unwrap_or_else(|| Hosts::client_address(remote.ip()));
            let port = port.unwrap_or_else(|| self.hosts.ephemeral());
            let done = self.fetch(SocketAddr::new(from, port), remote, limit)?;
            all.code = done.code;
            all.stdout.push_str(&done.stdout);
            all.stderr.push_str(if speaks { &done.stderr } else { "" });
        }
        Ok(all)
    }

    fn fetch(&mut self, local: SocketAddr, remote: SocketAddr, limit: Option<f64>) -> Result<Done> {
        match self.hosts.connect(local, remote) {
            Connected::Yes => {}
            Connected::Refused => {
                let (to, port) = (remote.ip(), remote.port());
                let text =
                    format!("Failed to connect to {to} port {port} after 0 ms: Couldn't connect to server");
                return Ok(Done::failed(7, format!("curl: (7) {text}\n")));
            }
            Connected::Silence => {
                let ms = (limit.ok_or_else(|| anyhow!("curl waits for ever"))? * 1000.0) as u64;
                self.hosts.control.lab.wait(ms);
                return Ok(Done::failed(
                    28,
                    format!("curl: (28) Connection timed out after {ms} milliseconds\n"),
                ));
            }
        }
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
            remote.ip()
        );
        let answer = self.hosts.talk(local, remote, request.as_bytes());
        self.hosts.close(local, remote);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match answer.split_once("\r\n\r\n") {
            Some((_, body)) => Ok(Done::ok(body)),
            None => Ok(Done::failed(52, "curl: (52) Empty reply from server\n")),
        }
    }

    /// Two connections, one for control and one for data, as iperf3 makes them.
    fn iperf(&mut self, remote: SocketAddr, size: &str) -> Result<Done> {
        let bytes: u64 = match size.strip_suffix('M') {
            Some(mega) => mega.parse::<u64>()? << 20,
            None => size.parse()?,
        };
        self.bulk.push(remote);
        let from = Hosts::client_address(remote.ip());
        let ends = [(); 2].map(|()| SocketAddr::new(from, self.hosts.ephemeral()));
        for local in ends {
            if self.hosts.connect(local, remote) != Connected::Yes {
                return Ok(Done::failed(1, "iperf3: error - unable to connect to server\n"));
            }
        }
        self.hosts.talk(ends[0], remote, &[0; 37]);
        let data = [0x5a; 1448];
        for _ in 0..bytes / 1448 {
            self.hosts.talk(ends[1], remote, &data);
        }
        ends.into_iter().for_each(|local| self.hosts.close(local, remote));
        Ok(Done::default())
    }
}

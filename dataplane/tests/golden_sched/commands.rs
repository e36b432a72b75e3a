//! The ipvsadm commands of the recordings, on a Model. A firewall mark's service stands at a VIP and port 0 here: the
//! schedulers see neither.

use std::net::IpAddr;

use lb_config::{Forwarding, Model, Protocol, Scheduler, SchedulerFlags, Server, Service, ServiceAddress};

/// What a command did beside changing the Model.
pub enum Effect {
    /// Nothing.
    Changed,
    /// A server was edited to what it was.
    Touched,
    /// `--set`: TCP, TCP after FIN and UDP timeouts, s; 0 leaves one as it is.
    Timeouts([u64; 3]),
}

/// A service's options that the Model of this crate does not need.
#[derive(Clone, Copy, Default)]
pub struct Options {
    pub one_packet: bool,
    /// Length of the prefix that makes clients one.
    pub persistent: Option<u8>,
}

/// A configuration with a network for every address of the recordings.
pub fn empty() -> Result<Model, String> {
    let text =
        "[[ports]]\nname = \"lan\"\ndevice = \"null\"\naddresses = [\"10.1.0.1/16\", \"fd00:b::1/64\"]\n";
    lb_config::parse(text).map_err(|faults| faults.to_string())
}

struct Words<'a>(std::iter::Peekable<std::str::SplitWhitespace<'a>>);

impl<'a> Words<'a> {
    fn value(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "the command ends early".to_owned())
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        let text = self.value()?;
        text.parse().map_err(|_| format!("{text} is not a number"))
    }
}

/// `ADDRESS:PORT`, `[ADDRESS]:PORT` or an address alone.
pub fn endpoint(text: &str) -> Result<(IpAddr, u16), String> {
    let wrong = || format!("{text} is not an address");
    if let Ok(address) = text.parse() {
        return Ok((address, 0));
    }
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let address = address.trim_matches(['[', ']']).parse().map_err(|_| wrong())?;
    Ok((address, port.parse().map_err(|_| wrong())?))
}

fn prefix_len(mask: &str) -> Result<u8, String> {
    match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => Ok(u32::from(mask).leading_ones() as u8),
        Err(_) => mask.parse().map_err(|_| format!("{mask} is not a netmask")),
    }
}

/// Runs one command.
pub fn run(command: &str, model: &mut Model, options: &mut Options) -> Result<Effect, String> {
    let mut words = Words(command.split_whitespace().peekable());
    if words.value()? != "ipvsadm" {
        return Err("not a command of ipvsadm".to_owned());
    }
    let verb = words.value()?;
    if verb == "--set" {
        return Ok(Effect::Timeouts([words.number()?, words.number()?, words.number()?]));
    }
    let (mut vip, mut protocol) = ((IpAddr::from([10, 0, 0, 100]), 0), Protocol::Tcp);
    let (mut scheduler, mut flag_words, mut ipv6) = (Scheduler::Wlc, None, false);
    let mut server: Option<Server> = None;
    let (mut weight, mut upper_threshold, mut lower_threshold) = (1, 0, 0);
    let mut own = Options::default();
    while let Some(word) = words.0.next() {
        match word {
            "-t" => vip = endpoint(words.value()?)?,
            "-u" => (vip, protocol) = (endpoint(words.value()?)?, Protocol::Udp),
            "-f" => drop(words.number::<u32>()?),
            "-6" => ipv6 = true,
            "-s" => scheduler = Scheduler::from_name(words.value()?).map_err(|e| e.to_string())?,
            "-b" => flag_words = Some(words.value()?),
            "-o" => own.one_packet = true,
            "-p" => {
                words.0.next_if(|word| word.parse::<u32>().is_ok());
                own.persistent.get_or_insert(128);
            }
            "-M" => own.persistent = Some(prefix_len(words.value()?)?),
            "-r" => {
                let (address, _) = endpoint(words.value()?)?;
                server = Some(Server::new(address, vip.1, Forwarding::Dr));
            }
            "-g" => {}
            "-w" => weight = words.number()?,
            "-x" => upper_threshold = words.number()?,
            "-y" => lower_threshold = words.number()?,
            other => return Err(format!("the option {other} is not known here")),
        }
    }
    if ipv6 {
        vip = ("fd00:a::100".parse().map_err(|_| "an address")?, 0);
    }
    let flags =
        SchedulerFlags::parse(scheduler, flag_words.unwrap_or_default()).map_err(|e| e.to_string())?;
    let address = ServiceAddress::Vip { vip: vip.0, port: vip.1, protocol };
    let at = model.services.iter().position(|s| s.address == address);
    let port = vip.1;
    let server = server.map(|server| Server { port, weight, upper_threshold, lower_threshold, ..server });
    if verb == "-A" {
        *options = own;
        model.services.push(Service { scheduler, scheduler_flags: flags, ..Service::new("s", address) });
        return Ok(Effect::Changed);
    }
    let service = at.and_then(|at| model.services.get_mut(at)).ok_or("no such service")?;
    let find =
        |service: &Service, server: &Server| service.servers.iter().position(|s| s.address == server.address);
    match (verb, server) {
        ("-E", None) => {
            *options = own;
            (service.scheduler, service.scheduler_flags) = (scheduler, flags);
        }
        ("-a", Some(server)) => service.servers.insert(0, server),
        ("-e", Some(server)) => {
            let at = find(service, &server).ok_or("no such server")?;
            if service.servers[at] == server {
                return Ok(Effect::Touched);
            }
            service.servers[at] = server;
        }
        ("-d", Some(server)) => {
            let at = find(service, &server).ok_or("no such server")?;
            service.servers.remove(at);
        }
        (verb, _) => return Err(format!("the command {verb} is not known here")),
    }
    Ok(Effect::Changed)
}

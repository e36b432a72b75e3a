//! Answers as text for people; programs use `--json`.

mod balance;
mod config;
mod director;
mod health;
mod rates;
mod sync;
mod vrrp;

use lb_control::api::Response;

use crate::args::Command;

/// What is printed for `response` to `command`.
pub fn text(response: &Response, command: &Command) -> String {
    match response {
        Response::Changes(changes) => config::changes(changes, command),
        Response::Config(config) => config.toml.clone(),
        Response::Services(services) => balance::services(services),
        Response::Servers(servers) => balance::servers(servers),
        Response::Rates(rates) => rates::rates(rates),
        Response::Connections(connections) => balance::connections(connections),
        Response::Explanation(explanation) => balance::explanation(explanation),
        Response::Flushed(flushed) => balance::flushed(flushed),
        Response::Stats(stats) => director::stats(stats),
        Response::Drops(drops) => director::drops(drops, matches!(command, Command::Drops { all: true })),
        Response::Neighbors(neighbors) => director::neighbors(neighbors),
        Response::Vrrp(status) => vrrp::vrrp(status),
        Response::Sync(status) => sync::sync(status),
        Response::Snat(snat) => balance::snat(snat),
        Response::Workers(workers) => director::workers(workers),
        Response::Latency(latency) => director::latency(latency),
        Response::Health(table) => health::health(table),
        Response::Events(list) => health::events(list),
        Response::Version(version) => config::version(version),
        // The client keeps both to itself; said in full in case that changes.
        Response::Hello(hello) => format!("lbd {}, protocol {}\n", hello.version, hello.protocol),
        Response::Error(error) => format!("{error}\n"),
    }
}

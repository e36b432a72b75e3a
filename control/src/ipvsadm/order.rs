//! The order of listings.
//!
//! Sorted, as ipvsadm sorts them: its comparisons are differences of 32-bit numbers, so addresses that are far apart
//! come the wrong way round, and the order that such comparisons give depends on the algorithm (a merge sort in
//! glibc's qsort). `--nosort`: the kernel's hash table, bucket by bucket.

use std::net::IpAddr;

use super::table::{Address, Server, Service};

/// Buckets of the kernel's table of services, less one.
const BUCKETS: u32 = 255;
/// What the kernel mixes into the hash: bits of an address in its memory, these in the recorded kernel.
const KERNEL_BITS: u32 = 192;

/// The services as `ipvsadm -L` lists them.
pub(super) fn services(services: &[Service], nosort: bool) -> Vec<&Service> {
    let mut listed = hashed(services);
    if !nosort {
        listed = merge_sort(&listed, |a, b| compare_services(&a.address, &b.address) <= 0);
    }
    listed
}

/// The servers as `ipvsadm -L` lists them.
pub(super) fn servers(servers: &[Server], nosort: bool) -> Vec<&Server> {
    let listed: Vec<&Server> = servers.iter().collect();
    if nosort { listed } else { merge_sort(&listed, |a, b| compare_servers(a, b) <= 0) }
}

/// Bucket by bucket, the newest of a bucket first; marks have a table of their own behind it.
fn hashed(services: &[Service]) -> Vec<&Service> {
    let mut listed: Vec<&Service> = services.iter().rev().collect();
    listed.sort_by_key(|service| match &service.address {
        Address::Vip { protocol, address, port } => {
            let folded = words(*address).iter().fold(0, |sum, word| sum ^ word);
            let port = u32::from(*port);
            (0, (u32::from(*protocol) ^ folded ^ KERNEL_BITS ^ port >> 8 ^ port) & BUCKETS)
        }
        Address::Mark { mark, .. } => (1, (mark ^ KERNEL_BITS) & BUCKETS),
        Address::Other { .. } => (2, 0),
    });
    listed
}

/// The address as the kernel's four words; IPv4 is in the first.
fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => [v4.into(), 0, 0, 0],
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

fn difference(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// The first of these that is not 0.
fn first(differences: impl IntoIterator<Item = i32>) -> i32 {
    differences.into_iter().find(|difference| *difference != 0).unwrap_or(0)
}

fn compare_services(a: &Address, b: &Address) -> i32 {
    let parts = |address: &Address| match address {
        Address::Vip { protocol, address, port } => {
            (0, address.is_ipv6(), *protocol, words(*address), u32::from(*port))
        }
        Address::Mark { mark, ipv6 } => (*mark, *ipv6, 0, [0; 4], 0),
        Address::Other { protocol, ipv6, .. } => (0, *ipv6, *protocol, [u32::MAX; 4], u32::MAX),
    };
    let ((mark_a, v6_a, protocol_a, words_a, port_a), (mark_b, v6_b, protocol_b, words_b, port_b)) =
        (parts(a), parts(b));
    let addresses = words_a.iter().zip(words_b).map(|(a, b)| difference(*a, b));
    let heads = [
        difference(mark_a, mark_b),
        i32::from(v6_a) - i32::from(v6_b),
        i32::from(protocol_a) - i32::from(protocol_b),
    ];
    first(heads.into_iter().chain(addresses).chain([difference(port_a, port_b)]))
}

fn compare_servers(a: &Server, b: &Server) -> i32 {
    let (words_a, words_b) = (words(a.address), words(b.address));
    // The first one's family decides how much of both is looked at.
    let looked_at = if a.address.is_ipv6() { 4 } else { 1 };
    let addresses = words_a.iter().zip(words_b).take(looked_at).map(|(a, b)| difference(*a, b));
    first(addresses.chain([i32::from(a.port) - i32::from(b.port)]))
}

/// glibc's merge sort: the lower half has n/2 elements, and a tie takes from it.
///
/// `sort_by` will not do: what it makes of comparisons that contradict each other is not defined.
fn merge_sort<'a, T>(items: &[&'a T], in_order: impl Fn(&T, &T) -> bool + Copy) -> Vec<&'a T> {
    if items.len() <= 1 {
        return items.to_vec();
    }
    let (low, high) = items.split_at(items.len() / 2);
    let (low, high) = (merge_sort(low, in_order), merge_sort(high, in_order));
    let (mut low, mut high) = (low.into_iter().peekable(), high.into_iter().peekable());
    let mut merged = Vec::with_capacity(items.len());
    while let (Some(a), Some(b)) = (low.peek(), high.peek()) {
        let next = if in_order(a, b) { low.next() } else { high.next() };
        merged.extend(next);
    }
    merged.extend(low);
    merged.extend(high);
    merged
}

#[cfg(test)]
mod tests {
    use super::super::table::{Forward, TCP};
    use super::*;

    fn server(address: &str, port: u16) -> Server {
        let address = address.parse().unwrap();
        Server { address, port, forward: Forward::Route, weight: 1, upper: 0, lower: 0 }
    }

    #[test]
    fn servers_are_sorted_by_their_first_word() {
        let list = [
            server("10.0.0.12", 80),
            server("10.0.0.11", 81),
            server("10.0.0.11", 80),
            server("fd00::1", 80),
        ];
        let sorted: Vec<(String, u16)> =
            servers(&list, false).iter().map(|s| (s.address.to_string(), s.port)).collect();
        let want = [("fd00::1", 80), ("10.0.0.11", 80), ("10.0.0.11", 81), ("10.0.0.12", 80)];
        assert_eq!(sorted, want.map(|(a, p)| (a.to_owned(), p)));
    }

    #[test]
    fn addresses_that_are_far_apart_come_the_wrong_way_round() {
        let vip = |address: &str| Address::Vip { protocol: TCP, address: address.parse().unwrap(), port: 80 };
        assert!(compare_services(&vip("10.0.0.1"), &vip("10.0.0.2")) < 0);
        assert!(compare_services(&vip("10.0.0.1"), &vip("200.0.0.1")) > 0);
        let mark = |mark| Address::Mark { mark, ipv6: false };
        assert!(compare_services(&mark(u32::MAX), &vip("10.0.0.1")) < 0);
        assert!(compare_services(&mark(7), &vip("10.0.0.1")) > 0);
    }
}

//! Full NAT and source NAT: what is read, refused, written and compared.

use super::{SMALL, faults_after, small};
use crate::edit::{ServiceEdit, ServiceRef, edit_service};
use crate::{ClientAddress, Forwarding, SnatProtocol, diff, parse, to_toml};

fn service(more: &str) -> String {
    format!(
        "[[services]]\nname = \"api\"\nvip = \"192.168.150.101\"\nport = 443\nforwarding = \"fullnat\"\n{more}"
    )
}

fn snat(more: &str) -> String {
    format!("[[snat]]\nname = \"out\"\nsources = \"10.1.0.0/24\"\n{more}")
}

#[test]
fn full_nat_is_read_written_and_compared() {
    let text = service(
        "local_addresses = [\"192.168.150.11\", \"192.168.150.200\"]\nclient_address = \"toa\"\nservers = [{ address = \
         \"192.168.150.14\", port = 8443 }]\n",
    );
    let model = parse(&format!("{SMALL}{text}")).unwrap();
    let api = &model.services[1];
    assert_eq!((api.forwarding, api.servers[0].forwarding), (Forwarding::FullNat, Forwarding::FullNat));
    assert_eq!((api.servers[0].port, api.client_address), (8443, ClientAddress::Toa));
    assert_eq!(parse(&to_toml(&model)).unwrap(), model);
    let mut other = model.clone();
    let edit = ServiceEdit {
        local_addresses: Some(vec!["192.168.150.201".parse().unwrap()]),
        client_address: Some(ClientAddress::None),
        ..ServiceEdit::default()
    };
    edit_service(&mut other, &ServiceRef::Name("api".to_owned()), &edit).unwrap();
    let changes: Vec<String> = diff(&model, &other).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "~ service api: local_addresses [192.168.150.11 192.168.150.200] -> [192.168.150.201], client_address toa -> \
          none"
        ]
    );
}

#[test]
fn a_local_address_must_be_one_that_replies_come_to() {
    let of = |addresses: &str| faults_after(&service(&format!("local_addresses = [{addresses}]\n")));
    assert_eq!(
        faults_after(&service("")),
        "line 16: services[1].local_addresses: is missing: forwarding \"fullnat\" needs one at least"
    );
    let at = |n: u8, what: &str| format!("line 21: services[1].local_addresses[{n}]: {what}");
    assert_eq!(of("\"192.168.150.100\""), at(0, "192.168.150.100 is a VIP of the service web"));
    assert_eq!(of("\"192.168.150.13\""), at(0, "192.168.150.13 is a server of the service web"));
    assert_eq!(
        of("\"10.9.9.9\""),
        at(
            0,
            "10.9.9.9 is on no directly connected network (192.168.150.0/24 on lan): nobody would send replies to it"
        )
    );
    assert_eq!(
        of("\"fd00::5\""),
        at(0, "fd00::5 is not of the family of the service: forwarding \"fullnat\" needs that")
    );
    assert_eq!(
        of("\"192.168.150.200\", \"192.168.150.200\""),
        at(1, "192.168.150.200 is already local_addresses[0]")
    );
    assert!(
        of("\"192.168.150.255\"").contains("192.168.150.255 is the broadcast address of 192.168.150.0/24")
    );
    assert_eq!(of("\"192.168.150.11\""), "no fault");
}

#[test]
fn what_full_nat_alone_has_is_refused_elsewhere() {
    let text = "[[services]]\nname = \"api\"\nvip = \"192.168.150.101\"\nport = 443\nlocal_addresses = \
                [\"192.168.150.200\"]\nclient_address = \"toa\"\n";
    assert_eq!(
        faults_after(text),
        "line 20: services[1].local_addresses: is of use with forwarding \"fullnat\" only\n\
         line 21: services[1].client_address: \"toa\" is of use with forwarding \"fullnat\" only"
    );
    let proxy = text.replace("toa", "proxy-v2");
    assert!(
        faults_after(&proxy)
            .ends_with("client_address: \"proxy-v2\" is of use with forwarding \"fullnat\" only")
    );
    let proxy = "local_addresses = [\"192.168.150.200\"]\nclient_address = \"proxy-v2\"\n";
    assert_eq!(faults_after(&service(proxy)), "no fault");
    for protocol in ["udp", "sctp"] {
        assert_eq!(
            faults_after(&service(&format!("protocol = \"{protocol}\"\n{proxy}"))),
            format!(
                "line 23: services[1].client_address: \"proxy-v2\" is of use in tcp services only, not with {protocol}"
            )
        );
    }
    let udp = service(
        "protocol = \"udp\"\nlocal_addresses = [\"192.168.150.200\"]\nclient_address = \"toa\"\none_packet = true\n",
    );
    assert_eq!(
        faults_after(&udp),
        "line 23: services[1].client_address: \"toa\" is of use in tcp services only, not with udp\n\
         line 24: services[1].one_packet: is of no use with \"fullnat\": replies find their client by the connection"
    );
    let mixed = service("local_addresses = [\"192.168.150.200\"]\nservers = [{ address = \"fd00::15\" }]\n");
    assert!(faults_after(&mixed).ends_with(
        "fd00::15 is not of the family of the VIP 192.168.150.101: forwarding \"fullnat\" needs that"
    ));
}

#[test]
fn a_server_on_the_director_is_refused_with_every_forwarding() {
    for forwarding in ["dr", "nat", "tunnel", "fullnat"] {
        let local = if forwarding == "fullnat" { "local_addresses = [\"192.168.150.200\"]\n" } else { "" };
        let text = service(&format!("{local}servers = [{{ address = \"192.168.150.11\" }}]\n"));
        let text = text.replace("\"fullnat\"", &format!("{forwarding:?}"));
        assert!(
            faults_after(&text).contains("192.168.150.11 is the director's own address on lan: "),
            "{forwarding}: {}",
            faults_after(&text)
        );
    }
}

#[test]
fn source_nat_is_read_written_and_compared() {
    let model = parse(&format!("{SMALL}{}", snat("address = \"192.168.150.11\"\n"))).unwrap();
    let rule = &model.snat[0];
    assert_eq!((rule.addresses.len(), rule.protocols.as_slice()), (1, &SnatProtocol::ALL[..]));
    assert_eq!(parse(&to_toml(&model)).unwrap(), model);
    let more =
        snat("address = [\"192.168.150.11\", \"203.0.113.1\"]\nprotocols = [\"icmp\"]\nport = \"lan\"\n");
    let other = parse(&format!("{SMALL}{more}")).unwrap();
    assert_eq!(parse(&to_toml(&other)).unwrap(), other);
    let lines = |a, b| diff(a, b).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        lines(&model, &other),
        [
            "~ snat out: address [192.168.150.11] -> [192.168.150.11 203.0.113.1], protocols [tcp udp sctp icmp] -> \
          [icmp], port unset -> lan"
        ]
    );
    assert_eq!(lines(&small(), &other), ["+ snat out 10.1.0.0/24 by 192.168.150.11 203.0.113.1 icmp on lan"]);
}

#[test]
fn a_rule_of_source_nat_that_cannot_work_is_refused() {
    let of = |more: &str| faults_after(&snat(more));
    assert_eq!(of(""), "line 16: snat[0].address: is missing");
    assert_eq!(of("address = []\n"), "line 19: snat[0].address: is empty: packets need one to come from");
    assert_eq!(
        of("address = \"192.168.150.100\"\n"),
        "line 19: snat[0].address: 192.168.150.100 is a VIP of the service web"
    );
    assert_eq!(
        of("address = \"fd00::11\"\n"),
        "line 19: snat[0].address: fd00::11 is not of the family of sources 10.1.0.0/24"
    );
    assert_eq!(
        of("address = \"192.168.150.11\"\nprotocols = [\"tcp\", \"tcp\", \"gre\"]\nport = \"wan\"\n"),
        "line 20: snat[0].protocols[1]: tcp is already protocols[0]\n\
         line 20: snat[0].protocols[2]: \"gre\" is not a protocol of [[snat]] (known: tcp, udp, sctp, icmp)\n\
         line 21: snat[0].port: \"wan\" is not a port of the director (known: lan)"
    );
    assert_eq!(
        of("address = \"192.168.150.11\"\nprotocols = []\n"),
        "line 20: snat[0].protocols: is empty: the rule would do nothing"
    );
}

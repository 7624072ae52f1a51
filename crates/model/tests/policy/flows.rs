//! Files of flows: what they say, and what is wrong with them.

use margay_model::policy::{Expectation, Expected};

use super::{PODS, calico, policies, render};

fn read(text: &str) -> Result<Vec<(String, u32)>, Vec<String>> {
    let hosts = calico("HostEndpoint", "name: uplink", "{node: n1, interfaceName: eth0}")
        + &calico("HostEndpoint", "name: mgmt", "{node: n1, interfaceName: eth1, expectedIPs: [192.0.2.10]}");
    let policies = policies(&(PODS.to_owned() + &hosts));
    let flows = Expectation::read("f.yaml", text, &policies).map_err(|errors| render(&errors))?;
    Ok(flows.iter().map(|flow| (format!("{:?}", flow.packet), flow.at.line)).collect())
}

#[test]
fn flows_become_packets() {
    let packets = |text: &str| read(text).unwrap().into_iter().map(|(packet, _)| packet).collect::<Vec<_>>();
    let packet = |text: &str| packets(&format!("- {{{text}}}")).remove(0);
    assert_eq!(
        packet("from: prod/client, to: prod/server, port: 80"),
        "Packet { protocol: 6, source: 10.0.0.1, destination: 10.0.0.2, ports: Some((49152, 80)), icmp: None }"
    );
    assert_eq!(
        packet("from: prod/client, to: prod/server, ipVersion: 6, protocol: UDP, port: 53, sourcePort: 5"),
        "Packet { protocol: 17, source: 2001:db8::1, destination: 2001:db8::2, ports: Some((5, 53)), icmp: None }"
    );
    assert_eq!(
        packet("from: prod/client, to: '2001:db8::9', protocol: ICMPv6"),
        "Packet { protocol: 58, source: 2001:db8::1, destination: 2001:db8::9, ports: None, icmp: Some((128, 0)) }"
    );
    assert_eq!(
        packet("from: 192.0.2.1, to: mgmt, protocol: ICMP, icmp: {type: 3, code: 4}"),
        "Packet { protocol: 1, source: 192.0.2.1, destination: 192.0.2.10, ports: None, icmp: Some((3, 4)) }"
    );
    assert_eq!(
        packet("from: uplink, fromAddress: 192.0.2.7, to: 192.0.2.1, protocol: 47"),
        "Packet { protocol: 47, source: 192.0.2.7, destination: 192.0.2.1, ports: None, icmp: None }"
    );
    assert_eq!(
        read("- {from: 192.0.2.1, to: 192.0.2.2, port: 1}\n\n- from: 192.0.2.1\n  to: 192.0.2.2\n  port: 1\n").unwrap()
            [1]
        .1,
        3
    );
}

#[test]
fn expectations_are_read() {
    let policies = policies("");
    let text = "- {from: 10.0.0.1, to: 10.0.0.2, port: 1, expect: allow}\n- {from: 10.0.0.1, to: 10.0.0.2, port: 1, expect: deny}\n\
                - {from: 10.0.0.1, to: 10.0.0.2, port: 1}\n";
    let flows = Expectation::read("f", text, &policies).unwrap();
    let expected: Vec<_> = flows.iter().map(|flow| flow.expected).collect();
    assert_eq!(expected, [Some(Expected::Allow), Some(Expected::Deny), None]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (flow, expected) in [
        (
            "from: prod/clint, to: prod/server, port: 80",
            "f.yaml:1:10: error: [0].from: there is no workload prod/clint\n  help: a Pod is an endpoint when",
        ),
        (
            "from: uplnk, to: prod/server, port: 80",
            "f.yaml:1:10: error: [0].from: 'uplnk' is neither an address nor a HostEndpoint\n  help: a workload is written namespace/name; did you mean 'uplink'?",
        ),
        (
            "from: uplink, to: prod/server, port: 80",
            "[0].from: uplink has no address\n  help: write its address: fromAddress: 192.0.2.1",
        ),
        (
            "from: prod/client, to: uplink, port: 80",
            "[0].to: uplink has no address\n  help: write its address: toAddress: 192.0.2.1",
        ),
        (
            "from: prod/api, to: '2001:db8::2', port: 80",
            "[0]: the ends have no addresses of one family\n  help: write fromAddress or toAddress",
        ),
        (
            "from: prod/api, to: prod/server, ipVersion: 6, port: 80",
            "[0]: the ends have no addresses of one family of IPv6",
        ),
        ("from: prod/api, to: prod/server, ipVersion: 5, port: 80", "[0].ipVersion: must be 4 or 6, is 5"),
        ("from: prod/api, to: prod/server", "f.yaml:1:3: error: [0]: needs the field 'port'"),
        ("from: prod/api, to: prod/server, protocol: ICMP, port: 80", "[0].port: this protocol has no ports"),
        ("from: prod/api, to: prod/server, port: 80, icmp: {type: 8}", "[0].icmp: icmp needs protocol ICMP or ICMPv6"),
        (
            "from: prod/api, to: prod/server, protocol: tcp, port: 80",
            "[0].protocol: 'tcp' is not a protocol\n  help: did you mean 'TCP'?",
        ),
        ("from: prod/api, to: prod/server, protocol: 256", "[0].protocol: must be 0 to 255, is 256"),
        (
            "from: prod/api, to: prod/server, port: 80, expect: drop",
            "[0].expect: 'drop' is not known here\n  help: expected one of allow, deny",
        ),
        ("from: prod/api, to: prod/server, port: 80, prot: TCP", "[0].prot: unknown field 'prot'"),
        (
            "from: prod/api, to: prod/server, port: 80, enters: prod/client",
            "[0].enters: prod/client is a workload\n  help: name the HostEndpoint",
        ),
        ("from: prod/api, port: 80", "[0]: needs the field 'to'"),
    ] {
        let errors = read(&format!("- {{{flow}}}\n")).unwrap_err();
        assert!(errors[0].contains(expected), "{flow}: {errors:?}");
        assert_eq!(errors.len(), 1, "{flow}: {errors:?}");
    }
    let errors = read("- {from: a, to: b, port: 1}\n- {from: c, to: d, port: 1}\n").unwrap_err();
    assert_eq!(errors.len(), 4, "all of them: {errors:?}");
    assert!(read("from: a\n").unwrap_err()[0].contains("expected a list"));
}

//! Invalid configuration: every error is told, at its line, and nothing else is.
//!
//! `bad/*.yaml` are full of errors. A line that has one ends in `#~ field: message`, in `#~ field: message => help` where the help
//! matters too, and in `#~ warning: ...` for a warning; several on one line follow each other. The loader must say exactly this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::path::Path;

use margay_model::load::{Diagnostic, Severity, load, load_policy};

const NODE: &str = "apiVersion: margay.io/v1\nkind: Node\nmetadata: {name: gw1}\nspec: {interfaces: [{name: eth0}]}\n";

/// A diagnostic as the annotations write it.
fn annotation(diagnostic: &Diagnostic, with_help: bool) -> String {
    let mut text = String::new();
    if diagnostic.severity == Severity::Warning {
        text.push_str("warning: ");
    }
    if !diagnostic.field.is_empty() {
        write!(text, "{}: ", diagnostic.field).unwrap();
    }
    text.push_str(&diagnostic.message);
    if let Some(help) = diagnostic.help.as_ref().filter(|_| with_help) {
        write!(text, " => {help}").unwrap();
    }
    text
}

/// What is wrong with the answer to one annotated file; empty when nothing is.
fn compare(name: &str, text: &str, found: &[Diagnostic]) -> String {
    let mut wrong = String::new();
    let mut unclaimed: Vec<&Diagnostic> = found.iter().filter(|d| d.file == name).collect();
    for (i, line) in text.lines().enumerate() {
        let number = u32::try_from(i + 1).unwrap();
        for wanted in line.split("#~").skip(1).map(str::trim) {
            let with_help = wanted.contains(" => ");
            let claims = |d: &&Diagnostic| d.at.line == number && annotation(d, with_help) == wanted;
            match unclaimed.iter().position(claims) {
                Some(at) => drop(unclaimed.remove(at)),
                None => writeln!(wrong, "{name}:{number}: not said: {wanted}").unwrap(),
            }
        }
    }
    for diagnostic in unclaimed {
        writeln!(wrong, "{name}:{}: not wanted: {}", diagnostic.at.line, annotation(diagnostic, true)).unwrap();
    }
    wrong
}

/// Loads every file of `directory` and compares; how many there are.
fn annotated(directory: &str, load: impl Fn(&[(String, String)]) -> Option<Vec<Diagnostic>>) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut wrong = String::new();
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("#~"), "{name} has no annotation");
        let mut input = vec![(name.clone(), text.clone())];
        // Topics that are not about the node get a good one.
        if !text.contains("kind: Node\n") {
            input.push(("node.yaml".to_owned(), NODE.to_owned()));
        }
        let found = load(&input).unwrap_or_else(|| panic!("{name}"));
        wrong += &compare(&name, &text, &found);
        files += 1;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    files
}

#[test]
fn every_annotated_error_and_no_other() {
    let files = annotated("tests/bad", |input| load(input, Some("gw1")).err());
    assert!(files >= 7, "only {files} files");
}

/// What is wrong with policy even where it is only evaluated.
#[test]
fn every_annotated_error_of_policy_and_no_other() {
    let files = annotated("tests/bad-policy", |input| load_policy(input).err());
    assert!(files >= 4, "only {files} files");
}

#[test]
fn limits_of_policy_have_a_place() {
    let rules = |rule: &str, count: usize| format!("ingress: [{}]", vec![rule; count].join(", "));
    let nets = |count: usize| vec!["10.0.0.0/8"; count].join(", ");
    let ports = |count: usize| vec!["80"; count].join(", ");
    let long = |length: usize| format!("a == '{}'", "x".repeat(length - 7));
    let source = |field: &str| rules(&format!("{{action: Allow, source: {{{field}}}}}"), 1);
    for (fits, exceeds, expected) in [
        (
            rules("{action: Allow}", 1024),
            rules("{action: Allow}", 1025),
            "spec.ingress: at most 1024 rules are allowed, there are 1025",
        ),
        (
            rules("{action: Allow}", 1024).replace("ingress", "egress"),
            rules("{action: Allow}", 1025).replace("ingress", "egress"),
            "spec.egress: at most 1024 rules are allowed, there are 1025",
        ),
        (
            source(&format!("nets: [{}]", nets(256))),
            source(&format!("nets: [{}]", nets(257))),
            "spec.ingress[0].source.nets: at most 256 prefixes are allowed, there are 257",
        ),
        (
            source(&format!("notNets: [{}]", nets(256))),
            source(&format!("notNets: [{}]", nets(257))),
            "spec.ingress[0].source.notNets: at most 256 prefixes are allowed, there are 257",
        ),
        (
            rules(&format!("{{action: Allow, protocol: TCP, destination: {{ports: [{}]}}}}", ports(50)), 1),
            rules(&format!("{{action: Allow, protocol: TCP, destination: {{ports: [{}]}}}}", ports(51)), 1),
            "spec.ingress[0].destination.ports: at most 50 ports are allowed, there are 51",
        ),
        (
            format!("selector: \"{}\"", long(1024)),
            format!("selector: \"{}\"", long(1025)),
            "spec.selector: a selector has at most 1024 characters, this has 1025",
        ),
        (
            source(&format!("selector: \"{}\"", long(1024))),
            source(&format!("selector: \"{}\"", long(1025))),
            "spec.ingress[0].source.selector: a selector has at most 1024 characters, this has 1025",
        ),
        (
            format!("selector: {}all(){}", "(".repeat(64), ")".repeat(64)),
            format!("selector: {}all(){}", "(".repeat(65), ")".repeat(65)),
            "spec.selector: more than 64 parentheses inside each other at character 65 of the selector",
        ),
    ] {
        let document = |spec: &str| {
            let head = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: prod}\n";
            files(&[("p.yaml", &format!("{head}spec:\n  {spec}\n"))])
        };
        load_policy(&document(&fits)).unwrap_or_else(|errors| panic!("{}", errors[0]));
        let errors = load_policy(&document(&exceeds)).expect_err(expected);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let text = errors[0].to_string();
        assert!(text.starts_with("p.yaml:") && text.contains(expected), "{text}");
    }
}

/// Kinds that are only evaluated stay refused by the agent, whatever they say.
#[test]
fn the_agent_refuses_what_it_does_not_enforce() {
    for kind in [
        "Tier",
        "NetworkPolicy",
        "StagedNetworkPolicy",
        "StagedGlobalNetworkPolicy",
        "StagedKubernetesNetworkPolicy",
        "NetworkSet",
        "GlobalNetworkSet",
        "Profile",
        "WorkloadEndpoint",
    ] {
        let text = format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n");
        let found = render(load(&files(&[("x.yaml", &text), ("node.yaml", NODE)]), None));
        assert_eq!(found, [format!("x.yaml:2:7: error: x: kind: not enforced yet: kind {kind}")]);
    }
    for group in ["v1", "networking.k8s.io/v1", "policy.networking.k8s.io/v1alpha2"] {
        let text = format!("apiVersion: {group}\nkind: Pod\nmetadata: {{name: x}}\n");
        let found = render(load(&files(&[("x.yaml", &text), ("node.yaml", NODE)]), None));
        assert_eq!(
            found,
            [format!(
                "x.yaml:1:13: error: x: apiVersion: '{group}' is not known\n  help: expected margay.io/v1 or projectcalico.org/v3"
            )]
        );
    }
}

fn render(result: Result<margay_model::load::Loaded, Vec<Diagnostic>>) -> Vec<String> {
    result.expect_err("an error").iter().map(ToString::to_string).collect()
}

fn files(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn errors_of_all_files_in_the_order_of_files_and_lines() {
    let service = |name: &str, weight: u32| {
        format!(
            "apiVersion: margay.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  addresses: [192.0.2.10]\n  \
             port: 80\n  protocol: TCP\n  backends:\n  - {{address: 10.1.0.11, weight: {weight}}}\n"
        )
    };
    let input = files(&[
        ("a-good.yaml", &service("a", 1)),
        ("b-weight.yaml", &service("b", 0)),
        ("c-broken.yaml", "apiVersion: margay.io/v1\nkind: [Tunnel\nmetadata: {name: x}\n"),
        ("d-node.yaml", NODE),
    ]);
    assert_eq!(
        render(load(&input, None)),
        [
            "b-weight.yaml:5:15: error: VirtualService b: spec.addresses[0]: 192.0.2.10 port 80 TCP is already a VIP of \
             VirtualService a (a-good.yaml:5)\n  help: a VIP belongs to one service: merge the backends, or take one away",
            "b-weight.yaml:9:34: error: VirtualService b: spec.backends[0].weight: must be 1 to 1000, is 0",
            "c-broken.yaml:3:9: error: not YAML: illegal placement of ':' indicator",
        ]
    );
}

#[test]
fn the_node_must_be_known() {
    let other = NODE.replace("gw1", "gw2");
    assert_eq!(
        render(load(&files(&[("a", NODE), ("b", &other)]), None)),
        ["error: there are several Node documents: gw1, gw2\n  help: name this node with --node"]
    );
    assert_eq!(
        render(load(&files(&[("a", NODE), ("b", &other)]), Some("gw3"))),
        ["error: no Node document is called 'gw3'; there is gw1, gw2\n  help: name this node with --node"]
    );
    assert_eq!(
        render(load(&[], None)),
        [
            "error: there is no Node document\n  help: add one that lists the interfaces: apiVersion: margay.io/v1, kind: Node"
        ]
    );
    // A Node that cannot be read is not missing as well.
    assert_eq!(render(load(&files(&[("a", &NODE.replace("spec", "sepc"))]), None)).len(), 2);
}

#[test]
fn limits_hold_against_hostile_documents() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
        writeln!(bomb, "{to}: &{to} [{}]", vec![format!("*{from}"); 10].join(", ")).unwrap();
    }
    let found = render(load(&files(&[("bomb.yaml", &bomb), ("node.yaml", NODE)]), None));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("more than 2000000 values in a file, aliases expanded"), "{}", found[0]);

    let deep = format!("a: {}{}\n", "[".repeat(100), "]".repeat(100));
    let found = render(load(&files(&[("deep.yaml", &deep)]), None));
    assert!(found[0].starts_with("deep.yaml:1:67: error: nested deeper than 64 levels"), "{}", found[0]);

    let long = "#".repeat(margay_model::load::MAX_FILE_BYTES + 1);
    let found = render(load(&files(&[("long.yaml", &long), ("node.yaml", NODE)]), None));
    assert_eq!(found, ["long.yaml: error: the file has 33554433 bytes, at most 33554432 are read"]);
}

/// However much is wrong with one document, there is an end to what is said, and it is said in finite time.
#[test]
fn a_document_of_errors_has_an_end() {
    let keys: String = (0..5000).map(|i| format!("  unknown{i}: 1\n")).collect();
    let text = format!("apiVersion: margay.io/v1\nkind: Denylist\nmetadata: {{name: x}}\nspec:\n{keys}");
    let found = render(load(&files(&[("x.yaml", &text), ("node.yaml", NODE)]), None));
    assert_eq!(found.len(), 100);
}

/// A million errors are not a million lines, nor a minute.
#[test]
fn lists_of_errors_have_an_end() {
    let list = |item: &str| {
        format!(
            "apiVersion: margay.io/v1\nkind: Denylist\nmetadata: {{name: x}}\nspec:\n  sources:\n{}",
            item.repeat(50_000)
        )
    };
    let host_bits = list("  - 10.0.0.1/8\n");
    let found = render(load(&files(&[("x.yaml", &host_bits), ("node.yaml", NODE)]), None));
    assert_eq!((found.len(), found[1000].as_str()), (1001, "error: 49000 more are not listed"));
    let found = render(load(&files(&[("x.yaml", &list("  - nonsense\n")), ("node.yaml", NODE)]), None));
    assert!((1..=100).contains(&found.len()), "{}", found.len());
    // A thousand warnings do not hide the error behind them.
    let policy = "apiVersion: margay.io/v1\nkind: Denylist\nmetadata: {name: y}\nspec: {sources: [10.0.0.1/8]}\n";
    let text = list("  - 0.0.0.0/0\n") + "---\n" + policy;
    let found = render(load(&files(&[("x.yaml", &text), ("node.yaml", NODE)]), None));
    assert_eq!(found[1000], "error: 49001 more are not listed");
}

#[test]
fn passwords_are_not_repeated() {
    let text = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: x, annotations: {margay.io/password: ''}}\n\
                spec: {peerIP: 10.0.0.2, asNumber: 1, secret: hunter2}\n";
    let long = text.replace("''", &"hunter2".repeat(20));
    let number = text.replace("''", "90210");
    for (text, expected) in
        [(text, "a password has 1 to 80 bytes"), (&long, "a password has"), (&number, "expected text")]
    {
        let found = render(load(&files(&[("x.yaml", text), ("node.yaml", NODE)]), None)).join("\n");
        assert!(found.contains(expected) && !found.contains("hunter2") && !found.contains("90210"), "{found}");
    }
}

/// What the tables have room for, told with its place before anything is compiled.
#[test]
fn more_vips_or_backends_than_fit_are_refused_at_their_place() {
    let service = |addresses: u32, backends: u32| {
        let list = |first: u32, count: u32| {
            let addresses = (0..count).map(|n| std::net::Ipv4Addr::from(first + n).to_string());
            addresses.collect::<Vec<_>>()
        };
        let backends: Vec<String> =
            list(0x0a00_0001, backends).iter().map(|address| format!("{{address: {address}}}")).collect();
        let (addresses, backends) = (list(0xc612_0001, addresses).join(", "), backends.join(", "));
        format!(
            "apiVersion: margay.io/v1\nkind: Node\nmetadata: {{name: gw}}\nspec: {{interfaces: [{{name: eth0}}]}}\n---\n\
             apiVersion: margay.io/v1\nkind: VirtualService\nmetadata: {{name: web}}\n\
             spec: {{addresses: [{addresses}], port: 80, protocol: TCP, encap: {{type: IPIP}}, backends: [{backends}]}}\n"
        )
    };
    let errors = |text: &str| render(load(&files(&[("gw.yaml", text)]), None));
    assert!(load(&files(&[("gw.yaml", &service(4_095, 8))]), None).is_ok());
    let told = errors(&service(4_096, 1));
    assert!(
        matches!(told.as_slice(), [one] if one.contains("gw.yaml:6")
        && one.contains("at most 4095 VIPs (address, port, protocol) on a node are allowed, there are 4096")),
        "{told:?}"
    );
    let told = errors(&service(2, 16_384));
    assert!(
        matches!(told.as_slice(), [one] if one.contains("gw.yaml:6")
        && one.contains("at most 32767 backends, each once a VIP, on a node are allowed, there are 32768")),
        "{told:?}"
    );
}

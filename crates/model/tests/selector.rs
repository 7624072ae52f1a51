//! The selector language: what it accepts, what it refuses and where, and what it picks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use margay_model::selector::Selector;
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn picks() {
    let edge = labels(&[("role", "edge-1"), ("rack", "r1"), ("in", "x"), ("a.b/c-d_e", "")]);
    let table = [
        ("", true),
        ("  \t", true),
        ("all()", true),
        ("all( )", true),
        ("global()", true),
        ("!all()", false),
        ("has(role)", true),
        ("has( role )", true),
        ("has(zone)", false),
        ("role == 'edge-1'", true),
        ("role=='edge-1'", true),
        ("role == \"edge-1\"", true),
        ("role == 'edge'", false),
        ("zone == ''", false),
        ("role != 'edge-1'", false),
        ("zone != 'a'", true),
        ("role in {'core', 'edge-1'}", true),
        ("role in {'edge-1',}", true),
        ("role in{}", false),
        ("role not in {'core'}", true),
        ("role notin {'edge-1'}", false),
        ("zone not in {'a'}", true),
        ("zone not in {}", true),
        ("role contains 'ge'", true),
        ("zone contains ''", false),
        ("role starts with 'edge'", true),
        ("role startswith 'dge'", false),
        ("role ends  with '-1'", true),
        ("zone endswith ''", false),
        ("in in {'x'}", true),
        ("a.b/c-d_e == ''", true),
        ("has(role) && has(rack)", true),
        ("has(zone) && has(rack) || has(role)", true),
        ("has(role) || has(zone) && has(zone)", true),
        ("(has(role) || has(zone)) && has(zone)", false),
        ("!has(zone)", true),
        ("!!has(zone)", false),
        ("!(has(role) && has(zone))", true),
        ("! ! !has(zone)", true),
    ];
    for (text, expected) in table {
        let selector = Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.matches(&edge), expected, "{text}");
    }
}

#[test]
fn refuses_with_the_position() {
    let deep = "(".repeat(65) + "all()" + &")".repeat(65);
    let long = "a".repeat(513) + " == 'x'";
    let table = [
        ("role", 5, "expected ==, !=, in, not in, contains, starts with or ends with"),
        ("role =", 6, "expected ==, !=, in, not in, contains, starts with or ends with"),
        ("role == edge", 9, "expected a string in quotes"),
        ("role == 'edge", 9, "the string does not end"),
        ("role == 'edge' extra", 16, "expected '&&', '||' or the end"),
        ("role == 'a' &", 13, "expected '&&', '||' or the end"),
        ("role == 'a' &&", 15, "expected a label"),
        ("(role == 'a'", 13, "expected ')'"),
        ("role == 'a')", 12, "expected '&&', '||' or the end"),
        ("role in 'a'", 9, "expected '{'"),
        ("role in {'a' 'b'}", 14, "expected ',' or '}'"),
        ("role in {,}", 10, "expected a string in quotes"),
        ("role not {'a'}", 10, "expected 'in'"),
        ("role starts 'a'", 13, "expected 'with'"),
        ("role inx {'a'}", 6, "expected ==, !=, in, not in, contains, starts with or ends with"),
        ("has(role", 9, "expected ')'"),
        ("has (role)", 5, "expected ==, !=, in, not in, contains, starts with or ends with"),
        ("all(x)", 4, "expected ==, !=, in, not in, contains, starts with or ends with"),
        ("röle == 'x'", 2, "expected ==, !=, in, not in, contains, starts with or ends with"),
        ("r == 'ö' ö", 10, "expected '&&', '||' or the end"),
        ("role == 'a'\n", 12, "expected '&&', '||' or the end"),
        (&deep, 65, "more than 64 parentheses inside each other"),
        (&long, 1, "the label is longer than 512 characters"),
    ];
    for (text, position, message) in table {
        let error = Selector::parse(text).expect_err(text);
        assert_eq!((error.position, error.message.as_str()), (position, message), "{text}");
    }
}

#[test]
fn canonical_text_is_calicos() {
    let table = [
        ("", "all()"),
        ("a=='b'", "a == \"b\""),
        ("a == 'say \"b\"'", "a == 'say \"b\"'"),
        ("a in {'c','b','c'}", "a in {\"b\", \"c\"}"),
        ("a notin {}", "a not in {}"),
        (
            "a startswith 'b'&&b endswith 'c'&&c contains 'd'",
            "(a starts with \"b\" && b ends with \"c\" && c contains \"d\")",
        ),
        ("!!has(a)||!global()", "(has(a) || !global())"),
        ("has(a) || has(b) && has(c)", "(has(a) || (has(b) && has(c)))"),
    ];
    for (text, canonical) in table {
        assert_eq!(Selector::parse(text).unwrap().to_string(), canonical);
    }
}

/// Selectors as text, with the answer for labels known while they are made.
fn selectors() -> impl Strategy<Value = String> {
    let label = prop_oneof![Just("a"), Just("b"), Just("in"), Just("not"), Just("x/y.z")];
    let value = "[a-c \"]{0,2}";
    let set = prop::collection::vec(value, 0..3)
        .prop_map(|v| v.iter().map(|s| format!("'{s}'")).collect::<Vec<_>>().join(","));
    let leaf = prop_oneof![
        Just("all()".to_owned()),
        label.clone().prop_map(|l| format!("has({l})")),
        (
            label.clone(),
            prop_oneof![Just("=="), Just("!="), Just("contains"), Just("starts with"), Just("endswith")],
            value
        )
            .prop_map(|(l, op, v)| format!("{l} {op} '{v}'")),
        (label, prop_oneof![Just("in"), Just("not in")], set).prop_map(|(l, op, s)| format!("{l} {op} {{{s}}}")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|s| format!("!({s})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && {b}")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("{a}||{b}")),
        ]
    })
}

fn label_sets() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(
        prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("in".to_owned()), Just("x/y.z".to_owned())],
        "[a-c \"]{0,2}",
        0..4,
    )
}

proptest! {
    #[test]
    fn canonical_text_means_the_same(text in selectors(), labels in label_sets()) {
        let selector = Selector::parse(&text).unwrap();
        let canonical = selector.to_string();
        let again = Selector::parse(&canonical).unwrap();
        prop_assert_eq!(again.to_string(), canonical);
        prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
    }

    #[test]
    fn negation_and_combination_obey_logic(a in selectors(), b in selectors(), labels in label_sets()) {
        let is = |text: &str| Selector::parse(text).unwrap().matches(&labels);
        let both = format!("({a}) && ({b})");
        let either = format!("({a}) || ({b})");
        let negation = format!("!({a})");
        prop_assert_eq!(is(&both), is(&a) && is(&b));
        prop_assert_eq!(is(&either), is(&a) || is(&b));
        prop_assert_eq!(is(&negation), !is(&a));
    }

    #[test]
    fn anything_at_all_is_an_answer_or_an_error_within_the_text(text in "\\PC{0,40}|[a-z(){}!&|='\" ,]{0,40}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(error.position >= 1 && error.position <= text.chars().count() + 1);
        }
    }
}

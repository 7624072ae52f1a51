//! The selector index: always what asking everything anew would say, for the price of what has changed.

use std::collections::{BTreeMap, BTreeSet};

use margay_model::policy::{Change, Labels, SelectorIndex};
use margay_model::selector::Selector;
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
}

#[derive(Clone, Debug)]
enum Step {
    PutSelector(u8, String),
    RemoveSelector(u8),
    PutItem(u8, Labels),
    RemoveItem(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let selector = prop_oneof![
        Just("all()"),
        Just("has(a)"),
        Just("!has(a)"),
        Just("a == 'x'"),
        Just("a != 'x'"),
        Just("a in {'x', 'y'}"),
        Just("a in {}"),
        Just("b not in {'x'}"),
        Just("a == 'x' && b == 'y'"),
        Just("a == 'x' || a == 'y'"),
        Just("a == 'x' || b == 'y'"),
        Just("has(a) && !has(b)"),
        Just("a starts with 'x'"),
        Just("(a == 'x' || has(b)) && b != 'y'"),
    ];
    let labels = prop::collection::btree_map("[abc]", "[xyz]", 0..3);
    let step = prop_oneof![
        3 => (0..6_u8, selector).prop_map(|(name, text)| Step::PutSelector(name, text.to_owned())),
        1 => (0..6_u8).prop_map(Step::RemoveSelector),
        6 => (0..6_u8, labels).prop_map(|(name, labels)| Step::PutItem(name, labels)),
        2 => (0..6_u8).prop_map(Step::RemoveItem),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// After each step members are what evaluating everything says, and the differences told are those there are.
    #[test]
    fn members_are_those_that_match(steps in steps()) {
        let mut index = SelectorIndex::<u8, u8>::default();
        let mut selectors = BTreeMap::<u8, Selector>::new();
        let mut items = BTreeMap::<u8, Labels>::new();
        let mut before = BTreeSet::new();
        for step in steps {
            let changes = match step {
                Step::PutSelector(name, text) => {
                    let selector = Selector::parse(&text).unwrap();
                    selectors.insert(name, selector.clone());
                    index.put_selector(name, selector)
                }
                Step::RemoveSelector(name) => {
                    selectors.remove(&name);
                    index.remove_selector(&name)
                }
                Step::PutItem(name, labels) => {
                    items.insert(name, labels.clone());
                    index.put_item(name, labels)
                }
                Step::RemoveItem(name) => {
                    items.remove(&name);
                    index.remove_item(&name)
                }
            };
            let pairs = selectors.iter().flat_map(|(s, selector)| {
                items.iter().filter(|(_, labels)| selector.matches(labels)).map(move |(i, _)| (*s, *i))
            });
            let after: BTreeSet<(u8, u8)> = pairs.collect();
            let left = before.difference(&after).map(|(s, i)| Change::Left(*s, *i));
            let joined = after.difference(&before).map(|(s, i)| Change::Joined(*s, *i));
            let expected: BTreeSet<Change<u8, u8>> = left.chain(joined).collect();
            prop_assert_eq!(changes.len(), expected.len(), "a change is told once");
            prop_assert_eq!(changes.into_iter().collect::<BTreeSet<_>>(), expected);
            for name in selectors.keys() {
                let members: BTreeSet<u8> = after.iter().filter(|(s, _)| s == name).map(|(_, i)| *i).collect();
                prop_assert_eq!(index.members(name), Some(&members));
            }
            before = after;
        }
    }
}

/// 1000 selectors of one value each, 100 of a label, one for everything, and 1000 things.
fn large() -> SelectorIndex<String, u32> {
    let mut index = SelectorIndex::default();
    let mut put = |name: String, text: String| drop(index.put_selector(name, Selector::parse(&text).unwrap()));
    for i in 0..1000 {
        put(format!("role-{i}"), format!("role == 'r{i}' && env == 'prod'"));
    }
    for i in 0..100 {
        put(format!("has-{i}"), format!("has(label-{i})"));
    }
    put("all".to_owned(), "all()".to_owned());
    for i in 0..1000 {
        let role = format!("r{i}");
        index.put_item(i, labels(&[("env", "prod"), ("role", &role), ("app", "a")]));
    }
    index
}

/// How many selectors are asked by `action`.
fn asked<R>(
    index: &mut SelectorIndex<String, u32>,
    action: impl FnOnce(&mut SelectorIndex<String, u32>) -> R,
) -> (u64, R) {
    let before = index.evaluations();
    let result = action(index);
    (index.evaluations() - before, result)
}

#[test]
fn a_change_asks_only_what_it_may_touch() {
    let mut index = large();
    let name = |text: &str| text.to_owned();
    // Of 1101 selectors: the role's own, and the one for everything.
    let new = labels(&[("env", "prod"), ("role", "r5")]);
    let (count, changes) = asked(&mut index, |index| index.put_item(1000, new.clone()));
    assert_eq!((count, changes), (2, vec![Change::Joined(name("all"), 1000), Change::Joined(name("role-5"), 1000)]));
    // Another role: the one that it leaves and the one that it comes to.
    let other = labels(&[("env", "prod"), ("role", "r6")]);
    let (count, changes) = asked(&mut index, |index| index.put_item(1000, other.clone()));
    assert_eq!((count, changes), (2, vec![Change::Left(name("role-5"), 1000), Change::Joined(name("role-6"), 1000)]));
    // A label that no selector mentions, and no change at all.
    let with_app = labels(&[("env", "prod"), ("role", "r6"), ("app", "b")]);
    assert_eq!(asked(&mut index, |index| index.put_item(1000, with_app.clone())), (0, vec![]));
    assert_eq!(asked(&mut index, |index| index.put_item(1000, with_app.clone())), (0, vec![]));
    // Going asks nothing.
    let (count, changes) = asked(&mut index, |index| index.remove_item(&1000));
    assert_eq!((count, changes.len()), (0, 2));
    // A new selector asks only what has the label and value that it needs.
    let selector = Selector::parse("role in {'r1', 'r2'} && has(app)").unwrap();
    let (count, changes) = asked(&mut index, |index| index.put_selector(name("new"), selector));
    assert_eq!((count, changes), (2, vec![Change::Joined(name("new"), 1), Change::Joined(name("new"), 2)]));
    let (count, changes) = asked(&mut index, |index| index.remove_selector(&name("new")));
    assert_eq!((count, changes.len()), (0, 2));
}

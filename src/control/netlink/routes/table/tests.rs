use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const TABLE: u32 = 254;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn hop(gateway: &str, ifindex: u32) -> Hop {
    Hop { gateway: Some(gateway.parse().unwrap()), ifindex: IfIndex(ifindex), weight: 1 }
}

fn body(hops: &[Hop]) -> Body {
    let mut hops: SmallVec<[Hop; 1]> = hops.iter().copied().collect();
    hops.sort_unstable();
    Body { action: Action::Unicast, next_hop: 0, hops, joins: false, source: None, rest: 0 }
}

fn joining(hops: &[Hop]) -> Body {
    Body { joins: true, ..body(hops) }
}

fn by(next_hop: u32) -> Body {
    Body { next_hop, ..body(&[]) }
}

fn route(prefix: &str, metric: u32, body: Body) -> Route {
    Route { table: TABLE, prefix: net(prefix), metric, body }
}

fn way_of(routes: &mut KernelRoutes, prefix: &str) -> Option<Way> {
    routes.ways().remove(&net(prefix))
}

fn via(gateways: &[(&str, u32, u32)]) -> Option<Way> {
    let gateway = |(address, ifindex, weight): &(&str, u32, u32)| Gateway {
        weight: *weight,
        ..Gateway::on_link(address.parse().unwrap(), IfIndex(*ifindex))
    };
    Way::through(gateways.iter().map(gateway))
}

fn new(routes: &mut KernelRoutes, route: Route, place: Place) -> bool {
    routes.notified(Message::NewRoute(route, place))
}

#[test]
fn routes_behind_the_first_are_alternatives_and_follow_changes() {
    let mut routes = KernelRoutes::new(TABLE);
    let prefix = "10.0.0.0/8";
    let [a, b, c] = [hop("192.0.2.1", 1), hop("192.0.2.2", 2), hop("192.0.2.3", 3)];
    let links = |ifindexes: &[u32]| -> Alternatives {
        ifindexes.iter().map(|ifindex| model::rib::Alternative::Link(IfIndex(*ifindex))).collect()
    };
    new(&mut routes, route(prefix, 10, body(&[a])), Place::Only);
    routes.take_changes(9);
    assert_eq!(routes.alternatives(net(prefix)), links(&[]));
    new(&mut routes, route(prefix, 20, body(&[b, c])), Place::Only);
    assert_eq!(routes.take_changes(9), [(net(prefix), via(&[("192.0.2.1", 1, 1)]))], "told again");
    assert_eq!(routes.alternatives(net(prefix)), links(&[2, 3]));
    routes.notified(Message::DelRoute(route(prefix, 10, body(&[a]))));
    assert_eq!(routes.take_changes(9), [(net(prefix), via(&[("192.0.2.2", 2, 1), ("192.0.2.3", 3, 1)]))]);
    assert_eq!(routes.alternatives(net(prefix)), links(&[]));
    new(&mut routes, route(prefix, 30, body(&[Hop { gateway: None, ..a }])), Place::Only);
    assert_eq!(routes.alternatives(net(prefix)), links(&[1]));
    routes.take_changes(9);
    routes.tell_alternatives();
    assert_eq!(routes.take_changes(9).len(), 1);
}

#[test]
fn the_lowest_metric_is_the_way_out_and_the_next_takes_over() {
    let mut routes = KernelRoutes::new(TABLE);
    let [a, b] = [hop("192.0.2.1", 1), hop("192.0.2.2", 1)];
    assert!(!new(&mut routes, route("10.0.0.0/8", 20, body(&[a])), Place::Only));
    assert!(!new(&mut routes, route("10.0.0.0/8", 10, body(&[b])), Place::Only));
    assert_eq!(way_of(&mut routes, "10.0.0.0/8"), via(&[("192.0.2.2", 1, 1)]));
    assert_eq!(routes.take_changes(9).len(), 1, "told once");
    assert!(!routes.notified(Message::DelRoute(route("10.0.0.0/8", 10, body(&[b])))));
    assert_eq!(routes.take_changes(9), [(net("10.0.0.0/8"), via(&[("192.0.2.1", 1, 1)]))]);
    let other = Route { table: 255, ..route("10.0.0.0/8", 0, body(&[b])) };
    assert!(!new(&mut routes, other, Place::Only));
    assert!(!routes.has_changes(), "another table");
}

#[test]
fn a_nexthop_object_replaced_in_place_leads_its_routes_elsewhere() {
    let mut routes = KernelRoutes::new(TABLE);
    let object = |hop| Message::NewNextHop(1, Some(NextHop::Hop(hop)));
    routes.notified(object(hop("192.0.2.1", 1)));
    routes.notified(Message::NewNextHop(2, Some(NextHop::Hop(hop("192.0.2.2", 1)))));
    routes.notified(Message::NewNextHop(9, Some(NextHop::Group(SmallVec::from_slice(&[(1, 3), (2, 1)])))));
    new(&mut routes, route("10.0.0.0/8", 0, by(1)), Place::Only);
    new(&mut routes, route("10.1.0.0/16", 0, by(9)), Place::Only);
    assert_eq!(routes.take_changes(9).len(), 2);
    routes.notified(object(hop("192.0.2.7", 1)));
    let changed = [
        (net("10.0.0.0/8"), via(&[("192.0.2.7", 1, 1)])),
        (net("10.1.0.0/16"), via(&[("192.0.2.2", 1, 1), ("192.0.2.7", 1, 3)])),
    ];
    assert_eq!(routes.take_changes(9), changed, "the group through its member, too");
    routes.notified(Message::NewNextHop(2, Some(NextHop::Blackhole)));
    assert_eq!(routes.take_changes(9), [(net("10.1.0.0/16"), Some(Way::Host))], "not a group that margay does");
    routes.notified(Message::DelNextHop(9));
    assert_eq!(routes.take_changes(9), [(net("10.1.0.0/16"), None)], "the kernel does not tell that the route is gone");
    assert!(new(&mut routes, route("10.2.0.0/16", 0, by(77)), Place::Only), "an object that was missed");
}

#[test]
fn routes_go_with_the_last_of_their_interfaces() {
    let mut routes = KernelRoutes::new(TABLE);
    let [a, b] = [hop("192.0.2.1", 1), hop("198.51.100.1", 2)];
    new(&mut routes, route("10.0.0.0/8", 0, body(&[a])), Place::Only);
    new(&mut routes, route("10.1.0.0/16", 0, body(&[a, b])), Place::Only);
    new(&mut routes, route("10.2.0.0/16", 0, Body { action: Action::Blackhole, ..body(&[]) }), Place::Only);
    let link = |ifindex, up| Message::Link { ifindex: IfIndex(ifindex), up };
    assert!(routes.notified(link(1, false)), "a dump makes sure");
    let prefixes = |routes: &mut KernelRoutes| routes.ways().into_keys().map(|p| p.to_string()).collect::<Vec<_>>();
    assert_eq!(prefixes(&mut routes), ["10.1.0.0/16", "10.2.0.0/16"]);
    assert!(!routes.notified(link(3, false)), "of no route");
    routes.notified(link(1, true));
    assert!(routes.notified(link(2, false)));
    assert_eq!(prefixes(&mut routes), ["10.1.0.0/16", "10.2.0.0/16"], "the first is up again");
    routes.notified(link(1, false));
    assert_eq!(prefixes(&mut routes), ["10.2.0.0/16"]);
    assert!(!routes.notified(Message::AddressGone { ifindex: IfIndex(1), address: a.gateway.unwrap() }));
}

#[test]
fn a_dump_repairs_what_was_missed_and_takes_nothing_away_before_its_end() {
    let mut routes = KernelRoutes::new(TABLE);
    let a = body(&[hop("192.0.2.1", 1)]);
    new(&mut routes, route("10.0.0.0/8", 0, a.clone()), Place::Only);
    new(&mut routes, route("10.1.0.0/16", 0, a.clone()), Place::Only);
    routes.take_changes(9);
    routes.begin();
    routes.dumped(Message::NewRoute(route("10.1.0.0/16", 0, a.clone()), Place::First));
    routes.dumped(Message::NewRoute(route("10.2.0.0/16", 0, a), Place::First));
    assert!(routes.ways().contains_key(&net("10.0.0.0/8")), "not before the end");
    let outcome = routes.finish();
    assert_eq!(outcome.differences, [net("10.0.0.0/8"), net("10.2.0.0/16")].into());
    assert!(!outcome.undecided);
    let changed: Vec<_> = routes.take_changes(9).into_iter().map(|(prefix, way)| (prefix, way.is_some())).collect();
    assert_eq!(changed, [(net("10.0.0.0/8"), false), (net("10.2.0.0/16"), true)], "and only these");
}

#[test]
fn a_restless_dump_takes_a_route_away_the_third_time() {
    let mut routes = KernelRoutes::new(TABLE);
    let a = body(&[hop("192.0.2.1", 1)]);
    new(&mut routes, route("10.0.0.0/8", 0, a.clone()), Place::Only);
    for round in 1..=3 {
        routes.begin();
        new(&mut routes, route("10.9.0.0/16", 0, a.clone()), Place::Replace);
        let outcome = routes.finish();
        assert_eq!(outcome.undecided, round < 3, "round {round}");
        assert_eq!(routes.ways().contains_key(&net("10.0.0.0/8")), round < 3, "round {round}");
    }
}

/// The kernel's own rules (`fib_table_insert`, `fib6_add_rt2node`), with the messages that it sends.
#[derive(Debug, Default)]
struct Kernel {
    lists: BTreeMap<Key, Vec<Body>>,
    down: BTreeSet<IfIndex>,
    told: VecDeque<Message>,
}

#[derive(Clone, Debug)]
enum Op {
    Add(Key, Body),
    Append(Key, Body),
    Prepend(Key, Body),
    Replace(Key, Body),
    /// The n-th route; of an IPv6 route that has several hops, the n-th hop or all.
    Delete(Key, usize, bool),
    Link(u32, bool),
}

impl Kernel {
    fn tell(&mut self, (prefix, metric): Key, body: Body, place: Place) {
        let route = Route { table: TABLE, prefix, metric, body };
        self.told.push_back(Message::NewRoute(route, place));
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Link(ifindex, up) => {
                let ifindex = IfIndex(ifindex);
                let changed = if up { self.down.remove(&ifindex) } else { self.down.insert(ifindex) };
                if !changed {
                    return;
                }
                self.told.push_back(Message::Link { ifindex, up });
                let down = &self.down;
                for list in self.lists.values_mut() {
                    list.retain(|body| !body.hops.iter().all(|hop| down.contains(&hop.ifindex)));
                }
                self.lists.retain(|_, list| !list.is_empty());
            }
            Op::Delete(key, n, whole) => self.delete(key, n, whole),
            Op::Add(_, ref body) | Op::Append(_, ref body) | Op::Prepend(_, ref body) | Op::Replace(_, ref body)
                if body.hops.iter().any(|hop| self.down.contains(&hop.ifindex)) => {}
            Op::Add(key, body) => {
                if self.lists.get(&key).is_none_or(Vec::is_empty) {
                    self.lists.insert(key, vec![body.clone()]);
                    self.tell(key, body, Place::Only);
                }
            }
            Op::Append(key, body) => self.put(key, body, Place::Last),
            Op::Prepend(key, body) => self.put(key, body, Place::First),
            Op::Replace(key, body) => {
                let list = self.lists.entry(key).or_default();
                if list.contains(&body) {
                    return;
                }
                let same_kind = list.iter().position(|other| other.joins == body.joins);
                match list.get_mut(same_kind.unwrap_or(0)) {
                    Some(replaced) => {
                        *replaced = body.clone();
                        self.tell(key, body, Place::Replace);
                    }
                    None => {
                        list.push(body.clone());
                        self.tell(key, body, Place::Only);
                    }
                }
            }
        }
    }

    fn put(&mut self, key: Key, body: Body, place: Place) {
        let list = self.lists.entry(key).or_default();
        if list.contains(&body) {
            return;
        }
        if list.is_empty() {
            list.push(body.clone());
            return self.tell(key, body, Place::Only);
        }
        if let Some(at) = list.iter().position(|other| other.joins).filter(|_| body.joins) {
            // The message has all hops of the route that it has become.
            let mut hops: Vec<Hop> = list[at].hops.iter().chain(&body.hops).copied().collect();
            hops.sort_unstable();
            hops.dedup();
            list[at] = joining(&hops);
            let whole = list[at].clone();
            return self.tell(key, whole, place);
        }
        let at = if place == Place::First && key.0.addr().is_ipv4() { 0 } else { list.len() };
        list.insert(at, body.clone());
        self.tell(key, body, place);
    }

    fn delete(&mut self, key: Key, n: usize, whole: bool) {
        let Some(list) = self.lists.get_mut(&key).filter(|list| !list.is_empty()) else { return };
        let at = n % list.len();
        let gone = if list[at].joins && !whole && list[at].hops.len() > 1 {
            let one = n % list[at].hops.len();
            joining(&[list[at].hops.remove(one)])
        } else {
            list.remove(at)
        };
        if list.is_empty() {
            self.lists.remove(&key);
        }
        let (prefix, metric) = key;
        self.told.push_back(Message::DelRoute(Route { table: TABLE, prefix, metric, body: gone }));
    }

    fn dump(&self) -> Vec<Message> {
        let links = (1..=3).map(|n| Message::Link { ifindex: IfIndex(n), up: !self.down.contains(&IfIndex(n)) });
        let routes = self.lists.iter().flat_map(|((prefix, metric), list)| {
            list.iter().map(|body| {
                let route = Route { table: TABLE, prefix: *prefix, metric: *metric, body: body.clone() };
                Message::NewRoute(route, Place::First)
            })
        });
        links.chain(routes).collect()
    }

    fn ways(&self) -> BTreeMap<IpNet, Way> {
        let mut ways = BTreeMap::new();
        for ((prefix, _), list) in &self.lists {
            if let Some(way) = list.iter().find_map(|body| way(body, &BTreeMap::new())) {
                ways.entry(*prefix).or_insert(way);
            }
        }
        ways
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Kernel(Op),
    /// So many notifications are read.
    Hear(usize),
    /// They are lost.
    Lose(usize),
    /// A dump begins; what it shows is read later.
    Begin,
    /// The kernel fills the dump.
    Fill,
    /// It is read to its end.
    Finish,
}

fn ops() -> impl Strategy<Value = Op> {
    let keys = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "2001:db8:1::/48"];
    let hops = [hop("192.0.2.1", 1), hop("192.0.2.2", 2), hop("192.0.2.3", 3)];
    let key = (select(keys.to_vec()), select(vec![0u32, 10])).prop_map(|(prefix, metric)| (net(prefix), metric));
    let bodies = (vec(select(hops.to_vec()), 1..3), any::<bool>(), 1..4u32);
    let routes = (key.clone(), bodies).prop_map(|(key, (mut hops, gateways, ifindex))| {
        hops.sort_unstable();
        hops.dedup();
        let body = match (key.0.addr().is_ipv6(), gateways) {
            (true, true) => joining(&hops),
            (false, true) => body(&hops),
            (_, false) => body(&[Hop { gateway: None, ifindex: IfIndex(ifindex), weight: 1 }]),
        };
        (key, body)
    });
    prop_oneof![
        2 => routes.clone().prop_map(|(key, body)| Op::Add(key, body)),
        1 => routes.clone().prop_map(|(key, body)| Op::Append(key, body)),
        1 => routes.clone().prop_map(|(key, body)| Op::Prepend(key, body)),
        2 => routes.prop_map(|(key, body)| Op::Replace(key, body)),
        2 => (key, any::<usize>(), any::<bool>()).prop_map(|(key, n, whole)| Op::Delete(key, n, whole)),
        1 => (1..4u32, any::<bool>()).prop_map(|(ifindex, up)| Op::Link(ifindex, up)),
    ]
}

fn steps(loss: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => ops().prop_map(Step::Kernel),
        8 => (0..4usize).prop_map(Step::Hear),
        u32::from(loss) => (0..4usize).prop_map(Step::Lose),
        1 => Just(Step::Begin),
        1 => Just(Step::Fill),
        1 => Just(Step::Finish),
    ];
    vec(step, 0..80)
}

/// Plays the steps, and then what the follower does until nothing is wanted any more; true where a dump was needed for it.
fn play(steps: Vec<Step>) -> (Kernel, KernelRoutes) {
    let (mut kernel, mut routes) = (Kernel::default(), KernelRoutes::new(TABLE));
    let (mut dump, mut wanted) = (None::<Vec<Message>>, false);
    let hear = |kernel: &mut Kernel, routes: &mut KernelRoutes, most: usize| {
        let most = most.min(kernel.told.len());
        kernel.told.drain(..most).fold(false, |wanted, message| routes.notified(message) | wanted)
    };
    let finish = |kernel: &mut Kernel, routes: &mut KernelRoutes, dump: Vec<Message>| {
        dump.into_iter().for_each(|message| routes.dumped(message));
        let missed = hear(kernel, routes, usize::MAX);
        routes.finish().undecided || missed
    };
    for step in steps {
        match step {
            Step::Kernel(op) => kernel.apply(op),
            Step::Hear(n) => wanted |= hear(&mut kernel, &mut routes, n),
            Step::Lose(n) => {
                let n = n.min(kernel.told.len());
                wanted |= n > 0;
                kernel.told.drain(..n);
                routes.interrupted();
            }
            Step::Begin if dump.is_none() => {
                routes.begin();
                dump = Some(Vec::new());
            }
            Step::Fill if dump.as_ref().is_some_and(Vec::is_empty) => dump = Some(kernel.dump()),
            Step::Finish if dump.as_ref().is_some_and(|dump| !dump.is_empty()) => {
                wanted |= finish(&mut kernel, &mut routes, dump.take().unwrap());
            }
            _ => {}
        }
    }
    if dump.is_some() {
        let shown = kernel.dump();
        wanted |= finish(&mut kernel, &mut routes, shown);
    }
    wanted |= hear(&mut kernel, &mut routes, usize::MAX);
    for _ in 0..5 {
        if !wanted {
            break;
        }
        routes.begin();
        let shown = kernel.dump();
        wanted = finish(&mut kernel, &mut routes, shown);
    }
    assert!(!wanted, "dumps of a table that rests decide everything");
    (kernel, routes)
}

/// What the changes add up to.
fn follow(changes: Vec<(IpNet, Option<Way>)>) -> BTreeMap<IpNet, Way> {
    changes.into_iter().filter_map(|(prefix, way)| Some((prefix, way?))).collect()
}

/// A dump shows what has taken another route's place; then come the notifications of the other and of its end.
#[test]
fn a_replacement_that_a_dump_has_shown_leaves_nothing_behind() {
    let key = (net("10.1.0.0/16"), 0);
    let by_link = |ifindex| body(&[Hop { gateway: None, ifindex: IfIndex(ifindex), weight: 1 }]);
    let (kernel, mut routes) = play(vec![
        Step::Kernel(Op::Add(key, by_link(3))),
        // Shown behind it, so that the first is complete.
        Step::Kernel(Op::Add((net("10.2.0.0/16"), 0), by_link(3))),
        Step::Hear(2),
        Step::Kernel(Op::Prepend(key, by_link(1))),
        Step::Kernel(Op::Replace(key, body(&[hop("192.0.2.1", 1)]))),
        Step::Begin,
    ]);
    assert_eq!(routes.ways(), kernel.ways());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn without_losses_the_end_is_the_kernels_table(steps in steps(false)) {
        let (kernel, mut routes) = play(steps);
        prop_assert_eq!(routes.ways(), kernel.ways());
        prop_assert_eq!(follow(routes.take_changes(usize::MAX)), kernel.ways(), "what is told adds up to it");
    }

    #[test]
    fn with_losses_too(steps in steps(true)) {
        let (kernel, mut routes) = play(steps);
        prop_assert_eq!(routes.ways(), kernel.ways());
    }
}

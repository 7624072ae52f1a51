//! Packets of checks on their way: whose each is, and what became of it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use model::network::IfIndex;
use model::tables::BackendId;
use model::verdict::{PuntReason, Verdict};
use tracing::debug;

use super::raw::Frames;
use crate::control::health::probe::words;
use crate::control::netlink::Resolver;
use crate::dataplane::{Encapsulated, Encapsulator};

/// When a packet that waits for its neighbour is tried again, in milliseconds after the time before: as long as the kernel keeps one.
const TRIES: [u64; 8] = [10, 20, 50, 100, 200, 500, 1_000, 2_000];

/// How long the kernel sends for a socket that is closed: TIME-WAIT, and FIN-WAIT-2.
const LINGER: Duration = Duration::from_secs(60);

/// What tells the packets of one check from those of every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) protocol: u8,
    pub(super) source: IpAddr,
    /// Of TCP and UDP the port, of ICMP the token behind the header of an echo request.
    pub(super) tag: u64,
}

impl Key {
    /// The key of an IP packet; `None` for what no check sends.
    fn of(packet: &[u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(packet).ok()?;
        let source: IpAddr = match sliced.net? {
            NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
            NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
            NetSlice::Arp(_) => return None,
        };
        let token = |payload: &[u8]| payload.try_into().ok().map(u64::from_be_bytes);
        let (protocol, tag) = match sliced.transport? {
            TransportSlice::Tcp(tcp) => (IpNumber::TCP, tcp.source_port().into()),
            TransportSlice::Udp(udp) => (IpNumber::UDP, udp.source_port().into()),
            TransportSlice::Icmpv4(icmp) => (IpNumber::ICMP, token(icmp.payload())?),
            TransportSlice::Icmpv6(icmp) => (IpNumber::IPV6_ICMP, token(icmp.payload())?),
            TransportSlice::Igmp(_) => return None,
        };
        Some(Self { protocol: protocol.0, source, tag })
    }
}

/// What became of the packets of one check.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// One has left.
    pub(super) left: bool,
    /// Why the last one has not.
    pub(super) problem: Option<String>,
}

/// One check, or what is left of it.
struct Check {
    number: u64,
    backend: BackendId,
    fate: Fate,
}

#[derive(Default)]
struct State {
    program: Option<Arc<Encapsulator>>,
    checks: BTreeMap<Key, Check>,
    /// How many there have been.
    begun: u64,
    /// Checks that are over, and until when what the kernel still sends for them goes where they went.
    over: VecDeque<(Instant, Key, u64)>,
}

impl State {
    /// Forgets checks that have been over for long enough, unless their key is another's already.
    fn forget(&mut self, now: Instant) {
        while let Some((_, key, number)) = self.over.pop_front_if(|(until, ..)| *until <= now) {
            if self.checks.get(&key).is_some_and(|check| check.number == number) {
                self.checks.remove(&key);
            }
        }
    }
}

/// Takes packets of checks and sends them to the backends that they are for. The lock is never waited for: all this is on one thread.
pub(super) struct Sent {
    frames: Frames,
    resolver: Resolver,
    state: Mutex<State>,
}

impl Sent {
    pub(super) fn new(frames: Frames, resolver: Resolver, program: Option<Arc<Encapsulator>>) -> Self {
        Self { frames, resolver, state: Mutex::new(State { program, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packets go by this program from now on.
    pub(super) fn take_program(&self, program: Arc<Encapsulator>) {
        self.state().program = Some(program);
    }

    /// Packets with this key are for the backend. Returned is the number of the check.
    pub(super) fn begin(&self, key: Key, backend: BackendId) -> u64 {
        let mut state = self.state();
        state.forget(Instant::now());
        state.begun += 1;
        let number = state.begun;
        state.checks.insert(key, Check { number, backend, fate: Fate::default() });
        number
    }

    /// The check is over. What ends its connection is still to be sent.
    pub(super) fn end(&self, key: Key, number: u64) {
        self.state().over.push_back((Instant::now() + LINGER, key, number));
    }

    /// What became of the packets with this key.
    pub(super) fn fate(&self, key: &Key) -> Fate {
        self.state().checks.get(key).map(|check| check.fate.clone()).unwrap_or_default()
    }

    /// Sends a packet to the backend that it is for; one that is nobody's is let go.
    pub(super) fn take(self: &Arc<Self>, packet: &[u8]) {
        let Some(key) = Key::of(packet) else { return };
        if let Some(neighbor) = self.send(&key, packet) {
            tokio::spawn(Arc::clone(self).send_when_resolved(key, packet.to_vec(), neighbor));
        }
    }

    /// The neighbour that is to be resolved first, if any.
    fn send(&self, key: &Key, packet: &[u8]) -> Option<(IfIndex, IpAddr)> {
        let State { program, checks, .. } = &mut *self.state();
        let Check { backend, fate, .. } = checks.get_mut(key)?;
        let Some(program) = program else {
            fate.problem = Some("the program that sends checks is not loaded: see the log".to_owned());
            return None;
        };
        let sent = match program.encapsulate(*backend, packet) {
            Ok(Encapsulated::Frame { ifindex, frame }) => {
                self.frames.send(ifindex, &frame).map_err(|error| format!("it cannot be sent: {}", words(&error)))
            }
            Ok(Encapsulated::Unresolved { ifindex, address }) => {
                fate.problem = Some(format!("neighbour {address} does not answer"));
                return Some((ifindex, address));
            }
            Ok(Encapsulated::Refused { verdict, mtu }) => Err(refused(verdict, mtu, packet.len())),
            Err(error) => Err(error.to_string()),
        };
        fate.left |= sent.is_ok();
        fate.problem = sent.err();
        None
    }

    /// As the kernel does with packets of its own: what is sent while a neighbour is not known is sent when it is.
    async fn send_when_resolved(self: Arc<Self>, key: Key, packet: Vec<u8>, neighbor: (IfIndex, IpAddr)) {
        let (ifindex, address) = neighbor;
        if let Err(error) = self.resolver.resolve(ifindex, address, true).await {
            debug!(%ifindex, %address, %error, "the kernel does not resolve this neighbour");
        }
        for pause in TRIES {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if self.send(&key, &packet).is_none() {
                return;
            }
        }
    }
}

/// Why the program does not send a packet.
fn refused(verdict: Verdict, mtu: Option<u32>, bytes: usize) -> String {
    match (verdict, mtu) {
        (Verdict::Punt(PuntReason::PacketTooBig), Some(mtu)) => {
            format!("a packet of {bytes} bytes does not fit the way to it, at most {mtu} do")
        }
        _ => format!("its packets are not sent: {verdict}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tag: u64) -> Key {
        Key { protocol: 6, source: "10.0.0.1".parse().unwrap(), tag }
    }

    fn key_of(packet: &str) -> Option<Key> {
        let frame = packet::notation::encode(&format!("eth 02::1 > 02::2 / {packet}")).unwrap();
        Key::of(&frame[14..])
    }

    #[test]
    fn packets_are_known_by_protocol_source_and_port_or_token() {
        for (from, to, ip, icmp) in
            [("10.0.0.1", "192.0.2.10", "ip4", "icmp"), ("fd00::1", "2001:db8::1", "ip6", "icmp6")]
        {
            let source = from.parse().unwrap();
            let numbers = [("tcp 31337 > 80 S", 6, 31_337), ("udp 53 > 80 / data 3", 17, 53)];
            let echo = (if ip == "ip4" { 1 } else { 58 }, u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7]));
            let echoes = [(format!("{icmp} echo / data 8"), echo.0, echo.1)];
            let all = numbers.map(|(upper, protocol, tag)| (upper.to_owned(), protocol, tag)).into_iter().chain(echoes);
            for (upper, protocol, tag) in all {
                let found = key_of(&format!("{ip} {from} > {to} / {upper}"));
                assert_eq!(found, Some(Key { protocol, source, tag }), "{upper}");
            }
            for other in [format!("{icmp} echo / data 9"), "sctp 5 > 6".to_owned(), "data 8".to_owned()] {
                assert_eq!(key_of(&format!("{ip} {from} > {to} / {other}")), None, "{other}");
            }
        }
        assert_eq!(Key::of(&[]), None);
        assert_eq!(Key::of(&[0x45, 0, 0]), None);
    }

    #[test]
    fn a_port_that_is_used_again_is_the_later_checks() {
        let (now, mut state) = (Instant::now(), State::default());
        for (number, tag) in [(1, 5), (2, 6)] {
            state.checks.insert(key(tag), Check { number, backend: BackendId(1), fate: Fate::default() });
            state.over.push_back((now + LINGER, key(tag), number));
        }
        state.forget(now);
        assert_eq!(state.checks.len(), 2, "what ends a connection is still sent");
        state.checks.insert(key(5), Check { number: 3, backend: BackendId(2), fate: Fate::default() });
        state.forget(now + LINGER);
        let left: Vec<_> = state.checks.iter().map(|(key, check)| (key.tag, check.number)).collect();
        assert_eq!((left, state.over.len()), (vec![(5, 3)], 0));
    }
}

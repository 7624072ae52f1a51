//! 10,000 malformed messages on a live session. What must become of each is worked out here from the RFCs alone, byte by
//! byte, and compared with what the speaker does; another session must not notice.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::desired::BgpPeer;

use crate::bird::{Bird, session, statics};
use crate::harness::{Lab, THEM, address, bgp, nets, peer};

const MESSAGES: usize = 10_000;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
const REFRESH: u8 = 5;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

/// AS 65002, hold time 90; multiprotocol for both families, route refresh, four-octet AS; no graceful restart.
fn open() -> Vec<u8> {
    let capabilities = [&[1, 4, 0, 1, 0, 1][..], &[1, 4, 0, 2, 0, 1], &[2, 0], &[65, 4, 0, 0, 0xfd, 0xea]].concat();
    let mut body = vec![4, 0xfd, 0xea, 0, 90, 10, 77, 0, 2];
    body.push(u8::try_from(capabilities.len() + 2).unwrap());
    body.extend([2, u8::try_from(capabilities.len()).unwrap()]);
    body.extend(capabilities);
    message(OPEN, &body)
}

fn update(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = u16::try_from(withdrawn.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend_from_slice(nlri);
    message(UPDATE, &body)
}

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 77, 0, 2];
const MED: &[u8] = &[0x80, 4, 4, 0, 0, 0, 5];
const COMMUNITIES: &[u8] = &[0xc0, 8, 4, 0xfd, 0xea, 0, 1];
/// 2001:db8:f::/48 via 2001:db8:77::2.
const MP_REACH: &[u8] = &[
    0x80, 14, 28, 0, 2, 1, 16, 0x20, 0x01, 0x0d, 0xb8, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 48, 0x20, 0x01, 0x0d,
    0xb8, 0, 0x0f,
];
const MP_UNREACH: &[u8] = &[0x80, 15, 10, 0, 2, 1, 48, 0x20, 0x01, 0x0d, 0xb8, 0, 0x0f];
const PREFIXES: &[u8] = &[24, 203, 0, 113, 32, 203, 0, 113, 7];

fn valid_messages() -> Vec<Vec<u8>> {
    vec![
        open(),
        update(&[], &[ORIGIN, AS_PATH, NEXT_HOP, MED, COMMUNITIES], PREFIXES),
        update(&[], &[ORIGIN, AS_PATH, NEXT_HOP], PREFIXES),
        update(PREFIXES, &[], &[]),
        update(&[], &[MP_REACH, ORIGIN, AS_PATH, COMMUNITIES], &[]),
        update(&[], &[MP_UNREACH], &[]),
        message(KEEPALIVE, &[]),
        message(NOTIFICATION, &[6, 4]),
        message(REFRESH, &[0, 2, 0, 1]),
    ]
}

/// The speaker answers it by announcing its IPv4 prefix again: whatever came before has been dealt with.
fn barrier() -> Vec<u8> {
    message(REFRESH, &[0, 1, 0, 1])
}

/// What must become of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It stays.
    Stays,
    /// It is reset with this code and, where the RFCs leave no choice, this subcode.
    Reset(u8, Option<u8>),
    /// It is closed without a word.
    Silent,
    /// Multiprotocol NLRI that may or may not be found: it stays, or it is reset with an UPDATE error.
    StaysOrReset,
    /// The bytes end within a message.
    Incomplete,
}

/// Follows a byte stream to the first thing that decides about the session. Also says how many requests for the IPv4 prefix
/// are in it: damaged messages can be such ones too.
fn fate(stream: &[u8]) -> (Fate, usize) {
    let mut requests = 0;
    (follow(stream, &mut requests), requests)
}

fn follow(mut stream: &[u8], requests: &mut usize) -> Fate {
    let mut uncertain = false;
    while !stream.is_empty() {
        if stream.iter().take(16).any(|b| *b != 0xff) {
            return doubt(uncertain, Fate::Reset(1, Some(1)));
        }
        if stream.len() < 19 {
            return Fate::Incomplete;
        }
        let (length, kind) = (usize::from(u16::from_be_bytes([stream[16], stream[17]])), stream[18]);
        let right_length = match kind {
            OPEN => (29..=4096).contains(&length),
            UPDATE => (23..=4096).contains(&length),
            NOTIFICATION => (21..=4096).contains(&length),
            KEEPALIVE => length == 19,
            REFRESH => length == 23,
            _ => (19..=4096).contains(&length),
        };
        if !right_length {
            return doubt(uncertain, Fate::Reset(1, Some(2)));
        }
        if !(OPEN..=REFRESH).contains(&kind) {
            return doubt(uncertain, Fate::Reset(1, Some(3)));
        }
        if stream.len() < length {
            return Fate::Incomplete;
        }
        let fate = match kind {
            // An OPEN is not expected any more; a malformed one may be told so first.
            OPEN => Fate::Reset(if open_is_well_formed(&stream[19..length]) { 5 } else { 2 }, None),
            NOTIFICATION => Fate::Silent,
            UPDATE => update_fate(&stream[19..length]),
            _ => {
                *requests += usize::from(kind == REFRESH && stream[19..length] == [0, 1, 0, 1]);
                Fate::Stays
            }
        };
        match fate {
            Fate::Stays => {}
            Fate::StaysOrReset => uncertain = true,
            decided => return doubt(uncertain, decided),
        }
        stream = &stream[length..];
    }
    doubt(uncertain, Fate::Stays)
}

/// After an UPDATE that may have reset the session, nothing later is certain but that.
fn doubt(uncertain: bool, fate: Fate) -> Fate {
    if uncertain { Fate::StaysOrReset } else { fate }
}

/// Version 4 and optional parameters that are capabilities and fill their space (RFC 4271 §4.2, RFC 5492).
fn open_is_well_formed(body: &[u8]) -> bool {
    let mut rest = &body[10..];
    if body[0] != 4 || usize::from(body[9]) != rest.len() {
        return false;
    }
    while let [kind, length, tail @ ..] = rest {
        let length = usize::from(*length);
        if *kind != 2 || tail.len() < length || !capabilities_are_well_formed(&tail[..length]) {
            return false;
        }
        rest = &tail[length..];
    }
    rest.is_empty()
}

fn capabilities_are_well_formed(mut rest: &[u8]) -> bool {
    while let [_, length, tail @ ..] = rest {
        if tail.len() < usize::from(*length) {
            return false;
        }
        rest = &tail[usize::from(*length)..];
    }
    rest.is_empty()
}

/// RFC 7606: only NLRI that cannot be located reset the session.
fn update_fate(body: &[u8]) -> Fate {
    let withdrawn_length = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let Some(after) = body[2..].get(withdrawn_length..).filter(|after| after.len() >= 2) else {
        return Fate::Reset(3, Some(1));
    };
    let withdrawn = &body[2..2 + withdrawn_length];
    let attributes_length = usize::from(u16::from_be_bytes([after[0], after[1]]));
    let Some(nlri) = after[2..].get(attributes_length..) else { return Fate::Reset(3, Some(1)) };
    if !prefixes_are_well_formed(withdrawn) {
        return Fate::Reset(3, Some(10));
    }
    if multiprotocol_is_damaged(&after[2..2 + attributes_length]) {
        return Fate::StaysOrReset;
    }
    if prefixes_are_well_formed(nlri) { Fate::Stays } else { Fate::Reset(3, Some(10)) }
}

fn prefixes_are_well_formed(mut rest: &[u8]) -> bool {
    while let [bits, tail @ ..] = rest {
        let bytes = usize::from(*bits).div_ceil(8);
        if *bits > 32 || tail.len() < bytes {
            return false;
        }
        rest = &tail[bytes..];
    }
    true
}

/// Is there an MP_REACH_NLRI or MP_UNREACH_NLRI that is not one of ours, or more than one?
fn multiprotocol_is_damaged(mut rest: &[u8]) -> bool {
    let mut seen = [0; 2];
    while rest.len() >= 2 {
        let (flags, kind) = (rest[0], rest[1]);
        let multiprotocol = matches!(kind, 14 | 15);
        let header = if flags & 0x10 == 0 { 3 } else { 4 };
        let length = match rest.get(2..header) {
            Some([length]) => usize::from(*length),
            Some([high, low]) => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return multiprotocol,
        };
        let Some(attribute) = rest.get(..header + length) else { return multiprotocol };
        if multiprotocol {
            seen[usize::from(kind - 14)] += 1;
            if attribute != MP_REACH && attribute != MP_UNREACH {
                return true;
            }
        }
        rest = &rest[header + length..];
    }
    seen.iter().any(|n| *n > 1)
}

/// A message that is damaged in one of the ways that have taken speakers down.
fn mutated(rng: &mut fastrand::Rng, valid: &[Vec<u8>]) -> Vec<u8> {
    if rng.u8(..100) < 5 {
        let length = rng.usize(19..200);
        return std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
    }
    let mut bytes = valid[rng.usize(..valid.len())].clone();
    match rng.u8(..8) {
        // Bits anywhere after the marker, so that more than the first check is reached.
        0..=2 => {
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(16..bytes.len());
                bytes[at] ^= 1 << rng.u8(..8);
            }
        }
        3..=4 => {
            let at = rng.usize(16..bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..6)];
        }
        // The body is cut or stretched, and the header says so.
        5 => {
            bytes.truncate(rng.usize(19..=bytes.len()));
            set_length(&mut bytes);
        }
        6 => {
            for _ in 0..rng.usize(1..40) {
                bytes.push(rng.u8(..));
            }
            set_length(&mut bytes);
        }
        // A piece of the body is repeated or left out.
        _ => {
            let from = rng.usize(19..=bytes.len());
            let to = rng.usize(from..=bytes.len());
            if rng.bool() {
                let piece = bytes[from..to].to_vec();
                bytes.splice(from..from, piece);
            } else {
                bytes.drain(from..to);
            }
            set_length(&mut bytes);
        }
    }
    bytes
}

fn set_length(bytes: &mut [u8]) {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    bytes[16..18].copy_from_slice(&length);
}

/// The malicious end of a session.
struct Attacker {
    stream: TcpStream,
}

impl Attacker {
    /// Establishes a session and waits for the speaker's End-of-RIB of both families.
    fn connect() -> Self {
        let stream = TcpStream::connect("10.77.0.1:179").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut attacker = Self { stream };
        attacker.stream.write_all(&open()).unwrap();
        assert_eq!(attacker.read().unwrap().0, OPEN);
        attacker.stream.write_all(&message(KEEPALIVE, &[])).unwrap();
        let mut ends = 0;
        while ends < 2 {
            let (kind, body) = attacker.read().unwrap();
            assert!(matches!(kind, KEEPALIVE | UPDATE), "{kind} {body:?}");
            let empty_unreach: &[u8] = &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1];
            let long_unreach: &[u8] = &[0, 0, 0, 7, 0x90, 15, 0, 3, 0, 2, 1];
            ends += usize::from(body == [0; 4] || body == empty_unreach || body == long_unreach);
        }
        attacker
    }

    /// The next message; `None` where the speaker has closed.
    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 19];
        self.stream.read_exact(&mut header).ok()?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
        self.stream.read_exact(&mut body).ok()?;
        Some((header[18], body))
    }

    /// Sends bytes and sees what becomes of the session: code and subcode of a reset, `Ok(true)` where it stays and
    /// `Ok(false)` where it is closed without a word.
    fn provoke(&mut self, bytes: &[u8], requests: usize) -> Result<bool, (u8, u8)> {
        // The speaker may close while this is being written.
        let _ = self.stream.write_all(bytes);
        let mut answers = 0;
        loop {
            match self.read() {
                None => return Ok(false),
                Some((NOTIFICATION, body)) => return Err((body[0], body[1])),
                Some((UPDATE, body)) if body.ends_with(&[32, 192, 0, 2, 80]) => {
                    answers += 1;
                    if answers == requests {
                        return Ok(true);
                    }
                }
                Some((UPDATE | KEEPALIVE, _)) => {}
                Some((kind, body)) => panic!("unexpected message {kind}: {body:?}"),
            }
        }
    }
}

/// How often each fate came true.
#[derive(Debug, Default)]
struct Tally {
    stayed: usize,
    reset: usize,
    silent: usize,
    uncertain: usize,
}

fn attack() -> Tally {
    let mut rng = fastrand::Rng::with_seed(4271);
    let valid = valid_messages();
    let mut tally = Tally::default();
    let mut attacker = Attacker::connect();
    for n in 0..MESSAGES {
        let message = mutated(&mut rng, &valid);
        let mut bytes = [message.clone(), barrier()].concat();
        let (mut expected, mut requests) = fate(&bytes);
        if expected == Fate::Incomplete {
            // Zeros end whatever message swallows them, and are no marker.
            bytes.extend([0; 4200]);
            (expected, requests) = fate(&bytes);
        }
        let outcome = attacker.provoke(&bytes, requests);
        let right = match (expected, outcome) {
            (Fate::Stays | Fate::StaysOrReset, Ok(true)) | (Fate::Silent, Ok(false)) => true,
            (Fate::Reset(code, subcode), Err((c, s))) => c == code && subcode.is_none_or(|subcode| subcode == s),
            (Fate::StaysOrReset, Err((code, _))) => code == 3 || bytes.len() > message.len() + 23 && code == 1,
            _ => false,
        };
        assert!(right, "message {n}: expected {expected:?}, got {outcome:?}; {message:02x?}");
        match expected {
            Fate::Stays => tally.stayed += 1,
            Fate::Reset(..) => tally.reset += 1,
            Fate::Silent => tally.silent += 1,
            Fate::StaysOrReset | Fate::Incomplete => tally.uncertain += 1,
        }
        if outcome != Ok(true) {
            attacker = Attacker::connect();
        }
    }
    tally
}

#[test]
fn malformed_messages_reset_only_what_they_must() {
    let lab = Lab::new(2);
    let config = statics(10) + &session("m", "10.77.1.2", THEM, "10.77.1.1 as 65001", &["ipv4", "ipv6"], "");
    let _bird = Bird::start(&lab.theirs[1], "10.77.1.2", &config);
    let ready = Arc::new(AtomicBool::new(false));
    let wait = Arc::clone(&ready);
    let attack = lab.theirs[0].thread(move || {
        while !wait.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        attack()
    });
    let (done, started) = (Duration::from_secs(300), Instant::now());
    lab.drive(move |mut d| async move {
        let attacker = BgpPeer { passive: true, keepalive_seconds: 30, ..peer("10.77.0.2") };
        d.configure(bgp(vec![attacker, peer("10.77.1.2")]));
        d.speaker.announce(nets(&["192.0.2.80/32"]));
        d.until_routes(20, Duration::from_secs(20)).await;
        let before = d.rib.clone();
        let established = Instant::now();
        ready.store(true, Ordering::Relaxed);
        d.until("the attack is over", done, |d| {
            for (prefix, route) in &before {
                assert_eq!(d.rib.get(prefix), Some(route), "{prefix}");
            }
            attack.is_finished()
        })
        .await;
        let tally = attack.join().unwrap().unwrap();
        println!("{tally:?} in {:?}", started.elapsed());
        // Every kind has had its share.
        assert!(tally.stayed > 2000 && tally.reset > 2000 && tally.silent > 100, "{tally:?}");
        assert!(tally.uncertain < MESSAGES / 5, "{tally:?}");
        let up_for = established.elapsed().as_secs();
        let other = d.status(address("10.77.1.2")).unwrap();
        assert_eq!((other.state.as_str(), other.flaps, other.prefixes_accepted), ("Established", 0, 20));
        assert!(other.uptime_seconds.unwrap() >= up_for, "{other:?}");
        assert!(d.status(address("10.77.0.2")).unwrap().malformed_updates > 100);
    });
}

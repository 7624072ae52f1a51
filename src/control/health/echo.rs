//! ICMP echo: one raw socket a family, whose answers are shared out among those who wait.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use etherparse::icmpv4::{TYPE_ECHO_REPLY, TYPE_ECHO_REQUEST};
use etherparse::icmpv6;
use etherparse::{Icmpv4Slice, Icmpv6Slice, Ipv4HeaderSlice};
use packet::checksum;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::probe::words;

/// Octets behind the header of a request: what an answer is known by, beside its source.
const TOKEN_BYTES: usize = 8;
/// ICMP and ICMPv6 echo header (RFC 792, RFC 4443 §4.1).
const HEADER_BYTES: usize = 8;
/// Largest packet that is looked at.
const BUFFER_BYTES: usize = 2048;
/// Requests whose askers may have given up, before that is looked after.
const FORGET_ABOVE: usize = 8192;

/// Where an answer goes.
type Asker = oneshot::Sender<Result<(), String>>;

/// A question, and where its answer goes.
struct Request {
    to: IpAddr,
    answer: Asker,
}

/// Asks for echoes.
#[derive(Clone)]
pub(super) struct Echo {
    requests: mpsc::UnboundedSender<Request>,
}

impl Echo {
    /// Opens the socket of a family and answers from it, as a task of the current runtime.
    pub(super) fn open(ipv6: bool) -> Result<Self, String> {
        let socket = open(ipv6).map_err(|error| format!("no raw socket: {}", words(&error)))?;
        let (requests, asked) = mpsc::unbounded_channel();
        tokio::spawn(exchange(socket, ipv6, asked));
        Ok(Self { requests })
    }

    /// Asks for one echo and waits for it, without end.
    ///
    /// # Errors
    /// What is wrong, in the words that the operator gets.
    pub(super) async fn of(&self, to: IpAddr) -> Result<(), String> {
        let gone = || "the socket is gone".to_owned();
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { to, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// A raw socket, in the form that the runtime waits for: it is sent by and received from with addresses, like one of UDP.
fn open(ipv6: bool) -> io::Result<UdpSocket> {
    let (domain, protocol) = if ipv6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(std::os::fd::OwnedFd::from(socket).into())
}

async fn exchange(socket: UdpSocket, ipv6: bool, mut asked: mpsc::UnboundedReceiver<Request>) {
    let mut waiting: BTreeMap<(IpAddr, [u8; TOKEN_BYTES]), Asker> = BTreeMap::new();
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        tokio::select! {
            request = asked.recv() => {
                let Some(Request { to, answer }) = request else { return };
                let token = fastrand::u64(..).to_be_bytes();
                match socket.send_to(&echo_request(ipv6, token), SocketAddr::new(to, 0)).await {
                    Ok(_) => drop(waiting.insert((to, token), answer)),
                    // Who asked may have given up.
                    Err(error) => drop(answer.send(Err(words(&error)))),
                }
                if waiting.len() > FORGET_ABOVE {
                    waiting.retain(|_, answer| !answer.is_closed());
                }
            },
            received = socket.recv_from(&mut buffer) => {
                // An error is about something that was sent: its asker waits in vain, and says so.
                let Ok((length, from)) = received else { continue };
                let token = buffer.get(..length).and_then(|packet| token_of(ipv6, packet));
                if let Some(answer) = token.and_then(|token| waiting.remove(&(from.ip(), token))) {
                    let _ = answer.send(Ok(()));
                }
            },
        }
    }
}

/// An echo request. Of IPv6 the kernel adds the checksum (RFC 3542 §3.1).
fn echo_request(ipv6: bool, token: [u8; TOKEN_BYTES]) -> [u8; HEADER_BYTES + TOKEN_BYTES] {
    let mut request = [0; HEADER_BYTES + TOKEN_BYTES];
    let kind = if ipv6 { icmpv6::TYPE_ECHO_REQUEST } else { TYPE_ECHO_REQUEST };
    let [first, .., t0, t1, t2, t3, t4, t5, t6, t7] = &mut request;
    *first = kind;
    [*t0, *t1, *t2, *t3, *t4, *t5, *t6, *t7] = token;
    if !ipv6 {
        let [high, low] = checksum::internet(&request).to_be_bytes();
        let [_, _, at_high, at_low, ..] = &mut request;
        (*at_high, *at_low) = (high, low);
    }
    request
}

/// What an echo reply brings back; `None` for any other packet.
fn token_of(ipv6: bool, packet: &[u8]) -> Option<[u8; TOKEN_BYTES]> {
    let payload = if ipv6 {
        let reply = Icmpv6Slice::from_slice(packet).ok()?;
        (reply.type_u8() == icmpv6::TYPE_ECHO_REPLY).then(|| reply.payload().to_vec())?
    } else {
        let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
        let reply = Icmpv4Slice::from_slice(packet.get(header.slice().len()..)?).ok()?;
        (reply.type_u8() == TYPE_ECHO_REPLY).then(|| reply.payload().to_vec())?
    };
    payload.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the stack of a host makes of a request: the other type, and of IPv4 its header in front.
    fn reply(ipv6: bool, token: [u8; TOKEN_BYTES]) -> Vec<u8> {
        let mut reply = echo_request(ipv6, token).to_vec();
        reply[0] = if ipv6 { icmpv6::TYPE_ECHO_REPLY } else { TYPE_ECHO_REPLY };
        if ipv6 {
            return reply;
        }
        let mut packet = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        packet.append(&mut reply);
        packet
    }

    #[test]
    fn a_reply_brings_the_token_back_and_nothing_else_does() {
        let token = [1, 2, 3, 4, 5, 6, 7, 8];
        for ipv6 in [false, true] {
            let reply = reply(ipv6, token);
            assert_eq!(token_of(ipv6, &reply), Some(token));
            let requested = if ipv6 {
                echo_request(true, token).to_vec()
            } else {
                [&reply[..20], &echo_request(false, token)].concat()
            };
            assert_eq!(token_of(ipv6, &requested), None, "our own request");
            for length in 0..reply.len() {
                assert_eq!(token_of(ipv6, &reply[..length]), None, "{length} bytes of it");
            }
            assert_eq!(token_of(ipv6, &[reply.as_slice(), &[0]].concat()), None, "more than was sent");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_request() {
        let request = echo_request(false, [9; TOKEN_BYTES]);
        assert_eq!(checksum::internet(&request), 0, "RFC 1071: the sum over all of it is all ones");
    }
}

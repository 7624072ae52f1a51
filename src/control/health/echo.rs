//! ICMP echo: one raw socket a family, whose answers are shared out among those who wait.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use packet::echo::{self, TOKEN_BYTES, token_of};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::probe::words;

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

/// Asks for one echo over a raw socket of its own that is connected, and waits for it, without end.
///
/// # Errors
/// What is wrong, in the words that the operator gets.
pub(super) async fn over(socket: &UdpSocket, ipv6: bool, token: u64) -> Result<(), String> {
    let token = token.to_be_bytes();
    socket.send(&echo::request(ipv6, token)).await.map_err(|error| words(&error))?;
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| words(&error))?;
        if buffer.get(..length).and_then(|packet| token_of(ipv6, packet)) == Some(token) {
            return Ok(());
        }
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
                match socket.send_to(&echo::request(ipv6, token), SocketAddr::new(to, 0)).await {
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

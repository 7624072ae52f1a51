//! One check of one target: what is sent, and what came back, in words where it is not what was expected.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::health::{HttpProbe, Probe, Target, UdpProbe};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::ClientConfig;

use super::echo::{self, Echo};
use super::tunnel::Passage;
use super::{http, tls};

/// Largest datagram that is looked at.
const ANSWER_BYTES: usize = 65_536;

/// How long a check has.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// What a step of the check ends in, unless it takes too long: then what there was `none` of.
    pub(super) async fn of<T>(self, none: &str, step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let late = |_| Err(format!("no {none} within {:?}", self.timeout));
        timeout_at(self.at, step).await.unwrap_or_else(late)
    }

    /// When it ends.
    pub(super) fn at(self) -> Instant {
        self.at
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.at
    }
}

/// What a check needs that is not its own.
pub(super) enum Prepared {
    /// Nothing.
    Nothing,
    /// How to speak TLS.
    Tls(Arc<ClientConfig>),
    /// Who asks for echoes.
    Echo(Echo),
}

/// Checks a target once, via tunnel where there is a passage.
///
/// # Errors
/// What is wrong, in the words that the operator gets.
pub(super) async fn probe(target: &Target, prepared: Prepared, mut passage: Option<Passage>) -> Result<(), String> {
    let outcome = ask(target, prepared, &mut passage).await;
    match passage {
        Some(passage) => passage.judge(outcome),
        None => outcome,
    }
}

async fn ask(target: &Target, prepared: Prepared, passage: &mut Option<Passage>) -> Result<(), String> {
    let timeout = target.check.timeout;
    let deadline = Deadline { at: Instant::now() + timeout, timeout };
    let address = target.asked();
    match (&target.check.probe, prepared) {
        (Probe::Tcp, _) => {
            let stream = connect(address, passage, deadline).await?;
            // The server learns at once that nothing will come, and neither side keeps the connection in memory.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(|error| words(&error))
        }
        (Probe::Http(expected @ HttpProbe { tls: Some(tls), .. }), Prepared::Tls(configuration)) => {
            let stream = connect(address, passage, deadline).await?;
            let stream = tls::connect(stream, address.ip(), tls, configuration, deadline).await?;
            http::probe(stream, address, expected, deadline).await
        }
        (Probe::Http(expected), _) => {
            http::probe(connect(address, passage, deadline).await?, address, expected, deadline).await
        }
        (Probe::Udp(expected), _) => udp(address, expected, passage, deadline).await,
        (Probe::Icmp, prepared) => match (passage, prepared) {
            (Some(passage), _) => echo_through(passage, address, deadline).await,
            (None, Prepared::Echo(echo)) => deadline.of("echo reply", echo.of(target.address)).await,
            (None, _) => Err("no raw socket".to_owned()),
        },
    }
}

/// Sends the datagram and judges the first answer to it. A socket that is connected is told of ICMP errors, and gets answers from that
/// server and port alone.
async fn udp(
    address: SocketAddr,
    expected: &UdpProbe,
    passage: &mut Option<Passage>,
    deadline: Deadline,
) -> Result<(), String> {
    let any = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => "port unreachable".to_owned(),
        _ => words(&error),
    };
    let socket = match passage {
        Some(passage) => passage.datagram(address)?,
        None => UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(failed)?,
    };
    socket.connect(address).await.map_err(failed)?;
    socket.send(&expected.send).await.map_err(failed)?;
    let mut answer = vec![0; ANSWER_BYTES];
    let answered = timeout_at(deadline.at, socket.recv(&mut answer)).await;
    match (answered, &expected.expect) {
        (Ok(Err(error)), _) => Err(failed(error)),
        (Ok(Ok(_)), None) | (Err(_), None) => Ok(()),
        (Err(_), Some(_)) => {
            Err(silence(passage, address, deadline, format!("no UDP answer within {:?}", deadline.timeout)))
        }
        (Ok(Ok(length)), Some(wanted)) => {
            let found =
                answer.get(..length).is_some_and(|answer| answer.windows(wanted.len()).any(|part| part == wanted));
            if found { Ok(()) } else { Err(format!("the UDP answer, {length} bytes, is not the one expected")) }
        }
    }
}

async fn connect(address: SocketAddr, passage: &mut Option<Passage>, deadline: Deadline) -> Result<TcpStream, String> {
    let socket = match passage {
        Some(passage) => passage.stream(address)?,
        None if address.is_ipv4() => TcpSocket::new_v4().map_err(|error| words(&error))?,
        None => TcpSocket::new_v6().map_err(|error| words(&error))?,
    };
    let connected =
        deadline.of("connection", async { socket.connect(address).await.map_err(|error| words(&error)) }).await;
    connected.map_err(|error| silence(passage, address, deadline, error))
}

async fn echo_through(passage: &mut Passage, address: SocketAddr, deadline: Deadline) -> Result<(), String> {
    let token = fastrand::u64(..);
    let socket = passage.raw(address, token)?;
    socket.connect(address).await.map_err(|error| words(&error))?;
    let answered = deadline.of("echo reply", echo::over(&socket, address.is_ipv6(), token)).await;
    answered.map_err(|error| if deadline.is_over() { passage.silence(address, error) } else { error })
}

/// What was said where nothing came back, and of a check via tunnel what may be the reason.
fn silence(passage: &Option<Passage>, address: SocketAddr, deadline: Deadline, said: String) -> String {
    match passage {
        Some(passage) if deadline.is_over() => passage.silence(address, said),
        _ => said,
    }
}

/// The kernel's words for an error, without its number.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

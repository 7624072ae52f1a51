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

use super::echo::Echo;
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

/// Checks a target once.
///
/// # Errors
/// What is wrong, in the words that the operator gets.
pub(super) async fn probe(target: &Target, prepared: Prepared) -> Result<(), String> {
    let timeout = target.check.timeout;
    let deadline = Deadline { at: Instant::now() + timeout, timeout };
    let address = SocketAddr::new(target.address, target.port);
    match (&target.check.probe, prepared) {
        (Probe::Tcp, _) => {
            let stream = connect(address, deadline).await?;
            // The server learns at once that nothing will come, and neither side keeps the connection in memory.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(|error| words(&error))
        }
        (Probe::Http(expected @ HttpProbe { tls: Some(tls), .. }), Prepared::Tls(configuration)) => {
            let stream = connect(address, deadline).await?;
            let stream = tls::connect(stream, target.address, tls, configuration, deadline).await?;
            http::probe(stream, address, expected, deadline).await
        }
        (Probe::Http(expected), _) => http::probe(connect(address, deadline).await?, address, expected, deadline).await,
        (Probe::Udp(expected), _) => udp(address, expected, deadline).await,
        (Probe::Icmp, Prepared::Echo(echo)) => deadline.of("echo reply", echo.of(target.address)).await,
        (Probe::Icmp, _) => Err("no raw socket".to_owned()),
    }
}

/// Sends the datagram and judges the first answer to it. A socket that is connected is told of ICMP errors, and gets answers from that
/// server and port alone.
async fn udp(address: SocketAddr, expected: &UdpProbe, deadline: Deadline) -> Result<(), String> {
    let any = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => "port unreachable".to_owned(),
        _ => words(&error),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    socket.send(&expected.send).await.map_err(failed)?;
    let mut answer = vec![0; ANSWER_BYTES];
    let answered = timeout_at(deadline.at, socket.recv(&mut answer)).await;
    match (answered, &expected.expect) {
        (Ok(Err(error)), _) => Err(failed(error)),
        (Ok(Ok(_)), None) | (Err(_), None) => Ok(()),
        (Err(_), Some(_)) => Err(format!("no UDP answer within {:?}", deadline.timeout)),
        (Ok(Ok(length)), Some(wanted)) => {
            let found =
                answer.get(..length).is_some_and(|answer| answer.windows(wanted.len()).any(|part| part == wanted));
            if found { Ok(()) } else { Err(format!("the UDP answer, {length} bytes, is not the one expected")) }
        }
    }
}

async fn connect(address: SocketAddr, deadline: Deadline) -> Result<TcpStream, String> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| words(&error))?;
    deadline.of("connection", async { socket.connect(address).await.map_err(|error| words(&error)) }).await
}

/// The kernel's words for an error, without its number.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

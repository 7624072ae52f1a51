//! One check of one target: what is sent, and what came back, in words where it is not what was expected.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use model::health::{Probe, Target};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::http;

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

/// Checks a target once.
///
/// # Errors
/// What is wrong, in the words that the operator gets.
pub(super) async fn probe(target: &Target) -> Result<(), String> {
    let timeout = target.check.timeout;
    let deadline = Deadline { at: Instant::now() + timeout, timeout };
    let address = SocketAddr::new(target.address, target.port);
    match &target.check.probe {
        Probe::Tcp => {
            let stream = connect(address, deadline).await?;
            // The server learns at once that nothing will come, and neither side keeps the connection in memory.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(|error| words(&error))
        }
        Probe::Http(expected) => http::probe(connect(address, deadline).await?, address, expected, deadline).await,
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

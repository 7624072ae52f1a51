//! Requests to the agent's Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::control::api::types::ErrorBody;

/// Longest that an answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer, in bytes.
const ANSWER_LIMIT: usize = 1 << 30;

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens on the socket.
    #[error("{path}: no agent is listening ({source}); start one with `margay run`, or name its socket with --socket")]
    Unreachable { path: PathBuf, source: io::Error },
    /// The socket may not be used.
    #[error("{0}: permission denied; be root or a member of the socket's group")]
    Denied(PathBuf),
    /// It took too long.
    #[error("the agent did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The agent refused the request.
    #[error("{0}")]
    Refused(String),
    /// What came back is no answer.
    #[error("the agent's answer cannot be read: {0}; is it of the same version?")]
    Answer(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Denied(_) | Self::Timeout => 4,
            Self::Refused(_) | Self::Answer(_) => 1,
        }
    }
}

/// One agent.
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks for a document.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.exchange(Method::GET, path, Bytes::new())
    }

    /// Sends a document and returns the answer.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Answer(error.into()))?;
        self.exchange(Method::POST, path, body.into())
    }

    fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| self.unreachable(source))?;
        let (status, answer) = runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, self.send(method, path, body)).await.map_err(|_| Error::Timeout)?
        })?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| Error::Answer(error.into()));
        }
        // Errors of axum itself (a body that is no JSON) are plain text.
        let text = || String::from_utf8_lossy(&answer).into_owned();
        Err(Error::Refused(serde_json::from_slice(&answer).map_or_else(|_| text(), |body: ErrorBody| body.error)))
    }

    fn unreachable(&self, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied(self.socket.clone()),
            _ => Error::Unreachable { path: self.socket.clone(), source },
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| self.unreachable(source))?;
        let broken = |error: hyper::Error| Error::Answer(error.into());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "margay")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::Answer(error.into()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(Error::Answer)?;
        driver.abort();
        Ok((status, answer.to_bytes()))
    }
}

//! HTTP/1.1 checks: one request, and the status of its answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use model::health::HttpProbe;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::probe::Deadline;

/// Most of a body that is read, in bytes, and longest that it is read: the status has decided, but a server that is cut off complains.
const BODY: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_millis(100);

/// Sends the request over a connection and judges the answer by its status.
///
/// # Errors
/// What is wrong, in the words that the operator gets.
pub(super) async fn probe(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    expected: &HttpProbe,
    deadline: Deadline,
) -> Result<(), String> {
    let host = expected.host.clone().unwrap_or_else(|| address.to_string());
    let request = Request::builder()
        .method(expected.method)
        .uri(&expected.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("margay/", env!("CARGO_PKG_VERSION"), " health check"))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("the request cannot be made: {error}"))?;
    let broken = |error: hyper::Error| format!("not an HTTP answer: {}", of_hyper(&error));
    deadline
        .of("HTTP answer", async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            // Ends with this check.
            let mut driver = JoinSet::new();
            driver.spawn(connection);
            let answer = sender.send_request(request).await.map_err(broken)?;
            let status = answer.status().as_u16();
            let until = deadline.at().min(tokio::time::Instant::now() + BODY_TIME);
            let _ = tokio::time::timeout_at(until, Limited::new(answer.into_body(), BODY).collect()).await;
            if expected.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
                Ok(())
            } else {
                Err(format!("HTTP status {status}"))
            }
        })
        .await
}

/// The cause where hyper names one behind its own words.
fn of_hyper(error: &hyper::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(
        || error.to_string(),
        |source| source.to_string().split(" (os error").next().unwrap_or_default().to_owned(),
    )
}

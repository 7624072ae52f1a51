//! TLS of checks. Certificates are verified only where that is asked for: a check goes to an address, and asks whether the server serves, not
//! who it is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::health::{Roots, TlsProbe};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::probe::Deadline;

/// How long certificates that were read are taken for what the file holds.
const FRESH: Duration = Duration::from_secs(60);

/// What a connection is made by, or why none is.
pub(super) type Prepared = Result<Arc<ClientConfig>, String>;

/// The ways in which TLS is spoken, each made once and shared.
#[derive(Default)]
pub(super) struct Configurations {
    known: BTreeMap<Option<Roots>, (Instant, Prepared)>,
}

impl Configurations {
    /// The one for a check.
    pub(super) fn of(&mut self, probe: &TlsProbe, now: Instant) -> Prepared {
        if let Some((_, known)) = self.known.get(&probe.verify).filter(|(made, _)| now < *made + FRESH) {
            return known.clone();
        }
        let made = configuration(probe.verify.as_ref());
        self.known.insert(probe.verify.clone(), (now, made.clone()));
        made
    }
}

fn configuration(roots: Option<&Roots>) -> Prepared {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match roots {
        None => Arc::new(Anybody(Arc::clone(&provider))),
        Some(roots) => {
            let store = Arc::new(store(roots)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(store, Arc::clone(&provider)).build();
            verifier.map_err(|error| format!("certificates cannot be verified: {error}"))?
        }
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS cannot be spoken: {error}"))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(Arc::new(builder.with_no_client_auth()))
}

fn store(roots: &Roots) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Roots::File(path) => {
            let unreadable = |error| format!("caFile {path}: {error}");
            let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
            let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
            store.add_parsable_certificates(certificates);
        }
    }
    if store.is_empty() {
        let place = match roots {
            Roots::System => "the system".to_owned(),
            Roots::File(path) => format!("caFile {path}"),
        };
        return Err(format!("{place} has no certificates to verify others by"));
    }
    Ok(store)
}

/// Speaks TLS over a connection.
///
/// # Errors
/// What is wrong, in the words that the operator gets.
pub(super) async fn connect(
    stream: TcpStream,
    address: IpAddr,
    probe: &TlsProbe,
    configuration: Arc<ClientConfig>,
    deadline: Deadline,
) -> Result<TlsStream<TcpStream>, String> {
    let name = match &probe.server_name {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| format!("{name} is not a DNS name"))?,
        None => ServerName::from(address),
    };
    let handshake = TlsConnector::from(configuration).connect(name, stream);
    deadline
        .of("TLS handshake", async { handshake.await.map_err(|error| format!("TLS: {}", super::probe::words(&error))) })
        .await
}

/// Takes any certificate of which the server has the key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! TLS for FTP: whom to trust, and sessions that data connections resume.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, WebPkiServerVerifier,
    verify_server_name,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::wire::{Stream, Wire};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;

/// How many tickets of one login are kept.
const TICKETS: usize = 16;

/// Bytes read from the socket at once: rustls by itself takes one record, 16 KiB, with each system call.
const READ_AHEAD: usize = 64 * 1024;

/// Which versions of TLS to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// 1.3 and 1.2.
    All,
    /// 1.2 only: for servers that refuse resumed data connections under 1.3.
    Tls12,
}

/// Whom to trust, the same for every connection of a transport.
#[derive(Debug)]
pub(super) struct Trust {
    verifier: Arc<Verifier>,
    provider: Arc<CryptoProvider>,
    name: ServerName<'static>,
}

impl Trust {
    /// Reads the authorities to trust: those of the PEM file, else the system's.
    ///
    /// # Errors
    /// `Usage` when the file can't be read or holds no certificate; `Tls` when the system has none or the host name
    /// can't be part of a certificate.
    pub(super) fn new(host: &str, ca: Option<&Path>) -> Result<Self> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| Error::new(ErrorKind::Tls, "the host name can't be verified").with_source(e).at(host))?;
        let given = ca.map(read_pem).transpose()?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(match &given {
            Some(given) => given.clone(),
            None => rustls_native_certs::load_native_certs().certs,
        });
        if roots.is_empty() {
            return Err(Error::new(ErrorKind::Tls, "no certificate authority to trust")
                .with_hint("install the system's ca-certificates, or name a PEM file with --tls-ca"));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|e| Error::new(ErrorKind::Tls, "certificate authorities").with_source(e))?;
        let verifier = Arc::new(Verifier { webpki, given: given.unwrap_or_default() });
        Ok(Self { verifier, provider, name })
    }

    fn config(&self, versions: Versions, resumption: Resumption) -> Result<ClientConfig> {
        let versions: &[&SupportedProtocolVersion] = match versions {
            Versions::All => &[&rustls::version::TLS13, &rustls::version::TLS12],
            Versions::Tls12 => &[&rustls::version::TLS12],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(|e| Error::new(ErrorKind::Tls, "TLS versions").with_source(e))?;
        let mut config =
            builder.dangerous().with_custom_certificate_verifier(Arc::clone(&self.verifier) as _).with_no_client_auth();
        config.resumption = resumption;
        Ok(config)
    }
}

/// TLS of one login: its control connection and the data connections that resume its session.
#[derive(Debug)]
pub(super) struct LoginTls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    sessions: Arc<Sessions>,
    timeout: Duration,
}

impl LoginTls {
    /// Starts with no session: never those of another login, for servers bind data to control connections.
    pub(super) fn new(trust: &Trust, versions: Versions, timeout: Duration) -> Result<Self> {
        let sessions: Arc<Sessions> = Arc::default();
        let config = Arc::new(trust.config(versions, Resumption::store(Arc::clone(&sessions) as _))?);
        Ok(Self { name: trust.name.clone(), config, sessions, timeout })
    }

    /// Returns the sessions, to see how many are left.
    pub(super) fn sessions(&self) -> Arc<Sessions> {
        Arc::clone(&self.sessions)
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// `Tls` with a hint where the certificate is not trusted; `Timeout`; `ConnectionLost`.
    pub(super) async fn connect(&self, tcp: TcpStream) -> Result<Wire> {
        let tcp = BufReader::with_capacity(READ_AHEAD, tcp);
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), tcp);
        match tokio::time::timeout(self.timeout, handshake).await {
            Ok(Ok(tls)) => Ok(Wire::new(Stream::Tls(Box::new(tls)), self.timeout)),
            Ok(Err(e)) => Err(handshake_error(e)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "TLS handshake: no answer")),
        }
    }
}

fn read_pem(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = || escape(file.as_os_str().as_encoded_bytes());
    let usage = |e: rustls::pki_types::pem::Error| {
        Error::new(ErrorKind::Usage, "can't read the certificate authorities").with_source(e).at(shown())
    };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(usage)?.collect::<Result<_, _>>().map_err(usage)?;
    if certificates.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "no certificate in the file").at(shown()));
    }
    Ok(certificates)
}

fn handshake_error(error: std::io::Error) -> Error {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let hint = match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => Some(match problem {
            // The other one is that of a certificate that claims to be an authority, as self-signed ones do.
            CertificateError::UnknownIssuer | CertificateError::Other(_) => {
                "the certificate is self-signed or its authority is unknown; if you know it to be right, save it (or its \
                 authority) as a PEM file and name that with --tls-ca"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another host name; connect by the name that it was made for"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired; the server's operator must renew it"
            }
            _ => "the server's certificate can't be trusted",
        }),
        Some(rustls::Error::InvalidMessage(_)) => {
            Some("the server did not answer in TLS; ftps:// is implicit TLS, ftpes:// and ftp:// upgrade")
        }
        _ => None,
    };
    let failed = match tls {
        Some(_) => Error::new(ErrorKind::Tls, "TLS handshake").with_source(error),
        None => Error::io("TLS handshake", error),
    };
    match hint {
        Some(hint) => failed.with_hint(hint),
        None => failed,
    }
}

/// Verifies by the authorities, or because the user gave this very certificate: many servers' own certificates claim to
/// be authorities (as `openssl req -x509` makes them), which the rules of the web refuse for a server.
#[derive(Debug)]
struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if verdict.is_err() && self.given.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// The sessions of one login.
///
/// That of TLS 1.2 is resumed again and again. Tickets of TLS 1.3 can't be copied in rustls: each is good for one data
/// connection, most of which bring a new one. ProFTPD's uploads bring none, so that its two tickets are spent after two
/// uploads, and it takes no data connection that doesn't resume.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    had_tickets: bool,
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tickets: Vec<Tls13ClientSessionValue>,
}

impl Sessions {
    /// Returns whether there were tickets and none is left: a server that gives them may demand them.
    pub(super) fn are_spent(&self) -> bool {
        let kept = self.lock();
        kept.had_tickets && kept.tickets.is_empty()
    }

    /// Returns whether there were tickets and at most one is left.
    pub(super) fn are_few(&self) -> bool {
        let kept = self.lock();
        kept.had_tickets && kept.tickets.len() < 2
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.lock().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.lock().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        // The control connection's own session: servers look for that one on data connections.
        self.lock().tls12.get_or_insert(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.lock().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.lock().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.lock();
        kept.had_tickets = true;
        if kept.tickets.len() == TICKETS {
            kept.tickets.remove(0);
        }
        kept.tickets.push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().tickets.pop()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.lock();
        write!(f, "Sessions({} tickets, TLS 1.2: {})", kept.tickets.len(), kept.tls12.is_some())
    }
}

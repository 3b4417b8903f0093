//! Whom to trust in TLS, and who we are: authorities, pins, our own certificate, versions.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible,
    RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use sha2::{Digest, Sha256};

use super::certificate;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, TlsPin, TlsVersion, escape};

/// What a server means that ends the handshake without a certificate of ours.
const WANTS_CERTIFICATE: &str =
    "the server may want a certificate of yours; name its PEM file with --tls-cert, and its key's with --tls-key";

/// Which versions of TLS to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// 1.3, and 1.2 unless the user forbids that.
    All,
    /// 1.2 only: for servers that refuse resumed data connections under 1.3.
    Tls12,
}

/// Whom to trust and who we are, the same for every connection of a transport.
#[derive(Debug)]
pub(super) struct Trust {
    verifier: Arc<Verifier>,
    provider: Arc<CryptoProvider>,
    name: ServerName<'static>,
    oldest: TlsVersion,
    ours: Option<Arc<CertifiedKey>>,
}

impl Trust {
    /// Reads the authorities to trust, those of the PEM file, else the system's, and our own certificate. Blocks, and
    /// may ask for the passphrase of its key.
    ///
    /// # Errors
    /// `Usage` when a file can't be read or holds no certificate or key; `Tls` when the system has no authorities or the
    /// host name can't be part of a certificate.
    pub(super) fn new(host: &str, options: &ConnectOptions) -> Result<Self> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| Error::new(ErrorKind::Tls, "the host name can't be verified").with_source(e).at(host))?;
        let given = options.tls_ca.as_deref().map(read_authorities).transpose()?;
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
        let pins = options.ftp.tls_pins.clone();
        let verifier = Arc::new(Verifier { webpki, given: given.unwrap_or_default(), pins });
        let ours = certificate::read(&options.ftp, &provider, &*options.prompt)?.map(Arc::new);
        Ok(Self { verifier, provider, name, oldest: options.ftp.tls_min, ours })
    }

    /// Returns the name that the server's certificate must be for.
    pub(super) fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// Makes the settings of one login.
    pub(super) fn config(&self, versions: Versions, resumption: Resumption) -> Result<ClientConfig> {
        let versions: &[&SupportedProtocolVersion] = match (versions, self.oldest) {
            (Versions::All, TlsVersion::Tls12) => &[&rustls::version::TLS13, &rustls::version::TLS12],
            (Versions::All, TlsVersion::Tls13) => &[&rustls::version::TLS13],
            (Versions::Tls12, _) => &[&rustls::version::TLS12],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(|e| Error::new(ErrorKind::Tls, "TLS versions").with_source(e))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&self.verifier) as _);
        let mut config = match &self.ours {
            Some(ours) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(ours)))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = resumption;
        Ok(config)
    }

    /// Makes the error of a handshake that failed.
    pub(super) fn explain(&self, error: std::io::Error) -> Error {
        let Some(tls) = inner(&error) else { return Error::io("TLS handshake", error) };
        let hint = self.hint(tls);
        let failed = Error::new(ErrorKind::Tls, "TLS handshake").with_source(error);
        match hint {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        }
    }

    fn hint(&self, error: &rustls::Error) -> Option<&'static str> {
        use rustls::Error as Tls;
        Some(match error {
            Tls::InvalidCertificate(problem) => certificate_hint(problem),
            Tls::InvalidMessage(_) => {
                "the server did not answer in TLS; ftps:// is implicit TLS, ftpes:// and ftp:// upgrade"
            }
            Tls::AlertReceived(AlertDescription::ProtocolVersion)
            | Tls::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => match self.oldest {
                TlsVersion::Tls13 => "the server doesn't speak TLS 1.3; --tls-min 1.2 takes the version before it",
                TlsVersion::Tls12 => "the server speaks only versions of TLS that are not safe any more",
            },
            Tls::AlertReceived(_) => alert_hint(error, self.ours.is_some())?,
            _ => return None,
        })
    }
}

/// Makes an error of what the server says in TLS instead of a reply; `None` for what isn't that. Under TLS 1.3 a server
/// that wants another certificate of ours says so only after the handshake.
pub(super) fn alert(error: &std::io::Error) -> Option<Error> {
    let tls = inner(error)?;
    let hint = alert_hint(tls, false)?;
    Some(Error::new(ErrorKind::Tls, format!("the server ended TLS: {tls}")).with_hint(hint))
}

fn alert_hint(error: &rustls::Error, has_certificate: bool) -> Option<&'static str> {
    use AlertDescription as Alert;
    let rustls::Error::AlertReceived(alert) = error else { return None };
    Some(match alert {
        Alert::CertificateRequired | Alert::HandshakeFailure if !has_certificate => WANTS_CERTIFICATE,
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::DecryptError
        | Alert::AccessDenied => "the server doesn't accept the certificate of --tls-cert",
        _ => return None,
    })
}

fn certificate_hint(problem: &CertificateError) -> &'static str {
    match problem {
        CertificateError::Other(other) if other.0.is::<WrongKey>() => {
            "either somebody else answers in the server's place, or its key was changed; ask its operator before you \
             change --tls-pin"
        }
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
    }
}

fn inner(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|e| e.downcast_ref())
}

fn read_authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
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

/// Verifies by the authorities, or because the user gave this very certificate: many servers' own certificates claim to
/// be authorities (as `openssl req -x509` makes them), which the rules of the web refuse for a server. Where there are
/// pins, the key must be one of them as well.
///
/// A connection that resumes a session isn't verified again: whoever can resume it has what the verified server has.
#[derive(Debug)]
struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
    pins: Vec<TlsPin>,
}

impl Verifier {
    fn verify_pin(&self, certificate: &ParsedCertificate<'_>) -> Result<(), rustls::Error> {
        let found = TlsPin::new(Sha256::digest(certificate.subject_public_key_info()).into());
        if self.pins.is_empty() || self.pins.contains(&found) {
            return Ok(());
        }
        Err(CertificateError::Other(OtherError(Arc::new(WrongKey(found)))).into())
    }
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
        if verdict.is_err() && !self.given.contains(end_entity) {
            return verdict;
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_name(&certificate, server_name)?;
        self.verify_pin(&certificate)?;
        Ok(ServerCertVerified::assertion())
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

/// The server has another key than those that the user knows.
#[derive(Debug)]
struct WrongKey(TlsPin);

impl fmt::Display for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's key is {}, which is none of --tls-pin", self.0)
    }
}

impl std::error::Error for WrongKey {}

//! A question to a control host, in plain text or over TLS.
//!
//! Enters: its address, the authority that it is to be certified by, this side's certificate and key, a bearer token from `PHOENIX_TOKEN`. Leaves: the body of a good
//! answer, or an error that says what is wrong on which side: TLS fails in a handful of ways, and a person at a terminal should not need to know their names.
//! Refuses a token over plain text to anywhere but loopback. The system's authorities are not asked: a control host has one of its own, and whoever
//! has another names its file.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use phoenix_serve::tls;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError};
use serde_json::Value;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// Longest answer that is shown, bytes.
const ANSWER_MAX: u64 = 64 << 20;
/// Longest refusal that is shown, bytes.
const REFUSAL_MAX: u64 = 1 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the control host is, and who asks.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// The control host: https:// with --ca, or http:// on loopback.
    #[arg(
        long = "server",
        alias = "control",
        value_name = "URL",
        env = "PHOENIX_SERVER",
        default_value = "http://127.0.0.1:18443"
    )]
    url: String,
    /// Authorities that certify the control host, PEM.
    #[arg(long, value_name = "FILE", env = "PHOENIX_CA")]
    ca: Option<PathBuf>,
    /// Certificate chain of whoever asks, PEM. Without it PHOENIX_TOKEN is asked with.
    #[arg(long, value_name = "FILE", env = "PHOENIX_CERTIFICATE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", env = "PHOENIX_KEY", requires = "certificate")]
    key: Option<PathBuf>,
}

impl Server {
    /// The body of an answer, which is good.
    ///
    /// # Errors
    /// Files that cannot be used, a connection that does not come about, a refusal; each in words.
    pub fn body(&self, method: &str, path: &str, body: Option<&Value>) -> Result<ureq::Body> {
        let uri: http::Uri = self
            .url
            .parse()
            .map_err(|why| anyhow!("--server: {:?}: {why}; allowed: https://HOST:PORT", self.url))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            other => bail!("--server: {:?}: scheme {other:?}; allowed: https, http", self.url),
        };
        let is_near =
            matches!(uri.host().unwrap_or(""), "localhost" | "127.0.0.1" | "[::1]") && uri.host().is_some();
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE));
        if is_near {
            // Nobody is asked about this machine on the way.
            config = config.proxy(None);
        }
        if is_tls {
            config = config.tls_config(self.tls()?);
        } else {
            ensure!(
                self.ca.is_none() && self.certificate.is_none(),
                "--server: {url}: --ca and --certificate are given for plain text; allowed: https:// with them"
            );
        }
        let agent: ureq::Agent = config.build().into();
        let mut request = http::Request::builder().method(method).uri(&url);
        if let Some(token) = std::env::var("PHOENIX_TOKEN").ok().filter(|token| !token.is_empty()) {
            ensure!(
                is_tls || is_near,
                "--server: {url}: PHOENIX_TOKEN goes over plain text to loopback only; allowed: https://"
            );
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let outcome = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                agent.run(request.body(serde_json::to_vec(body)?)?)
            }
            None => agent.run(request.body(())?),
        };
        let mut answer = outcome.map_err(|error| self.in_words(&url, is_tls, error))?;
        let status = answer.status();
        if !status.is_success() {
            let mut bytes = Vec::new();
            let reader = answer.body_mut().as_reader();
            reader.take(REFUSAL_MAX).read_to_end(&mut bytes).with_context(|| url.clone())?;
            let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let plain = String::from_utf8_lossy(&bytes);
            bail!("{url}: {status}: {}", said["error"].as_str().unwrap_or(plain.trim()));
        }
        Ok(answer.into_body())
    }

    /// An answer in JSON.
    ///
    /// # Errors
    /// As [`Server::body`]; an answer that is too long, or none in JSON.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut bytes = Vec::new();
        self.body(method, path, body)?.into_reader().take(ANSWER_MAX + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= ANSWER_MAX, "{path}: an answer of more than {ANSWER_MAX} bytes");
        serde_json::from_slice(&bytes).with_context(|| format!("{path}: no JSON"))
    }

    fn tls(&self) -> Result<TlsConfig> {
        let ca = self.ca.as_ref().with_context(|| {
            format!(
                "--ca: missing for {}; allowed: a PEM file with the authority of its certificate",
                self.url
            )
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authorities = tls::certificates(ca).context("--ca")?;
        let mut config = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(authorities.iter().map(owned).collect())))
            .unversioned_rustls_crypto_provider(provider.clone());
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            let chain = tls::certificates(certificate).context("--certificate")?;
            // Over TLS 1.3 the other side would only break off, after the handshake.
            if let Some(own) = chain.first() {
                tls::is_of_now(own).with_context(|| format!("--certificate: {}", certificate.display()))?;
            }
            let der = PrivateKeyDer::from_pem_file(key)
                .map_err(|_| anyhow!("--key: {}: no private key in PEM", key.display()))?;
            rustls::sign::CertifiedKey::from_der(chain.clone(), der, &provider).map_err(|_| {
                anyhow!("--key: {} is not the key of {}", key.display(), certificate.display())
            })?;
            let chain: Vec<_> = chain.iter().map(owned).collect();
            let key = PrivateKey::from_pem(&std::fs::read(key).context("--key")?)?;
            config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        Ok(config.build())
    }

    /// What a person can do about it.
    fn in_words(&self, url: &str, is_tls: bool, error: ureq::Error) -> anyhow::Error {
        let hint = match &error {
            ureq::Error::Rustls(why) => self.of_tls(why),
            ureq::Error::Io(why) => {
                let inner = why.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
                match inner {
                    Some(inner) => self.of_tls(inner),
                    None => self.of_io(why.kind(), is_tls),
                }
            }
            ureq::Error::Protocol(_) if !is_tls => {
                Some("no HTTP is spoken there in plain text; ask https:// with --ca if it is TLS".to_owned())
            }
            _ => None,
        };
        match hint {
            Some(hint) => anyhow!("{url}: {hint} ({error})"),
            None => anyhow!("{url}: {error}"),
        }
    }

    fn of_io(&self, kind: ErrorKind, is_tls: bool) -> Option<String> {
        match kind {
            ErrorKind::ConnectionRefused => Some("nobody listens there".to_owned()),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof if is_tls => {
                Some(match &self.certificate {
                    Some(path) => {
                        format!("it broke off: it may not take the certificate in {}", path.display())
                    }
                    None => "it broke off in the middle of TLS".to_owned(),
                })
            }
            _ => None,
        }
    }

    fn of_tls(&self, why: &rustls::Error) -> Option<String> {
        use AlertDescription as Alert;
        let shown = |path: &Option<PathBuf>| path.as_deref().unwrap_or(Path::new("-")).display().to_string();
        Some(match why {
            rustls::Error::InvalidCertificate(why) => match why {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    format!("the control host's certificate is of no authority in --ca {}", shown(&self.ca))
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "the control host's certificate has expired: it needs a new one".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "the control host's certificate is not good yet: is the clock of this machine right?"
                        .to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "the control host's certificate is for other names than the one in --server".to_owned()
                }
                _ => "the control host's certificate is refused".to_owned(),
            },
            rustls::Error::AlertReceived(alert) => match alert {
                Alert::CertificateRequired => {
                    "it wants a client's certificate: --certificate, --key".to_owned()
                }
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::DecryptError
                | Alert::CertificateUnknown => {
                    format!(
                        "it does not know the authority of the certificate in {}",
                        shown(&self.certificate)
                    )
                }
                Alert::CertificateExpired => {
                    format!("to it the certificate in {} has expired", shown(&self.certificate))
                }
                _ => "it refuses the TLS of this side".to_owned(),
            },
            rustls::Error::InvalidMessage(_) => {
                "no TLS is spoken there; ask http:// if it is plain text".to_owned()
            }
            _ => return None,
        })
    }
}

fn owned(der: &CertificateDer<'static>) -> Certificate<'static> {
    Certificate::from_der(der).to_owned()
}

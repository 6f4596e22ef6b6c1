//! Certificates from files, read again when they change.
//!
//! In: PEM files of a certificate chain, its key, and of the authorities whose clients are let in. Out: a rustls configuration, the newest that could be read. Files are
//! looked at no more than once a second, when somebody connects. Files that are no pair, or half written, leave the ones before in force, and
//! [`Tls::trouble`] says why. Connections that stand keep what they began with.

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use x509_parser::prelude::{ASN1Time, FromDer as _, GeneralName, X509Certificate};

/// How often files are looked at, at most.
const EVERY: Duration = Duration::from_secs(1);

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// This server's chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Authorities of clients, PEM. Left out: clients show no certificate, and need a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// What is in force.
pub struct Tls {
    files: Files,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    read_of: Vec<Option<SystemTime>>,
    looked: Instant,
    trouble: Option<String>,
}

impl Tls {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// A file that cannot be read, a key that does not fit.
    pub fn load(files: Files) -> Result<Tls> {
        let read_of = files.stamps();
        let config = files.read()?;
        let state = State { config, read_of, looked: Instant::now(), trouble: None };
        Ok(Tls { files, state: Mutex::new(state) })
    }

    /// The newest that could be read.
    pub fn current(&self) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= EVERY {
            state.looked = Instant::now();
            let stamps = self.files.stamps();
            if stamps != state.read_of {
                match self.files.read() {
                    Ok(config) => (state.config, state.read_of, state.trouble) = (config, stamps, None),
                    // Asked again at the next look: the second file of a pair may be on its way.
                    Err(error) => state.trouble = Some(format!("{error:#}")),
                }
            }
        }
        state.config.clone()
    }

    /// Why the files that are there are not in force.
    pub fn trouble(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    fn stamps(&self) -> Vec<Option<SystemTime>> {
        self.all().map(|path| path.metadata().and_then(|it| it.modified()).ok()).collect()
    }

    fn read(&self) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(&self.certificate).context("tls.certificate")?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("tls.key: {}: no private key in PEM", self.key.display()))?;
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path).context("tls.client_ca")? {
                    roots.add(authority).with_context(|| format!("tls.client_ca: {}", path.display()))?;
                }
                // Who shows none may still have a token; who shows one must show a good one.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).with_context(|| {
            format!("tls.key: {} is not the key of {}", self.key.display(), self.certificate.display())
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Certificates in a PEM file.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).with_context(|| path.display().to_string())?.collect();
    let all = all.with_context(|| path.display().to_string())?;
    anyhow::ensure!(!all.is_empty(), "{}: no certificate in PEM", path.display());
    Ok(all)
}

/// Is a certificate good now?
///
/// # Errors
/// It is over, or not begun, with when.
pub fn is_of_now(certificate: &CertificateDer<'_>) -> Result<()> {
    let (_, parsed) = X509Certificate::from_der(certificate).context("no certificate")?;
    let (validity, now) = (parsed.validity(), ASN1Time::now());
    anyhow::ensure!(
        now <= validity.not_after,
        "it expired on {}; allowed: one that is good now",
        validity.not_after
    );
    anyhow::ensure!(
        now >= validity.not_before,
        "it is good from {} on; allowed: one that is good now",
        validity.not_before
    );
    Ok(())
}

/// Names in a certificate: its subject alternative names; where it has none, the common name (RFC 6125, 6.4.4).
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let mut names = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(name) | GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => {
                Some((*name).to_owned())
            }
            _ => None,
        }));
    }
    if names.is_empty() {
        names
            .extend(parsed.subject().iter_common_name().filter_map(|it| it.as_str().ok()).map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs;
    use std::fs;

    fn files(folder: &Path) -> Files {
        Files {
            certificate: folder.join("control.pem"),
            key: folder.join("control.key"),
            client_ca: Some(folder.join("ca.pem")),
        }
    }

    #[test]
    fn names_are_those_that_a_certificate_was_made_for() {
        let folder = tempfile::tempdir().unwrap();
        certs::make(
            folder.path(),
            &certs::Wish { embedders: vec!["gateway-a".to_owned()], ..certs::Wish::default() },
        )
        .unwrap();
        let chain = certificates(&folder.path().join("gateway-a.pem")).unwrap();
        assert_eq!(names(&chain[0]), ["gateway-a"]);
    }

    #[test]
    fn files_that_are_no_pair_leave_the_ones_before_in_force() {
        let folder = tempfile::tempdir().unwrap();
        certs::make(folder.path(), &certs::Wish::default()).unwrap();
        let tls = Tls::load(files(folder.path())).unwrap();
        let first = tls.current();
        let other = tempfile::tempdir().unwrap();
        certs::make(other.path(), &certs::Wish::default()).unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        let take = |name: &str| {
            fs::copy(other.path().join(name), folder.path().join(name)).unwrap();
            fs::File::options()
                .write(true)
                .open(folder.path().join(name))
                .unwrap()
                .set_modified(later)
                .unwrap();
        };
        let age = |tls: &Tls| tls.state.lock().unwrap().looked -= EVERY;
        take("control.pem");
        age(&tls);
        assert!(Arc::ptr_eq(&tls.current(), &first));
        assert!(tls.trouble().unwrap().contains("is not the key of"), "{:?}", tls.trouble());
        take("control.key");
        age(&tls);
        assert!(!Arc::ptr_eq(&tls.current(), &first));
        assert_eq!(tls.trouble(), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        certs::make(folder.path(), &certs::Wish::default()).unwrap();
        let said = |files: Files| Tls::load(files).err().map(|error| format!("{error:#}")).unwrap();
        let nowhere = folder.path().join("nowhere");
        assert!(
            said(Files { certificate: nowhere.clone(), ..files(folder.path()) })
                .starts_with("tls.certificate: ")
        );
        assert!(said(Files { key: nowhere, ..files(folder.path()) }).starts_with("tls.key: "));
        let empty = folder.path().join("empty");
        fs::write(&empty, "").unwrap();
        assert!(
            said(Files { client_ca: Some(empty), ..files(folder.path()) }).contains("no certificate in PEM")
        );
    }
}

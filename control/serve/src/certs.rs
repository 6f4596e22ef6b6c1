//! A set of certificates for development: an authority, this server, embedders and people.
//!
//! In: a folder and names. Out: PEM files in it, keys readable by their owner alone. The authority's key is used once and not written: a set is made anew as a whole. Refuses
//! to write over files that are there.

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Days that a set is good for, when nothing else is said.
pub const DAYS: u32 = 30;
/// At most.
pub const DAYS_MAX: u32 = 825;

/// What to make.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Names and addresses under which the server is reached.
    pub hosts: Vec<String>,
    /// A certificate for each.
    pub embedders: Vec<String>,
    /// A certificate for each.
    pub people: Vec<String>,
    /// Days that they are good for; 0: they are over.
    pub days: u32,
}

impl Default for Wish {
    fn default() -> Wish {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Wish {
            hosts: own(&["localhost", "127.0.0.1"]),
            embedders: Vec::new(),
            people: Vec::new(),
            days: DAYS,
        }
    }
}

/// Makes a set. Leaves the files, keys beside certificates.
///
/// # Errors
/// A name that is no file name, days beyond the range, a file that is there already.
pub fn make(folder: &Path, wish: &Wish) -> Result<Vec<PathBuf>> {
    if wish.days > DAYS_MAX {
        bail!("--days: {}; allowed: 0 to {DAYS_MAX}", wish.days);
    }
    for name in wish.embedders.iter().chain(&wish.people) {
        let is_plain = !name.is_empty()
            && !name.starts_with('.')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@'));
        ensure!(is_plain, "name: {name:?}; allowed: letters, digits, - _ . @, no dot in front");
        ensure!(!matches!(name.as_str(), "ca" | "control"), "name: {name:?} is taken; allowed: any other");
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let key = KeyPair::generate()?;
    let mut authority = params(&[], wish.days)?;
    authority.distinguished_name.push(DnType::CommonName, "Phoenix development");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = authority.self_signed(&key)?;
    let issuer = Issuer::new(authority, key);
    let mut made = Vec::new();
    write(folder, "ca.pem", &certificate.pem(), 0o644, &mut made)?;
    let mut leaf = |name: &str, hosts: &[String], usage: ExtendedKeyUsagePurpose| -> Result<()> {
        let key = KeyPair::generate()?;
        let mut it = params(hosts, wish.days)?;
        it.distinguished_name.push(DnType::CommonName, name);
        it.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        it.extended_key_usages = vec![usage];
        let certificate = it.signed_by(&key, &issuer)?;
        write(folder, &format!("{name}.pem"), &certificate.pem(), 0o644, &mut made)?;
        write(folder, &format!("{name}.key"), &key.serialize_pem(), 0o600, &mut made)
    };
    leaf("control", &wish.hosts, ExtendedKeyUsagePurpose::ServerAuth)?;
    for name in wish.embedders.iter().chain(&wish.people) {
        leaf(name, std::slice::from_ref(name), ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    Ok(made)
}

fn params(hosts: &[String], days: u32) -> Result<CertificateParams> {
    let mut it = CertificateParams::new(hosts.to_vec())?;
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    // Clocks differ.
    it.not_before = (now - 2 * day).into();
    it.not_after = if days == 0 { (now - day).into() } else { (now + day * days).into() };
    Ok(it)
}

fn write(folder: &Path, name: &str, text: &str, mode: u32, made: &mut Vec<PathBuf>) -> Result<()> {
    let path = folder.join(name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(&path).with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes()).with_context(|| path.display().to_string())?;
    made.push(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let made = make(folder.path(), &Wish::default()).unwrap();
        assert_eq!(made.len(), 3);
        let said = format!("{:#}", make(folder.path(), &Wish::default()).unwrap_err());
        assert!(said.contains("ca.pem"), "{said}");
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        for path in make(folder.path(), &Wish::default()).unwrap() {
            let mode = path.metadata().unwrap().permissions().mode() & 0o077;
            let is_key = path.extension().is_some_and(|it| it == "key");
            assert_eq!(mode == 0, is_key, "{}", path.display());
        }
    }

    #[test]
    fn a_name_stays_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../x", "", "a/b", "ca", ".x"] {
            let wish = Wish { embedders: vec![name.to_owned()], ..Wish::default() };
            let said = make(&folder.path().join("set"), &wish).unwrap_err().to_string();
            assert!(said.starts_with(&format!("name: {name:?}")), "{said}");
        }
        let said = make(folder.path(), &Wish { days: 9_999, ..Wish::default() }).unwrap_err().to_string();
        assert_eq!(said, "--days: 9999; allowed: 0 to 825");
    }
}

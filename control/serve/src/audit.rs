//! The audit log: one JSON object a line, each with the hash of the one before.
//!
//! In: what was decided, approved and refused, by whom. Out: a file that only grows, and whether it is whole ([`verify`]). A line that was changed, taken out or
//! put in breaks the chain from there on. Lines cut off at the end break nothing: compare the last hash with one that was noted elsewhere
//! (`phoenix status --json` shows it). Refuses to go on behind a line that it cannot read.
//!
//! `hash` is the SHA-256 of the line as it stands without its last field: `{…,"prev":"…"}`.

use crate::role::hex;
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// Longest text in a field, bytes: whoever is refused chooses what the line says.
const TEXT_MAX: usize = 2_048;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, RFC 3339.
    pub at: String,
    /// Who did it: a name that access knows, an address, or `control`.
    pub actor: String,
    /// What: `decided`, `approved`, `refused`, `published`, …
    pub action: String,
    /// To what: a metric, a node, a path.
    pub subject: String,
    /// In words.
    pub detail: String,
}

/// A line.
#[derive(Serialize, Deserialize)]
struct Line {
    seq: u64,
    #[serde(flatten)]
    entry: Entry,
    prev: String,
    hash: String,
}

/// What the hash is of.
#[derive(Serialize)]
struct Body<'a> {
    seq: u64,
    #[serde(flatten)]
    entry: &'a Entry,
    prev: &'a str,
}

impl Body<'_> {
    fn text(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

/// An open log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    head: Head,
}

/// Where a log ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Lines.
    pub lines: u64,
    /// Hash of the last one; empty without any.
    pub hash: String,
}

impl Audit {
    /// Opens a log, or begins one. What a crash left of a line that was never acknowledged is cut off.
    ///
    /// # Errors
    /// It cannot be opened, or is not whole.
    pub fn open(path: &Path) -> Result<Audit> {
        let context = || format!("audit log {}", path.display());
        let mut file = private(OpenOptions::new().read(true).append(true).create(true))
            .open(path)
            .with_context(context)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(context)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let head = check(&text[..whole]).with_context(context)?;
        if whole < text.len() {
            file.set_len(whole as u64).with_context(context)?;
            file.seek(SeekFrom::End(0))?;
        }
        Ok(Audit { path: path.to_owned(), file, head })
    }

    /// Adds a line. It is on disk when this returns.
    ///
    /// # Errors
    /// It could not be written; then nothing of it is in the log.
    pub fn append(&mut self, entry: &Entry) -> Result<Head> {
        let entry = Entry {
            at: entry.at.clone(),
            actor: cut(&entry.actor),
            action: cut(&entry.action),
            subject: cut(&entry.subject),
            detail: cut(&entry.detail),
        };
        let seq = self.head.lines + 1;
        let body = Body { seq, entry: &entry, prev: &self.head.hash }.text()?;
        let hash = hex(&Sha256::digest(body.as_bytes()));
        let line = format!("{},\"hash\":\"{hash}\"}}\n", body.strip_suffix('}').unwrap_or(&body));
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line would break the chain for good.
            let _ = self.file.set_len(before);
            return Err(error).with_context(|| format!("audit log {}", self.path.display()));
        }
        self.head = Head { lines: seq, hash };
        Ok(self.head.clone())
    }

    /// Where it ends.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

/// Its owner's alone.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// The most that fits a field.
fn cut(text: &str) -> String {
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > TEXT_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Checks a log from its first line to its last. `expected`: the hash that it must end with, or have had.
///
/// # Errors
/// The first line that does not fit, and why; or that the expected hash is nowhere.
pub fn verify(path: &Path, expected: Option<&str>) -> Result<Head> {
    let file = File::open(path).with_context(|| format!("audit log {}", path.display()))?;
    let mut chain = Chain::default();
    let mut found = expected.is_none();
    for line in BufReader::new(file).lines() {
        chain.take(&line?)?;
        found |= expected == Some(chain.head.hash.as_str());
    }
    ensure!(found, "no line has the hash {:?}: lines are missing at the end", expected.unwrap_or_default());
    Ok(chain.head)
}

fn check(text: &[u8]) -> Result<Head> {
    let mut chain = Chain::default();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        chain.take(std::str::from_utf8(line).with_context(|| format!("line {}", chain.head.lines + 1))?)?;
    }
    Ok(chain.head)
}

#[derive(Default)]
struct Chain {
    head: Head,
}

impl Chain {
    fn take(&mut self, text: &str) -> Result<()> {
        let number = self.head.lines + 1;
        let line: Line = serde_json::from_str(text).with_context(|| format!("line {number}"))?;
        if line.seq != number {
            bail!("line {number}: seq: {}; allowed: {number}", line.seq);
        }
        if line.prev != self.head.hash {
            bail!("line {number}: prev is not the hash of the line before it");
        }
        let body = text.rsplit_once(",\"hash\":").map(|(body, _)| format!("{body}}}")).unwrap_or_default();
        if hex(&Sha256::digest(body.as_bytes())) != line.hash {
            bail!("line {number}: it is not what its hash is of");
        }
        self.head = Head { lines: number, hash: line.hash };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn entry(n: u64) -> Entry {
        Entry {
            at: format!("2026-01-01T00:00:{n:02}Z"),
            actor: "control".to_owned(),
            action: "decided".to_owned(),
            subject: format!("metric_{n}"),
            detail: "because \"hash\":\"x\" }\n it was so".to_owned(),
        }
    }

    fn written(folder: &Path) -> PathBuf {
        let path = folder.join("audit.jsonl");
        let mut audit = Audit::open(&path).unwrap();
        for n in 0..5 {
            audit.append(&entry(n)).unwrap();
        }
        path
    }

    #[test]
    fn a_log_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let head = verify(&path, None).unwrap();
        assert_eq!(head.lines, 5);
        let mut audit = Audit::open(&path).unwrap();
        assert_eq!(audit.head(), &head);
        audit.append(&entry(5)).unwrap();
        assert_eq!(verify(&path, Some(&head.hash)).unwrap().lines, 6);
    }

    #[test]
    fn every_change_is_found_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let broken = |lines: &[String]| {
            fs::write(&path, lines.join("\n") + "\n").unwrap();
            let said = verify(&path, None).unwrap_err().to_string();
            assert_eq!(
                Audit::open(&path).unwrap_err().root_cause().to_string(),
                said,
                "nobody writes behind it"
            );
            said
        };
        let owned = || lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let mut changed = owned();
        changed[2] = changed[2].replace("metric_2", "metric_9");
        assert_eq!(broken(&changed), "line 3: it is not what its hash is of");
        let mut missing = owned();
        missing.remove(1);
        assert_eq!(broken(&missing), "line 2: seq: 3; allowed: 2");
        let mut swapped = owned();
        swapped.swap(3, 4);
        assert_eq!(broken(&swapped), "line 4: seq: 5; allowed: 4");
        let mut first = owned();
        first.remove(0);
        assert!(broken(&first).starts_with("line 1"));
    }

    #[test]
    fn lines_missing_at_the_end_are_found_by_a_hash_from_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let head = verify(&path, None).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let short: String = text.lines().take(4).map(|line| format!("{line}\n")).collect();
        fs::write(&path, short).unwrap();
        assert!(verify(&path, None).is_ok());
        assert!(verify(&path, Some(&head.hash)).unwrap_err().to_string().contains("missing at the end"));
    }

    #[test]
    fn half_a_line_was_never_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let mut text = fs::read(&path).unwrap();
        for cut in [1, 10, 60] {
            let half = &text[..text.len() - cut];
            fs::write(&path, half).unwrap();
            let mut audit = Audit::open(&path).unwrap();
            assert_eq!(audit.head().lines, 4);
            audit.append(&entry(4)).unwrap();
            assert_eq!(verify(&path, None).unwrap().lines, 5);
            text = fs::read(&path).unwrap();
        }
    }

    #[test]
    fn a_field_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut audit = Audit::open(&path).unwrap();
        audit.append(&Entry { subject: "é".repeat(1 << 20), ..entry(0) }).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 4_096);
        verify(&path, None).unwrap();
    }
}

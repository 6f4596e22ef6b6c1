//! What survives: one file, a database with transactions.
//!
//! Enters: after each decision, what it remembers, what it decided and what is published, as one transaction. Leaves: the same after a crash at any moment: the
//! last transaction that was acknowledged, whole. `redb` keeps it: copy on write, checksums, a sync before it says that something is done. Values are JSON, so
//! that a later version can read them.

use crate::decide::{Change, Decision, Past, Previous};
use anyhow::{Context as _, Result};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of what is in it.
const SCHEMA: u64 = 1;
/// Longest list that one answer has.
const UNAUDITED_MAX: usize = 10_000;
/// Decisions that are kept.
const DECISIONS_MAX: u64 = 100_000;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const LAST: TableDefinition<&str, &[u8]> = TableDefinition::new("last");
const DECISIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("decisions");

/// What is in force where, by node; an empty name: those who are not known.
pub type Published = BTreeMap<String, String>;

/// What a decision leaves for the next.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// What it remembers.
    pub previous: Option<Previous>,
    /// What is published.
    pub published: Published,
}

/// The open file.
pub struct State {
    database: Database,
}

impl State {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// It cannot be opened, another process has it, or it is of a version that this one does not know.
    pub fn open(path: &Path) -> Result<State> {
        let name = || format!("state {}", path.display());
        // It has the key of all streams: its owner's alone.
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).with_context(name)?;
        let database = Database::create(path).with_context(name)?;
        let write = database.begin_write().with_context(name)?;
        {
            let mut meta = write.open_table(META)?;
            let found = meta.get("schema")?.map(|it| it.value());
            match found {
                None => drop(meta.insert("schema", SCHEMA)?),
                Some(SCHEMA) => {}
                Some(other) => anyhow::bail!("{}: schema: {other}; allowed: {SCHEMA}", name()),
            }
            write.open_table(LAST)?;
            write.open_table(DECISIONS)?;
        }
        write.commit().with_context(name)?;
        Ok(State { database })
    }

    /// What the last decision left.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(&self) -> Result<Kept> {
        let read = self.database.begin_read()?;
        let last = read.open_table(LAST)?;
        match last.get("kept")? {
            Some(bytes) => serde_json::from_slice(bytes.value()).context("state: kept"),
            None => Ok(Kept::default()),
        }
    }

    /// What was published before the newest change, by node.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn before(&self) -> Result<Published> {
        let read = self.database.begin_read()?;
        let last = read.open_table(LAST)?;
        match last.get("before")? {
            Some(bytes) => serde_json::from_slice(bytes.value()).context("state: before"),
            None => Ok(Published::new()),
        }
    }

    /// Keeps what a decision leaves, and its records: all of it or nothing. `before`: what was published before, where that has changed.
    ///
    /// # Errors
    /// It could not be written; what was there before still is.
    pub fn keep(&self, kept: &Kept, before: Option<&Published>, decisions: &[Decision]) -> Result<()> {
        let write = self.database.begin_write()?;
        {
            let mut last = write.open_table(LAST)?;
            last.insert("kept", serde_json::to_vec(kept)?.as_slice())?;
            if let Some(before) = before {
                last.insert("before", serde_json::to_vec(before)?.as_slice())?;
            }
            let mut all = write.open_table(DECISIONS)?;
            let mut next = all.last()?.map_or(1, |(number, _)| number.value() + 1);
            for decision in decisions {
                all.insert(next, serde_json::to_vec(decision)?.as_slice())?;
                next += 1;
            }
            while all.first()?.is_some_and(|(number, _)| number.value() + DECISIONS_MAX < next) {
                all.pop_first()?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// The newest decisions, newest first, with their numbers.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn decisions(&self, limit: usize) -> Result<Vec<(u64, Decision)>> {
        let read = self.database.begin_read()?;
        let all = read.open_table(DECISIONS)?;
        let mut out = Vec::new();
        for entry in all.iter()?.rev().take(limit) {
            let (number, bytes) = entry?;
            out.push((number.value(), serde_json::from_slice(bytes.value()).context("state: decisions")?));
        }
        Ok(out)
    }

    /// What a rollback needs of history, read newest first until it is enough. False: there may have been more that is not kept any more.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn past(&self, to: Option<u64>) -> Result<(Past, bool)> {
        let read = self.database.begin_read()?;
        let all = read.open_table(DECISIONS)?;
        let mut past = Past::new(to);
        let mut first = 1;
        for entry in all.iter()?.rev() {
            let (number, bytes) = entry?;
            first = number.value();
            let change: Change = serde_json::from_slice(bytes.value()).context("state: decisions")?;
            if !past.take(change) {
                return Ok((past, true));
            }
        }
        Ok((past, first == 1))
    }

    /// Decisions that are not known to be in the audit log, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn unaudited(&self) -> Result<Vec<Decision>> {
        let read = self.database.begin_read()?;
        let after = read.open_table(META)?.get("audited")?.map_or(0, |it| it.value());
        let all = read.open_table(DECISIONS)?;
        let mut out = Vec::new();
        for entry in all.range(after + 1..)?.take(UNAUDITED_MAX) {
            out.push(serde_json::from_slice(entry?.1.value()).context("state: decisions")?);
        }
        Ok(out)
    }

    /// When the newest rollback began that is known to be in the audit log, Unix nanoseconds; 0: none is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn hold_audited(&self) -> Result<u64> {
        Ok(self.database.begin_read()?.open_table(META)?.get("hold_audited")?.map_or(0, |it| it.value()))
    }

    /// The rollback that began then is in the audit log.
    ///
    /// # Errors
    /// It could not be written.
    pub fn audit_hold(&self, at_ns: u64) -> Result<()> {
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert("hold_audited", at_ns)?;
        write.commit()?;
        Ok(())
    }

    /// All decisions that are kept are in the audit log.
    ///
    /// # Errors
    /// It could not be written.
    pub fn audited(&self) -> Result<()> {
        let newest = {
            let read = self.database.begin_read()?;
            let newest = read.open_table(DECISIONS)?.last()?.map_or(0, |(number, _)| number.value());
            let known = read.open_table(META)?.get("audited")?.map_or(0, |it| it.value());
            if newest == known {
                return Ok(());
            }
            newest
        };
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert("audited", newest)?;
        write.commit()?;
        Ok(())
    }

    /// A copy of all of it in another file, as of one moment.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn backup(&self, path: &Path) -> Result<()> {
        let name = || format!("backup {}", path.display());
        anyhow::ensure!(!path.exists(), "{}: it is there already; allowed: a new file", name());
        let read = self.database.begin_read()?;
        let copy = State::open(path)?;
        let write = copy.database.begin_write()?;
        {
            let (from, mut to) = (read.open_table(LAST)?, write.open_table(LAST)?);
            for entry in from.iter()? {
                let (key, value) = entry?;
                to.insert(key.value(), value.value())?;
            }
            let (from, mut to) = (read.open_table(DECISIONS)?, write.open_table(DECISIONS)?);
            for entry in from.iter()? {
                let (key, value) = entry?;
                to.insert(key.value(), value.value())?;
            }
        }
        write.commit().with_context(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(version: u64) -> Kept {
        let previous = Previous { version, ..Previous::new(version) };
        Kept {
            previous: Some(previous),
            published: [("gateway-a".to_owned(), format!("{{\"v\":{version}}}"))].into(),
        }
    }

    #[test]
    fn what_is_kept_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        {
            let state = State::open(&path).unwrap();
            assert!(state.load().unwrap().previous.is_none());
            for version in 1..=3 {
                state.keep(&kept(version), None, &[]).unwrap();
            }
            assert!(State::open(&path).is_err(), "one process at a time");
        }
        let state = State::open(&path).unwrap();
        let back = state.load().unwrap();
        assert_eq!(back.previous.unwrap().version, 3);
        assert_eq!(back.published["gateway-a"], "{\"v\":3}");
        let copy = folder.path().join("copy.redb");
        state.backup(&copy).unwrap();
        assert_eq!(State::open(&copy).unwrap().load().unwrap().previous.unwrap().version, 3);
        assert!(state.backup(&copy).unwrap_err().to_string().contains("there already"));
    }
}

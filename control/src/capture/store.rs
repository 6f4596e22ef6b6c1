//! The folder of a capture, bounded.
//!
//! Enters: messages, one at a time. Leaves: `NNNN.otlp` and `NNNN.time`, numbered in the order of their arrival, and counts. The arrival never
//! runs backwards from one number to the next, whatever the system's clock does. A message that does not fit the bounds is not written, and ends the capture.

use super::arguments::Arguments;
use crate::folder;
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its time was over.
    Seconds,
    /// It has as many requests as it should.
    Requests,
    /// The next one would be too much for the disk.
    Bytes,
    /// Somebody ended it.
    Interrupt,
    /// Nothing can be written.
    Broken,
}

impl Ended {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Ended::Seconds => "--seconds",
            Ended::Requests => "--requests",
            Ended::Bytes => "--bytes-max",
            Ended::Interrupt => "a signal",
            Ended::Broken => "an error of the folder",
        }
    }
}

/// What was recorded and what was not.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests on the disk.
    pub recorded: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them: over HTTP.
    pub http: u64,
    /// Of them: over gRPC.
    pub grpc: u64,
    /// Of them: compressed.
    pub gzip: u64,
    /// Of them: no OTLP.
    pub unreadable: u64,
    /// Requests that were not recorded, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

/// The folder.
pub struct Store {
    folder: PathBuf,
    first: u64,
    next: u64,
    last_ns: u64,
    bytes_before: u64,
    bytes_max: u64,
    requests_max: u64,
    ended: Option<Ended>,
    /// What happened.
    pub counts: Counts,
}

impl Store {
    /// Opens the folder: a new or empty one, or, to add to it, one with requests.
    pub fn open(arguments: &Arguments) -> Result<Store> {
        let folder = &arguments.out;
        let (mut next, mut bytes, mut last_ns) = (1, 0, 0);
        if arguments.append && folder.exists() {
            let there = folder::requests(folder)?;
            for request in &there {
                bytes += std::fs::metadata(&request.path)?.len();
                last_ns = last_ns.max(request.arrival_ns()?.unwrap_or(0));
            }
            next = there.last().map_or(1, |request| request.number + 1);
        } else if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!(
                "--out {}: the folder holds something; allowed: a new or empty one, or --append",
                folder.display()
            );
        }
        std::fs::create_dir_all(folder)?;
        if bytes >= arguments.bytes_max {
            bail!(
                "--bytes-max {}: the folder already holds {bytes} bytes; allowed: more than that",
                arguments.bytes_max
            );
        }
        Ok(Store {
            folder: folder.clone(),
            first: next,
            next,
            last_ns,
            bytes_before: bytes,
            bytes_max: arguments.bytes_max,
            requests_max: arguments.requests.unwrap_or(u64::MAX),
            ended: None,
            counts: Counts::default(),
        })
    }

    /// Writes a message. None: not any more, the capture has ended.
    pub fn record(&mut self, message: &[u8]) -> Option<()> {
        if self.ended.is_some() {
            return None;
        }
        let bytes = self.bytes_before + self.counts.bytes + message.len() as u64;
        if bytes > self.bytes_max {
            self.ended = Some(Ended::Bytes);
            return None;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_ns = self.last_ns.max(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        if let Err(error) = folder::write_request(&self.folder, self.next, message, self.last_ns) {
            eprintln!("{error:#}");
            self.ended = Some(Ended::Broken);
            return None;
        }
        self.next += 1;
        self.counts.recorded += 1;
        self.counts.bytes += message.len() as u64;
        if self.counts.recorded >= self.requests_max {
            self.ended = Some(Ended::Requests);
        }
        Some(())
    }

    /// Why it has ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// The first and the last name.
    pub fn range(&self) -> Option<(String, String)> {
        (self.next > self.first).then(|| (folder::name(self.first), folder::name(self.next - 1)))
    }
}

//! Folders of request bodies: `NNNN.otlp` a request, `NNNN.time` beside it with its arrival.
//!
//! Enters: a folder's path. Leaves: the requests in it in the order of their numbers, files written so that none is ever seen half. Numbers
//! have at least four digits and count on beyond them. Refused: bodies whose name is no number, two with the same number, a time that is none, a folder to
//! write to that holds something.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Ending of a body.
pub const BODY: &str = "otlp";
/// Ending of its arrival time.
pub const TIME: &str = "time";

/// A request on the disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its number.
    pub number: u64,
    /// Its name without the ending, as it stands in the folder.
    pub name: String,
    /// Its body.
    pub path: PathBuf,
}

/// The name of request `number`, without an ending.
pub fn name(number: u64) -> String {
    format!("{number:04}")
}

/// The requests in a folder, by number. Other files are no concern here.
pub fn requests(folder: &Path) -> Result<Vec<Request>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.extension().is_none_or(|ending| ending != BODY) {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_number = !name.is_empty() && name.bytes().all(|digit| digit.is_ascii_digit());
        let Some(number) = name.parse().ok().filter(|_| is_number) else {
            bail!(
                "{}: name {name:?} is not allowed for a request; allowed: digits and .{BODY}, such as 0001.{BODY}",
                path.display()
            );
        };
        found.push(Request { number, name, path });
    }
    found.sort_by_key(|request| request.number);
    if let Some(pair) = found.windows(2).find(|pair| pair[0].number == pair[1].number) {
        bail!("{} and {} have the same number", pair[0].path.display(), pair[1].path.display());
    }
    Ok(found)
}

impl Request {
    /// When it arrived, Unix nanoseconds; none without a file that says so.
    pub fn arrival_ns(&self) -> Result<Option<u64>> {
        let path = self.path.with_extension(TIME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let time = text.trim().parse().ok().filter(|time| (1..=TIME_MAX_NS).contains(time));
        let shown: String = text.trim().chars().take(40).collect();
        time.map(Some).with_context(|| {
            format!(
                "{}: value {shown:?} is not allowed; allowed: Unix nanoseconds, 1 to {TIME_MAX_NS}",
                path.display()
            )
        })
    }
}

/// The latest arrival: OTLP's times are 64 bits, and a year of room is left for windows that close after it.
pub const TIME_MAX_NS: u64 = u64::MAX - 366 * 86_400 * 1_000_000_000;

/// Makes a folder ready to be written to. One that holds something is refused, unless `force`: then the files in it that `ours` says are ours are removed.
pub fn prepare(folder: &Path, force: bool, ours: impl Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    if !names.is_empty() && !force {
        bail!(
            "--out {}: the folder holds {} file(s); allowed: an empty or new folder, or --force",
            folder.display(),
            names.len()
        );
    }
    for path in names {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && ours(&name) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Is it the name of a body, of an emission or of an arrival time?
pub fn is_ours(name: &str) -> bool {
    let numbered = name.starts_with(|first: char| first.is_ascii_digit());
    numbered && [BODY, TIME].iter().any(|ending| name.ends_with(&format!(".{ending}")))
}

/// Writes a file beside its place and renames it there.
pub fn write(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let hidden = folder.join(format!(".{name}.part"));
    let path = folder.join(name);
    fs::write(&hidden, content)
        .and_then(|()| fs::rename(&hidden, &path))
        .with_context(|| path.display().to_string())
}

/// Writes a request: first its time, then its body, so that a body that is seen has its time.
pub fn write_request(folder: &Path, number: u64, body: &[u8], arrival_ns: u64) -> Result<()> {
    let name = name(number);
    write(folder, &format!("{name}.{TIME}"), format!("{arrival_ns}\n").as_bytes())?;
    write(folder, &format!("{name}.{BODY}"), body)
}

//! Who may do what, read again when its file changes.
//!
//! In: a file and how it is read. Out: the newest [`Access`] that could be read. The file is looked at no more than once a second, when somebody asks. One that is refused,
//! or gone, leaves the one before in force: an editor's half-written file locks nobody out, and lets nobody in.

use crate::role::Access;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often the file is looked at, at most.
const EVERY: Duration = Duration::from_secs(1);
/// Changes that nobody has asked for yet: the oldest go.
const NEWS_MAX: usize = 16;

type Read = Box<dyn Fn() -> Result<Access, String> + Send + Sync>;

/// What is in force.
pub struct Grants {
    file: Option<(PathBuf, Read)>,
    state: Mutex<State>,
}

struct State {
    access: Arc<Access>,
    read_of: Option<(SystemTime, u64)>,
    looked: Instant,
    trouble: Option<String>,
    news: Vec<Result<(), String>>,
}

impl Grants {
    /// These, and no file.
    pub fn fixed(access: Access) -> Grants {
        Grants { file: None, state: Mutex::new(State::new(access, None)) }
    }

    /// Those of a file.
    ///
    /// # Errors
    /// What the reader says of it.
    pub fn watched(
        path: PathBuf,
        read: impl Fn() -> Result<Access, String> + Send + Sync + 'static,
    ) -> Result<Grants, String> {
        let read_of = stamp(&path);
        let state = Mutex::new(State::new(read()?, read_of));
        Ok(Grants { file: Some((path, Box::new(read))), state })
    }

    /// The newest that could be read.
    pub fn current(&self) -> Arc<Access> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, read)) = &self.file
            && state.looked.elapsed() >= EVERY
        {
            state.looked = Instant::now();
            let stamp = stamp(path);
            if stamp != state.read_of {
                state.read_of = stamp;
                let news = read().map(|access| state.access = Arc::new(access));
                state.trouble = news.clone().err();
                if state.news.len() < NEWS_MAX {
                    state.news.push(news);
                }
            }
        }
        state.access.clone()
    }

    /// What became of the file since this was asked last: it is in force, or why not.
    pub fn news(&self) -> Vec<Result<(), String>> {
        self.current();
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).news)
    }

    /// Why the file that is there is not in force.
    pub fn trouble(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }
}

impl State {
    fn new(access: Access, read_of: Option<(SystemTime, u64)>) -> State {
        State { access: Arc::new(access), read_of, looked: Instant::now(), trouble: None, news: Vec::new() }
    }
}

/// When it changed last, and its length.
fn stamp(path: &std::path::Path) -> Option<(SystemTime, u64)> {
    let it = path.metadata().ok()?;
    Some((it.modified().ok()?, it.len()))
}

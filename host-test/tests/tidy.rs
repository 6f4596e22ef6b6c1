//! The rules of the house that a program can check.
//!
//! In: every text file of the checkout. Out: a list of what breaks a rule, as `file:line: what`.
//! Why a test: documents drift unless something fails. Each rule is a function of text, and each is also tried on text that
//! breaks it, since a rule that cannot fail proves nothing.
//! Refuses: paths in documents that do not exist, absolute paths of a machine, files without a heading or beyond their size,
//! decisions without their parts, and an engine that depends on an ABI crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders that no person wrote: build output, the history, what a fuzzer found.
const UNWRITTEN: [&str; 5] = ["target", ".git", "artifacts", "coverage", "corpus"];
/// Folders whose Rust files open with a heading.
const RUST_FOLDERS: [&str; 5] = ["filter", "control", "host-test", "benches", "xtask"];
/// A word with a slash and one of these endings is meant as a path, whatever folder it begins with.
const ENDINGS: [&str; 10] = [".rs", ".md", ".toml", ".yaml", ".yml", ".json", ".wit", ".go", ".wasm", ".sh"];
/// Lines of a file without its tests: past this it holds two things.
const LINES_MAX: usize = 700;
/// From here on a file is named in the output: time to think of a seam.
const LINES_WARN: usize = 500;
/// What the engine must never depend on.
const FOREIGN: [&str; 8] =
    ["proxy-wasm", "wit-bindgen", "wasmtime", "tokio", "hyper", "getrandom", "prost", "opentelemetry-proto"];
/// The parts of a decision.
const PARTS: [&str; 4] = ["Problem", "Options", "Evidence", "Decision"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the workspace").to_path_buf()
}

/// Every text file of the checkout: its path from the root, and its text.
fn texts() -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<PathBuf, String>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if UNWRITTEN.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(&path, root, found);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                found.insert(path.strip_prefix(root).expect("below the root").to_path_buf(), text);
            }
        }
    }
    let root = root();
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    assert!(found.contains_key(Path::new("Cargo.toml")), "no checkout at {}", root.display());
    found
}

fn of_kind<'a>(
    texts: &'a BTreeMap<PathBuf, String>,
    kind: &'a str,
) -> impl Iterator<Item = (&'a Path, &'a str)> {
    let chosen = texts.iter().filter(move |(path, _)| path.extension().is_some_and(|end| end == kind));
    chosen.map(|(path, text)| (path.as_path(), text.as_str()))
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Words in backticks and targets of links, outside of fenced blocks, with their line.
fn named(markdown: &str) -> Vec<(usize, String, bool)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in markdown.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let spans = line.split('`').skip(1).step_by(2);
            let words = spans.flat_map(str::split_whitespace).map(|word| (index + 1, word.to_owned(), false));
            found.extend(words);
            let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(links.map(|target| (index + 1, target.to_owned(), true)));
        }
    }
    found
}

/// What of a word is a path of this repository, if it means one.
fn meant(word: &str, link: bool, top: impl Fn(&str) -> bool) -> Option<&str> {
    let path = word.split('#').next()?.trim_matches(|mark| ",;()\"'".contains(mark)).trim_start_matches("./");
    let path = path.split(':').next()?;
    // Patterns and placeholders stand for many files, or for none yet.
    let pattern = path.chars().any(|mark| !(mark.is_ascii_alphanumeric() || "._-/".contains(mark)));
    let placeholder = path.contains("NNNN") || path.contains("NAME");
    let elsewhere = word.contains("://") || path.starts_with('/') || path.starts_with("../shared");
    let first = path.split('/').next()?;
    if path.is_empty() || pattern || placeholder || elsewhere || first == "target" {
        return None;
    }
    let ends = ENDINGS.iter().any(|ending| path.ends_with(ending));
    (link || (path.contains('/') && (top(first) || ends))).then_some(path)
}

/// Paths that a document names and that are neither below the root nor beside the document.
fn missing_paths(document: &Path, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let beside = document.parent().unwrap_or(Path::new(""));
    let missing = |path: &str, link: bool| {
        let here = beside.join(path);
        // A link is followed from its document; a name in backticks may also be meant from the root.
        !exists(&here) && (link || !exists(Path::new(path)))
    };
    named(text)
        .into_iter()
        .filter_map(|(line, word, link)| {
            let path = meant(&word, link, |first| exists(Path::new(first)))?;
            missing(path, link).then(|| format!("{}:{line}: no such path: {path}", document.display()))
        })
        .collect()
}

#[test]
fn documents_name_no_missing_path() {
    let (root, texts) = (root(), texts());
    let broken: Vec<String> = of_kind(&texts, "md")
        .flat_map(|(path, text)| missing_paths(path, text, |named| root.join(named).exists()))
        .collect();
    assert_none(&broken);
}

#[test]
fn a_missing_path_is_seen() {
    let there =
        ["filter", "filter/src/flow.rs", "docs", "docs/a.md", "docs/b.md", "docs/src/x.rs", "", "docs/"];
    let exists = |path: &Path| there.iter().any(|known| Path::new(known) == path);
    let check = |text: &str| missing_paths(Path::new("docs/a.md"), text, exists).len();
    assert_eq!(
        check("see `filter/src/flow.rs`, `src/x.rs`, [b](b.md#part) and [web](https://example.org/x)"),
        0
    );
    assert_eq!(check("`target/phoenix/x.wasm`, `application/json`, `docs/*.md`, `a/b`, `../shared/x.md`"), 0);
    assert_eq!(check("```\nfilter/src/gone.rs `filter/src/gone.rs`\n```"), 0);
    assert_eq!(check("see `filter/src/gone.rs`"), 1);
    assert_eq!(check("run `cat filter/src/gone.rs:12`"), 1);
    assert_eq!(check("see `removed/folder/file.rs`"), 1);
    assert_eq!(check("see `filter/gone/`"), 1);
    assert_eq!(check("[gone](gone.md) and [from the root](filter/src/flow.rs)"), 2);
}

/// Lines that name a folder of somebody's machine.
fn machine_paths(path: &Path, text: &str) -> Vec<String> {
    // Put together here, so that this file passes its own rule.
    let roots = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    let names = |line: &str| {
        roots.iter().any(|root| {
            line.match_indices(root.as_str()).any(|(at, _)| {
                let before = line.get(..at).and_then(|before| before.chars().next_back());
                !before.is_some_and(|mark| mark.is_alphanumeric() || "._-}~".contains(mark))
            })
        })
    };
    let lines = text.lines().enumerate().filter(|(_, line)| names(line));
    lines
        .map(|(index, line)| format!("{}:{}: a path of a machine: {line}", path.display(), index + 1))
        .collect()
}

#[test]
fn no_file_names_a_machine() {
    let broken: Vec<String> = texts().iter().flat_map(|(path, text)| machine_paths(path, text)).collect();
    assert_none(&broken);
}

#[test]
fn a_path_of_a_machine_is_seen() {
    let check = |text: &str| machine_paths(Path::new("x"), text).len();
    let bad = |folder: &str| format!("see /{folder}/somebody/file");
    assert_eq!(check(&bad("home")) + check(&bad("root")) + check(&bad("work")), 3);
    assert_eq!(check(&format!("(\"/{}/x\")\nfine\n`/{}/y`", "root", "home")), 2);
    assert_eq!(check("https://example.org/home/page, $HOME/.cache, docs/work/x, a rooted tree"), 0);
}

/// Whether a file opens by saying what it is.
fn has_heading(text: &str) -> bool {
    text.strip_prefix("//!").and_then(|rest| rest.lines().next()).is_some_and(|first| first.trim().len() > 3)
}

/// Lines before the tests of a file.
fn lines_without_tests(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

fn rust_files(texts: &BTreeMap<PathBuf, String>) -> impl Iterator<Item = (&Path, &str)> {
    of_kind(texts, "rs").filter(|(path, _)| RUST_FOLDERS.iter().any(|folder| path.starts_with(folder)))
}

#[test]
fn every_rust_file_opens_with_a_heading() {
    let texts = texts();
    let bare = rust_files(&texts).filter(|(_, text)| !has_heading(text));
    let broken: Vec<String> =
        bare.map(|(path, _)| format!("{}:1: opens without //!", path.display())).collect();
    assert_none(&broken);
}

#[test]
fn files_hold_one_thing() {
    let texts = texts();
    let in_tests = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let sizes = rust_files(&texts).filter(|(path, _)| !in_tests(path));
    let long: Vec<(usize, String)> = sizes
        .map(|(path, text)| (lines_without_tests(text), path.display().to_string()))
        .filter(|(lines, _)| *lines > LINES_WARN)
        .collect();
    long.iter().for_each(|(lines, path)| println!("{path}: {lines} lines without tests"));
    let too_long = long.iter().filter(|(lines, _)| *lines > LINES_MAX);
    let broken: Vec<String> = too_long
        .map(|(lines, path)| format!("{path}: {lines} lines without tests, {LINES_MAX} allowed"))
        .collect();
    assert_none(&broken);
}

#[test]
fn a_bare_or_long_file_is_seen() {
    assert!(has_heading("//! The engine.\nfn x() {}\n"));
    assert!(!has_heading("//!\nfn x() {}\n"));
    assert!(!has_heading("// The engine.\n"));
    assert!(!has_heading(""));
    assert_eq!(lines_without_tests(&"x\n".repeat(701)), 701);
    assert_eq!(lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
}

/// What is wrong with the folder of decisions: numbers used twice, names without a number, parts left out.
fn flawed_decisions(files: &[(String, String)]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut numbers: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, text) in files {
        match name.split_once('-') {
            Some((number, _)) if number.len() == 4 && number.bytes().all(|digit| digit.is_ascii_digit()) => {
                if let Some(other) = numbers.insert(number, name) {
                    broken.push(format!("{name}: has the number of {other}"));
                }
            }
            _ => broken.push(format!("{name}: not named NNNN-title.md")),
        }
        for part in PARTS {
            let heading =
                |line: &str| line.starts_with('#') && line.trim_start_matches(['#', ' ']).starts_with(part);
            if !text.lines().any(heading) {
                broken.push(format!("{name}: no heading {part}"));
            }
        }
    }
    broken
}

#[test]
fn decisions_are_numbered_and_whole() {
    let texts = texts();
    let decisions: Vec<(String, String)> = of_kind(&texts, "md")
        .filter(|(path, _)| path.starts_with("docs/decisions"))
        .map(|(path, text)| (path.file_name().unwrap_or_default().to_string_lossy().into(), text.to_owned()))
        .collect();
    assert!(!decisions.is_empty(), "no decisions found");
    assert_none(&flawed_decisions(&decisions));
}

#[test]
fn a_flawed_decision_is_seen() {
    let whole = "# 1. Title\n## Problem\n## Options\n## Evidence\n## Decision\n";
    let check = |files: &[(&str, &str)]| {
        let owned: Vec<_> = files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        flawed_decisions(&owned).len()
    };
    assert_eq!(check(&[("0001-a.md", whole), ("0002-b.md", whole)]), 0);
    assert_eq!(check(&[("0001-a.md", whole), ("0001-b.md", whole)]), 1);
    assert_eq!(check(&[("notes.md", whole), ("12-b.md", whole)]), 2);
    assert_eq!(check(&[("0001-a.md", "# 1. Title\n## Problem\nEvidence\n## Decision\n")]), 2);
}

/// The forbidden crates in the output of `cargo tree --prefix none`.
fn foreign(tree: &str) -> Vec<&'static str> {
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    FOREIGN.into_iter().filter(|name| names.contains(name)).collect()
}

#[test]
fn the_engine_is_pure_and_the_shell_is_not() {
    let tree = |package: &str| {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["tree", "-p", package, "-e", "normal", "--target", "all", "--prefix", "none"])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        let tree = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(tree.starts_with(package), "{}", String::from_utf8_lossy(&output.stderr));
        tree
    };
    assert_eq!(foreign(&tree("phoenix-filter")), [""; 0]);
    // The control: the same look finds what it looks for where it is.
    assert!(foreign(&tree("phoenix-envoy")).contains(&"proxy-wasm"));
    assert_eq!(foreign("phoenix-filter v0\ntokio v1\nprosthesis v2\n"), ["tokio"]);
}

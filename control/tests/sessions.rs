//! The sessions in the book are run: `console` blocks of docs/generate.md and docs/replay.md hold commands and exactly what they print.
//!
//! In: the documents. Out: each command in an empty folder that holds the document's plan and scenario, its output against the text beneath it. To write the
//! sessions anew: `UPDATE_EXPECT=1 cargo test -p phoenix-control --test sessions`.

mod tools;

use std::path::{Path, PathBuf};
use tools::{Folder, command, text};

fn document(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let content = std::fs::read_to_string(&path).unwrap();
    (path, content)
}

/// The first fenced block of a language.
fn block<'a>(markdown: &'a str, language: &str) -> Option<&'a str> {
    markdown.split_once(&format!("```{language}\n"))?.1.split_once("```").map(|(block, _)| block)
}

/// What a command of a session prints.
fn run(line: &str, folder: &Folder) -> String {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("phoenix"), "{line}");
    let output = command().args(words).current_dir(folder.at("")).output().unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

/// The document with each session as it runs now.
fn rerun(markdown: &str) -> (String, usize) {
    let folder = Folder::new();
    if let Some(plan) = block(markdown, "json") {
        folder.file("plan.json", plan);
    }
    if let Some(scenario) = block(markdown, "yaml") {
        folder.file("mine.yaml", scenario);
    }
    let mut sessions = 0;
    let mut parts = markdown.split("```console\n");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (session, rest) = part.split_once("```").unwrap();
        out += "```console\n";
        for line in session.lines().filter_map(|line| line.strip_prefix("$ ")) {
            out += &format!("$ {line}\n{}", run(line, &folder));
            sessions += 1;
        }
        out += &format!("```{rest}");
    }
    (out, sessions)
}

#[test]
fn the_book_shows_what_happens() {
    for (name, commands) in [("generate.md", 2), ("replay.md", 2)] {
        let (path, content) = document(name);
        let (now, sessions) = rerun(&content);
        assert_eq!(sessions, commands, "{name}");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        assert!(content == now || std::env::var_os("UPDATE_EXPECT").is_some(), "{name} is old; now:\n{now}");
    }
}

#[test]
fn the_fields_of_the_book_are_those_of_the_code() {
    let (_, book) = document("generate.md");
    let folder = Folder::new();
    let file = folder.file("x.yaml", "nothing: 1\n");
    let error = tools::bad(&["generate", "--scenario", &file, "--to", &folder.at("to")]);
    let known = error.split("expected one of ").nth(1).unwrap_or_else(|| panic!("{error}"));
    let fields: Vec<&str> = known.trim().split(", ").collect();
    assert!(fields.len() >= 9, "{error}");
    for field in fields {
        assert!(book.contains(&format!("`{field}")), "docs/generate.md does not speak of {field}");
    }
}

//! The types for `prost` and `wit/report.proto` say the same: every message, field, type and number.

use std::collections::BTreeSet;

const PROTO: &str = include_str!("../../../wit/report.proto");
const TYPES: &str = include_str!("../src/wire.rs");

/// `Message.field = number: type`.
type Fields = BTreeSet<String>;

fn of_the_format() -> Fields {
    let (mut fields, mut message) = (Fields::new(), "");
    for line in PROTO.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("message ") {
            message = rest.trim_end_matches(" {");
        } else if let Some((left, number)) = line.strip_suffix(';').and_then(|line| line.split_once(" = ")) {
            let Some((kind, name)) = left.rsplit_once(' ') else { continue };
            fields.insert(format!("{message}.{name} = {number}: {kind}"));
        }
    }
    fields
}

fn of_the_types() -> Fields {
    let (mut fields, mut message, mut kind) = (Fields::new(), "", None);
    for line in TYPES.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            message = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            let words: Vec<&str> = rest.trim_end_matches(")]").split(", ").collect();
            let number = words.last().and_then(|word| word.split('"').nth(1)).expect("a tag").to_owned();
            kind = Some((words[0].split(' ').next().expect("a type"), words.contains(&"repeated"), number));
        } else if let Some((name, of)) = line.strip_prefix("pub ").and_then(|line| line.split_once(": "))
            && let Some((scalar, repeated, number)) = kind.take()
        {
            let inner = of.trim_end_matches([',', '>']).rsplit('<').next().expect("a type");
            let kind = if scalar == "message" { inner } else { scalar };
            let repeated = if repeated { "repeated " } else { "" };
            fields
                .insert(format!("{message}.{} = {number}: {repeated}{kind}", name.trim_start_matches("r#")));
        }
    }
    fields
}

#[test]
fn types_and_format_are_the_same() {
    let (format, types) = (of_the_format(), of_the_types());
    assert!(format.len() > 50, "the format was read: {format:?}");
    assert_eq!(format, types);
}

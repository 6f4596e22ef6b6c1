//! A file that Envoy watches, for gateways without a way to the control host's port.
//!
//! In: the module's configuration. Out: `phoenix.yaml` in a folder, replaced by a rename, so that Envoy sees the old one or the new one and nothing between. JSON is YAML: the shipped
//! `envoy/gateway.yaml` reads it as it is.

use super::board::Published;
use super::extension::Module;
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

/// Name of the file.
pub const NAME: &str = "phoenix.yaml";

/// Replaces the file. False: it says the same already.
///
/// # Errors
/// The folder cannot be written to; the file is what it was.
pub fn replace(folder: &Path, module: &Module, published: &Published) -> Result<bool> {
    let path = folder.join(NAME);
    let text = format!("{:#}\n", module.file(&published.version, &published.config));
    if fs::read_to_string(&path).is_ok_and(|now| now == text) {
        return Ok(false);
    }
    // Another name than Envoy's, in the same folder: a rename does not cross file systems.
    let next = folder.join(format!(".{NAME}.next"));
    let written = File::create(&next).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&next, &path))
        .with_context(|| format!("publish.file: {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_once() {
        let folder = tempfile::tempdir().unwrap();
        let module =
            Module { name: "phoenix".to_owned(), vm_id: "phoenix".to_owned(), filename: "m.wasm".to_owned() };
        let (one, two) = (Published::new("{\"a\":1}"), Published::new("{\"a\":2}"));
        assert!(replace(folder.path(), &module, &one).unwrap());
        assert!(!replace(folder.path(), &module, &one).unwrap());
        assert!(replace(folder.path(), &module, &two).unwrap());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, [NAME], "nothing is left lying about");
        let said = replace(&folder.path().join("nowhere"), &module, &one).unwrap_err();
        assert!(format!("{said:#}").starts_with("publish.file: "), "{said:#}");
    }
}

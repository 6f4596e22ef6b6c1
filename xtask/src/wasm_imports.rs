//! What a core module asks of its host.
//!
//! In: the bytes of a core module. Out: its imports as `module.name`, in order.
//! Why by hand: two LEB128 numbers and two strings an entry, against a dependency that would double the build of `xtask`.
//! Refuses: what is no core module (a component has another version field), lengths past the end, unknown import kinds.

use anyhow::{Context, Result, bail};

/// Magic and version of a core module (WebAssembly core specification, 5.5.16).
const CORE_HEADER: &[u8] = b"\0asm\x01\0\0\0";
/// Id of the import section (5.5.5).
const IMPORT_SECTION: u8 = 2;

/// The imports of a core module, each as `module.name`.
pub fn imports(module: &[u8]) -> Result<Vec<String>> {
    let mut rest = Bytes(module.strip_prefix(CORE_HEADER).context("no core module: its header differs")?);
    let mut found = Vec::new();
    while !rest.0.is_empty() {
        let id = rest.byte()?;
        let size = rest.number()?;
        let mut section = Bytes(rest.take(size)?);
        if id != IMPORT_SECTION {
            continue;
        }
        for _ in 0..section.number()? {
            let (host, name) = (section.name()?, section.name()?);
            section.skip_description().with_context(|| format!("import {host}.{name}"))?;
            found.push(format!("{host}.{name}"));
        }
    }
    Ok(found)
}

/// Reads from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.0.split_first().context("cut short")?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("a length runs past the end")?;
        self.0 = rest;
        Ok(taken)
    }

    /// An unsigned LEB128 number of at most 32 bits.
    fn number(&mut self) -> Result<usize> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).context("a number over 32 bits");
            }
        }
        bail!("a number over five bytes")
    }

    fn name(&mut self) -> Result<&'a str> {
        let length = self.number()?;
        std::str::from_utf8(self.take(length)?).context("a name that is not UTF-8")
    }

    /// Function, table, memory, global or tag (5.5.5 and the exception-handling proposal).
    fn skip_description(&mut self) -> Result<()> {
        match self.byte()? {
            0 => drop(self.number()?),
            1 => {
                self.byte()?;
                self.skip_limits()?;
            }
            2 => self.skip_limits()?,
            3 => drop(self.take(2)?),
            4 => {
                self.byte()?;
                self.number()?;
            }
            kind => bail!("unknown kind {kind}"),
        }
        Ok(())
    }

    fn skip_limits(&mut self) -> Result<()> {
        let has_maximum = self.byte()? & 1 == 1;
        self.number()?;
        if has_maximum {
            self.number()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(section: &[u8]) -> Vec<u8> {
        let mut bytes = CORE_HEADER.to_vec();
        bytes.extend([0, 3, 1, b'x', 0xff]); // a custom section, to be skipped
        bytes.extend([IMPORT_SECTION, u8::try_from(section.len()).expect("short")]);
        bytes.extend(section);
        bytes
    }

    #[test]
    fn imports_of_every_kind_are_listed() {
        let mut section = vec![3];
        section.extend(b"\x03env\x09proxy_log\x00\x05");
        section.extend(b"\x03env\x03mem\x02\x01\x01\x80\x01");
        section.extend(b"\x01m\x01g\x03\x7f\x00");
        assert_eq!(imports(&module(&section)).expect("valid"), ["env.proxy_log", "env.mem", "m.g"]);
        assert_eq!(imports(CORE_HEADER).expect("empty"), [""; 0]);
    }

    #[test]
    fn what_is_no_core_module_is_refused() {
        assert!(imports(b"\0asm\x0d\0\x01\0").is_err(), "a component");
        assert!(imports(b"").is_err());
        assert!(imports(&module(b"\x01\x03en")).is_err(), "a name past the end");
        assert!(imports(&module(b"\x01\x01a\x01b\x09\x00")).is_err(), "an unknown kind");
        assert!(imports(&module(b"\x80\x80\x80\x80\x80\x01")).is_err(), "an overlong number");
    }
}

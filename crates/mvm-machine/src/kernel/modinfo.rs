//! Reads what a kernel module says about itself: the `.modinfo` section, and the signature at its end.

use object::{Object, ObjectSection};

/// A file is not a kernel module.
#[derive(Debug, thiserror::Error)]
pub enum ModuleFileError {
    /// Not an ELF file.
    #[error("read it as an ELF file: {0}")]
    Elf(String),
    /// There is nothing about the module in it.
    #[error("find its .modinfo section")]
    NoModinfo,
}

/// The parts of a module's information that decide what must be loaded with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Modinfo {
    /// Modules whose symbols it uses.
    pub(crate) depends: Vec<String>,
    /// Modules it wants before itself, if they exist.
    pub(crate) before: Vec<String>,
    /// Modules it wants after itself, if they exist.
    pub(crate) after: Vec<String>,
}

impl Modinfo {
    pub(crate) fn of(module: &[u8]) -> Result<Self, ModuleFileError> {
        let file =
            object::File::parse(module).map_err(|error| ModuleFileError::Elf(error.to_string()))?;
        let section = file
            .section_by_name(".modinfo")
            .ok_or(ModuleFileError::NoModinfo)?;
        let data = section
            .data()
            .map_err(|error| ModuleFileError::Elf(error.to_string()))?;
        Ok(Self::parse(data))
    }

    /// Parses `key=value` strings that end in a zero byte each.
    fn parse(section: &[u8]) -> Self {
        let mut info = Modinfo::default();
        for line in section.split(|byte| *byte == 0) {
            let line = String::from_utf8_lossy(line);
            match line.split_once('=') {
                Some(("depends", names)) => {
                    info.depends.extend(
                        names
                            .split(',')
                            .filter(|name| !name.is_empty())
                            .map(plain_name),
                    );
                }
                Some(("softdep", value)) => info.soft(value),
                _ => {}
            }
        }
        info
    }

    /// Parses `pre: a b post: c`.
    fn soft(&mut self, value: &str) {
        let mut list = None;
        for word in value.split_whitespace() {
            match word {
                "pre:" => list = Some(&mut self.before),
                "post:" => list = Some(&mut self.after),
                name => {
                    if let Some(list) = &mut list {
                        list.push(plain_name(name));
                    }
                }
            }
        }
    }
}

/// A module's name as the kernel itself spells it: `virtio-rng` and `virtio_rng` are the same.
pub(crate) fn plain_name(name: &str) -> String {
    name.replace('-', "_")
}

const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// `struct module_signature`: eight bytes of kinds and lengths, then the signature's length, big-endian.
const SIGNATURE_TRAILER_BYTES: usize = 12;

/// The module without the signature appended to it; the whole file where there is none.
pub(crate) fn without_signature(module: &[u8]) -> &[u8] {
    let stripped = || {
        let rest = module.strip_suffix(SIGNATURE_MARK)?;
        let (rest, trailer) =
            rest.split_at_checked(rest.len().checked_sub(SIGNATURE_TRAILER_BYTES)?)?;
        let length = u32::from_be_bytes(trailer.last_chunk().copied()?) as usize;
        rest.get(..rest.len().checked_sub(length)?)
    };
    stripped().unwrap_or(module)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(section: &[u8], depends: &[&str], before: &[&str], after: &[&str]) {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let expected = Modinfo {
            depends: owned(depends),
            before: owned(before),
            after: owned(after),
        };
        assert_eq!(Modinfo::parse(section), expected);
    }

    #[test]
    fn dependencies_are_read() {
        check(b"", &[], &[], &[]);
        check(b"license=GPL\0depends=\0", &[], &[], &[]);
        check(
            b"depends=virtio,virtio-ring\0retpoline=Y\0",
            &["virtio", "virtio_ring"],
            &[],
            &[],
        );
        check(
            b"softdep=pre: crc32c a-b post: late\0",
            &[],
            &["crc32c", "a_b"],
            &["late"],
        );
        check(
            b"softdep=stray pre:\0softdep=post:x\0depends\0",
            &[],
            &[],
            &[],
        );
        check(b"depends=\xff\xfe,b", &["\u{fffd}\u{fffd}", "b"], &[], &[]);
    }

    fn signed(content: &[u8], signature_bytes: u32) -> Vec<u8> {
        let mut file = [content, b"signature", &[0; 8]].concat();
        file.extend(signature_bytes.to_be_bytes());
        file.extend(SIGNATURE_MARK);
        file
    }

    #[test]
    fn the_signature_goes() {
        assert_eq!(without_signature(&signed(b"module", 9)), b"module");
        assert_eq!(without_signature(b"module"), b"module");
        assert_eq!(without_signature(SIGNATURE_MARK), SIGNATURE_MARK);
        let lying = signed(b"module", 999);
        assert_eq!(without_signature(&lying), lying);
    }

    #[test]
    fn what_is_not_a_module_is_refused() {
        assert!(matches!(
            Modinfo::of(b"#!/bin/sh"),
            Err(ModuleFileError::Elf(_))
        ));
        let program = std::fs::read("/proc/self/exe").unwrap();
        assert!(matches!(
            Modinfo::of(&program),
            Err(ModuleFileError::NoModinfo)
        ));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Modinfo::parse(&garbage);
            let _ = Modinfo::of(&[b"\x7fELF\x02\x01\x01", garbage.as_slice()].concat());
            let _ = without_signature(&[garbage.as_slice(), SIGNATURE_MARK].concat());
        }
    }
}

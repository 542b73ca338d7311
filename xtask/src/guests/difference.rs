//! Tells in which sections two WebAssembly modules differ, which tells where to look: `code` after a change of sources or
//! compiler, `data` alone after a change of texts and paths, `producers` after a new compiler that makes the same code.

use std::collections::BTreeMap;

/// The names of the sections by their numbers; number 0 is a section with a name of its own.
const NAMES: [&str; 14] = [
    "custom",
    "type",
    "import",
    "function",
    "table",
    "memory",
    "global",
    "export",
    "start",
    "element",
    "code",
    "data",
    "data count",
    "tag",
];

/// What differs; `None` for equal modules.
pub(super) fn difference(committed: &[u8], built: &[u8]) -> Option<String> {
    if committed == built {
        return None;
    }
    let sizes = format!(
        "{} bytes, and {} when built now",
        committed.len(),
        built.len()
    );
    let (Some(old), Some(new)) = (sections(committed), sections(built)) else {
        return Some(format!("{sizes}; one of them is no module"));
    };
    let names = old
        .keys()
        .chain(new.keys().filter(|name| !old.contains_key(*name)));
    let differing: Vec<_> = names
        .filter(|name| old.get(*name) != new.get(*name))
        .map(String::as_str)
        .collect();
    Some(format!("{sizes}; they differ in: {}", differing.join(", ")))
}

/// The contents of a module's sections by name; `None` if it is cut off.
fn sections(module: &[u8]) -> Option<BTreeMap<String, Vec<&[u8]>>> {
    let mut rest = module.strip_prefix(b"\0asm\x01\0\0\0")?;
    let mut sections: BTreeMap<String, Vec<&[u8]>> = BTreeMap::new();
    while let Some((id, behind)) = rest.split_first() {
        let (size, behind) = number(behind)?;
        let (content, behind) = behind.split_at_checked(size)?;
        let name = match id {
            0 => {
                let (length, text) = number(content)?;
                String::from_utf8_lossy(text.get(..length)?).into_owned()
            }
            id => NAMES
                .get(usize::from(*id))
                .map_or_else(|| format!("section {id}"), |name| (*name).to_owned()),
        };
        sections.entry(name).or_default().push(content);
        rest = behind;
    }
    Some(sections)
}

/// Reads an unsigned number of at most 32 bits in LEB128.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::difference;

    fn module(sections: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        for (id, content) in sections {
            let size = u8::try_from(content.len()).unwrap();
            // Two bytes where one would do, as linkers write them.
            bytes.extend([*id, size | 0x80, 0]);
            bytes.extend(*content);
        }
        bytes
    }

    #[track_caller]
    fn check(committed: &[u8], built: &[u8], expected: Option<&str>) {
        assert_eq!(difference(committed, built).as_deref(), expected);
    }

    #[test]
    fn the_sections_that_differ_are_named() {
        let one = module(&[
            (1, b"types"),
            (10, b"code"),
            (0, b"\x09producersX"),
            (11, b"data"),
        ]);
        check(&one, &one, None);
        let other = module(&[
            (1, b"types"),
            (10, b"Code!"),
            (0, b"\x09producersY"),
            (11, b"data"),
        ]);
        check(
            &one,
            &other,
            Some("44 bytes, and 45 when built now; they differ in: code, producers"),
        );
        let less = module(&[(1, b"types"), (10, b"code"), (0, b"\x09producersX")]);
        check(
            &one,
            &less,
            Some("44 bytes, and 37 when built now; they differ in: data"),
        );
        check(
            &less,
            &one,
            Some("37 bytes, and 44 when built now; they differ in: data"),
        );
    }

    #[test]
    fn what_is_no_module_is_no_panic() {
        let good = module(&[(10, b"code")]);
        for end in 0..good.len() {
            let text = difference(&good, &good[..end]).unwrap();
            let is_whole = end == 8;
            assert_eq!(text.contains("no module"), !is_whole, "{end}: {text}");
        }
        check(
            b"",
            &good,
            Some("0 bytes, and 15 when built now; one of them is no module"),
        );
    }
}

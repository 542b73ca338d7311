//! The server without a machine: messages as a kernel writes them, and as none does.

use std::{
    ffi::CString,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use rustix::{fs::OFlags, io::Errno};
use tempfile::TempDir;

use super::{fuse::Malformed, nodes::ROOT, server::Server};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const READLINK: u32 = 5;
const SYMLINK: u32 = 6;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const RENAME: u32 = 12;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const SETXATTR: u32 = 21;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const CREATE: u32 = 35;
const BATCH_FORGET: u32 = 42;
/// Beyond what any kernel has.
const OPCODES: u32 = 70;

/// A folder, and a kernel that uses it.
struct Kernel {
    outside: TempDir,
    server: Server,
}

impl Kernel {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        fs::create_dir(outside.path().join("shared")).unwrap();
        let server = Server::open(&outside.path().join("shared"), 0).unwrap();
        Self { outside, server }
    }

    /// The mount stays, and another session begins to serve it.
    fn goes_on_in(&mut self, session: u64) {
        self.server = Server::open(&self.host(""), session).unwrap();
    }

    fn host(&self, path: &str) -> std::path::PathBuf {
        self.outside.path().join("shared").join(path)
    }

    /// Sends a request; returns the answer without its header.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let answer = self.server.answer(&message(opcode, node, body)).unwrap();
        let answer = answer.expect("an answer");
        assert_eq!(number(&answer, 0) as usize, answer.len());
        assert_eq!(answer[8..16], 77_u64.to_ne_bytes());
        match number(&answer, 4).cast_signed() {
            0 => Ok(answer[16..].to_vec()),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }

    fn lookup(&mut self, node: u64, path: &str) -> Result<u64, Errno> {
        path.split('/').try_fold(node, |node, name| {
            Ok(long(&self.ask(LOOKUP, node, &text(name))?, 0))
        })
    }

    /// Returns node and handle.
    fn create(&mut self, folder: u64, name: &str, mode: u32) -> Result<(u64, u64), Errno> {
        let flags = (OFlags::RDWR | OFlags::EXCL).bits();
        let body = [words(&[flags, mode, 0, 0]), text(name)].concat();
        let answer = self.ask(CREATE, folder, &body)?;
        Ok((long(&answer, 0), long(&answer, 128)))
    }

    fn open(&mut self, node: u64) -> Result<u64, Errno> {
        Ok(long(&self.ask(OPEN, node, &words(&[0, 0]))?, 0))
    }

    fn read(&mut self, handle: u64, offset: u64) -> Result<Vec<u8>, Errno> {
        let body = [longs(&[handle, offset]), words(&[u32::MAX, 0, 0, 0, 0, 0])].concat();
        self.ask(READ, ROOT, &body)
    }

    fn write(&mut self, handle: u64, offset: u64, flags: OFlags, text: &str) -> Result<u32, Errno> {
        let bytes = text.len() as u32;
        let place = [
            longs(&[handle, offset]),
            words(&[bytes, 0, 0, 0, flags.bits(), 0]),
        ];
        let body = [place.concat(), text.into()].concat();
        Ok(number(&self.ask(WRITE, ROOT, &body)?, 0))
    }
}

fn message(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let length = 40 + body.len() as u32;
    let header = [
        words(&[length, opcode]),
        longs(&[77, node]),
        words(&[33, 33, 1, 0]),
    ];
    [&header.concat(), body].concat()
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_ne_bytes())
        .collect()
}

fn longs(numbers: &[u64]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_ne_bytes())
        .collect()
}

fn text(text: &str) -> Vec<u8> {
    CString::new(text).unwrap().into_bytes_with_nul()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn what_is_written_is_on_the_host_and_back() {
    let mut kernel = Kernel::new();
    let (node, handle) = kernel.create(ROOT, "file", 0o666).unwrap();
    assert_eq!(kernel.write(handle, 0, OFlags::empty(), "one two"), Ok(7));
    assert_eq!(kernel.write(handle, 0, OFlags::empty(), "ONE"), Ok(3));
    assert_eq!(fs::read(kernel.host("file")).unwrap(), b"ONE two");
    // Whatever mask this process has.
    assert_eq!(
        fs::metadata(kernel.host("file")).unwrap().mode() & 0o7777,
        0o666
    );
    assert_eq!(kernel.create(ROOT, "file", 0o600), Err(Errno::EXIST));
    fs::write(kernel.host("file"), "from the host").unwrap();
    assert_eq!(kernel.read(handle, 5).unwrap(), b"the host");
    let attributes = kernel.ask(GETATTR, node, &[0; 16]).unwrap();
    assert_eq!(long(&attributes, 16 + 8), 13, "its size");
    assert_eq!(attributes[16 + 68..16 + 76], [0; 8], "it is root's");
}

#[test]
fn appended_bytes_go_to_the_end_wherever_the_machine_believes_it() {
    let mut kernel = Kernel::new();
    let (_, handle) = kernel.create(ROOT, "log", 0o600).unwrap();
    fs::write(kernel.host("log"), "another's\n").unwrap();
    assert_eq!(kernel.write(handle, 0, OFlags::APPEND, "ours\n"), Ok(5));
    assert_eq!(fs::read(kernel.host("log")).unwrap(), b"another's\nours\n");
}

#[test]
fn a_file_lives_on_without_a_name_while_it_is_open() {
    let mut kernel = Kernel::new();
    let (node, handle) = kernel.create(ROOT, "file", 0o600).unwrap();
    kernel.write(handle, 0, OFlags::empty(), "kept").unwrap();
    kernel.ask(UNLINK, ROOT, &text("file")).unwrap();
    assert_eq!(kernel.read(handle, 0).unwrap(), b"kept");
    let attributes = kernel.ask(GETATTR, node, &[0; 16]).unwrap();
    assert_eq!(long(&attributes, 16 + 8), 4);
    kernel.ask(18, node, &longs(&[handle, 0, 0])).unwrap();
    assert_eq!(kernel.ask(GETATTR, node, &[0; 16]), Err(Errno::STALE));
    assert_eq!(kernel.read(handle, 0), Err(Errno::BADF));
}

#[test]
fn what_an_earlier_session_told_leads_to_nothing() {
    let mut kernel = Kernel::new();
    let (node, handle) = kernel.create(ROOT, "file", 0o600).unwrap();
    for session in [1 << 34, u64::MAX, 1 << 63] {
        kernel.goes_on_in(session);
        let (other, other_handle) = kernel.create(ROOT, &session.to_string(), 0o600).unwrap();
        assert_ne!((node, handle), (other, other_handle));
        let room = u64::MAX - other.max(other_handle);
        assert!(room > 1 << 32, "{session}");
        assert_eq!(kernel.ask(GETATTR, node, &[0; 16]), Err(Errno::STALE));
        assert_eq!(kernel.lookup(node, "below"), Err(Errno::STALE));
        assert_eq!(kernel.read(handle, 0), Err(Errno::BADF));
        assert_ne!(kernel.lookup(ROOT, "file"), Ok(node));
    }
}

#[test]
fn names_lead_nowhere_else() {
    let mut kernel = Kernel::new();
    for name in ["", ".", "..", "../secret", "a/b", "/etc/passwd"] {
        assert_eq!(
            kernel.ask(LOOKUP, ROOT, &text(name)),
            Err(Errno::INVAL),
            "{name:?}"
        );
        assert_eq!(
            kernel.create(ROOT, name, 0o600),
            Err(Errno::INVAL),
            "{name:?}"
        );
    }
    assert_eq!(kernel.ask(LOOKUP, ROOT, b"no end"), Err(Errno::INVAL));
    assert_eq!(
        kernel.ask(LOOKUP, ROOT, &text(&"x".repeat(256))),
        Err(Errno::NAMETOOLONG)
    );
    assert_eq!(kernel.lookup(4711, "a"), Err(Errno::STALE));
}

#[test]
fn links_are_read_and_never_followed() {
    let mut kernel = Kernel::new();
    let secret = kernel.outside.path().join("secret");
    let body = [text("out"), text(secret.to_str().unwrap())].concat();
    kernel.ask(SYMLINK, ROOT, &body).unwrap();
    symlink("..", kernel.host("up")).unwrap();
    let (out, up) = (
        kernel.lookup(ROOT, "out").unwrap(),
        kernel.lookup(ROOT, "up").unwrap(),
    );
    assert_eq!(
        kernel.ask(READLINK, out, &[]).unwrap(),
        secret.to_str().unwrap().as_bytes()
    );
    assert_eq!(kernel.open(out), Err(Errno::LOOP));
    assert_eq!(kernel.ask(OPENDIR, up, &words(&[0, 0])), Err(Errno::LOOP));
    assert!(kernel.lookup(up, "secret").is_err());
    // To change it changes nothing behind it either.
    let truncated = [words(&[1 << 3, 0]), vec![0; 80]].concat();
    assert!(kernel.ask(SETATTR, out, &truncated).is_err());
    let made_public = [words(&[1, 0]), vec![0; 60], words(&[0o777]), vec![0; 16]].concat();
    let _ = kernel.ask(SETATTR, out, &made_public);
    let metadata = fs::metadata(&secret).unwrap();
    assert_eq!(
        (metadata.len(), metadata.mode() & 0o777 == 0o777),
        (6, false)
    );
}

#[test]
fn what_was_put_in_the_place_of_a_node_is_another() {
    let mut kernel = Kernel::new();
    fs::create_dir(kernel.host("folder")).unwrap();
    fs::write(kernel.host("folder/secret"), "ours").unwrap();
    let folder = kernel.lookup(ROOT, "folder").unwrap();
    let file = kernel.lookup(folder, "secret").unwrap();
    let handle = kernel.open(file).unwrap();
    fs::rename(kernel.host("folder"), kernel.host("moved")).unwrap();
    symlink("..", kernel.host("folder")).unwrap();
    assert!(kernel.lookup(folder, "secret").is_err());
    assert!(
        kernel
            .ask(MKDIR, folder, &[words(&[0o755, 0]), text("new")].concat())
            .is_err()
    );
    assert_eq!(kernel.read(handle, 0).unwrap(), b"ours");
    fs::write(kernel.host("moved/other"), "other").unwrap();
    fs::rename(kernel.host("moved/other"), kernel.host("moved/secret")).unwrap();
    let moved = kernel.lookup(ROOT, "moved/secret").unwrap();
    assert_ne!(moved, file);
    let handle = kernel.open(moved).unwrap();
    assert_eq!(kernel.read(handle, 0).unwrap(), b"other");
}

#[test]
fn a_moved_folder_takes_what_is_in_it_along() {
    let mut kernel = Kernel::new();
    fs::create_dir_all(kernel.host("a/b")).unwrap();
    fs::write(kernel.host("a/b/c"), "c").unwrap();
    fs::write(kernel.host("target"), "replaced").unwrap();
    let file = kernel.lookup(ROOT, "a/b/c").unwrap();
    let rename = |from: &str, to: &str| [longs(&[ROOT]), text(from), text(to)].concat();
    kernel.ask(RENAME, ROOT, &rename("a", "z")).unwrap();
    let handle = kernel.open(file).unwrap();
    assert_eq!(kernel.read(handle, 0).unwrap(), b"c");
    let a = kernel.lookup(ROOT, "z").unwrap();
    let within = [
        longs(&[kernel.lookup(a, "b").unwrap()]),
        text("z"),
        text("y"),
    ]
    .concat();
    assert_eq!(
        kernel.ask(RENAME, ROOT, &within),
        Err(Errno::INVAL),
        "into itself"
    );
    kernel.create(ROOT, "plain", 0o600).unwrap();
    kernel
        .ask(RENAME, ROOT, &rename("plain", "target"))
        .unwrap();
    assert_eq!(fs::read(kernel.host("target")).unwrap(), b"");
}

#[test]
fn nothing_is_made_that_could_harm_the_host() {
    let mut kernel = Kernel::new();
    for kind in [0o010_000, 0o020_000, 0o060_000, 0o140_000] {
        let body = [words(&[kind | 0o666, 0x0801, 0, 0]), text("special")].concat();
        assert_eq!(kernel.ask(MKNOD, ROOT, &body), Err(Errno::PERM), "{kind:o}");
    }
    let (_, _) = kernel.create(ROOT, "program", 0o106_755).unwrap();
    assert_eq!(
        fs::metadata(kernel.host("program")).unwrap().mode() & 0o7777,
        0o755
    );
    // What the host itself has there is not opened: at a pipe it would hang.
    let made = std::process::Command::new("mkfifo")
        .arg(kernel.host("pipe"))
        .status();
    assert!(made.unwrap().success());
    let pipe = kernel.lookup(ROOT, "pipe").unwrap();
    assert_eq!(kernel.open(pipe), Err(Errno::PERM));
}

#[test]
fn a_listing_in_small_pieces_has_everything_once() {
    let mut kernel = Kernel::new();
    let mut expected: Vec<String> = (0..100).map(|number| format!("file-{number:03}")).collect();
    for name in &expected {
        fs::write(kernel.host(name), "").unwrap();
    }
    expected.splice(0..0, [".".to_owned(), "..".to_owned()]);
    let handle = long(&kernel.ask(OPENDIR, ROOT, &words(&[0, 0])).unwrap(), 0);
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let body = [longs(&[handle, offset]), words(&[200, 0, 0, 0, 0, 0])].concat();
        let listed = kernel.ask(READDIR, ROOT, &body).unwrap();
        assert!(listed.len() <= 200);
        if listed.is_empty() {
            break;
        }
        let mut at = 0;
        while at < listed.len() {
            offset = long(&listed, at + 8);
            let bytes = number(&listed, at + 16) as usize;
            names.push(String::from_utf8(listed[at + 24..at + 24 + bytes].to_vec()).unwrap());
            at += (24 + bytes).next_multiple_of(8);
        }
    }
    names.sort();
    assert_eq!(names, expected);
}

#[test]
fn what_a_machine_holds_is_bounded() {
    let mut kernel = Kernel::new();
    let (node, _) = kernel.create(ROOT, "file", 0o600).unwrap();
    let opened = (0..1000).map(|_| kernel.open(node)).collect::<Vec<_>>();
    assert_eq!(opened.last(), Some(&Err(Errno::NFILE)));
    assert!(opened.iter().filter(|opened| opened.is_ok()).count() > 100);
}

#[test]
fn a_forgotten_node_is_known_no_longer() {
    let mut kernel = Kernel::new();
    fs::write(kernel.host("file"), "").unwrap();
    let node = kernel.lookup(ROOT, "file").unwrap();
    assert_eq!(kernel.lookup(ROOT, "file"), Ok(node));
    let forget = |kernel: &mut Kernel, opcode, body: &[u8]| {
        assert_eq!(kernel.server.answer(&message(opcode, node, body)), Ok(None));
    };
    forget(&mut kernel, FORGET, &longs(&[1]));
    assert!(kernel.ask(GETATTR, node, &[0; 16]).is_ok());
    // A count that is not so, and one that is.
    forget(&mut kernel, BATCH_FORGET, &words(&[u32::MAX, 0]));
    forget(
        &mut kernel,
        BATCH_FORGET,
        &[words(&[1, 0]), longs(&[node, 1])].concat(),
    );
    assert_eq!(kernel.ask(GETATTR, node, &[0; 16]), Err(Errno::STALE));
}

#[test]
fn what_is_no_message_is_told_from_one() {
    let mut kernel = Kernel::new();
    let whole = message(LOOKUP, ROOT, &text("a"));
    for end in 0..whole.len() {
        assert_eq!(
            kernel.server.answer(&whole[..end]),
            Err(Malformed),
            "{end} bytes"
        );
    }
    assert_eq!(
        kernel.server.answer(&[&whole[..], b"more"].concat()),
        Err(Malformed)
    );
    assert_eq!(kernel.ask(SETXATTR, ROOT, &[]), Err(Errno::NOSYS));
    assert_eq!(kernel.ask(OPCODES, ROOT, &[]), Err(Errno::NOSYS));
}

#[test]
fn no_body_is_the_end_of_the_server() {
    let mut kernel = Kernel::new();
    let (node, _) = kernel.create(ROOT, "file", 0o600).unwrap();
    let before = fs::read_dir(kernel.outside.path()).unwrap().count();
    for opcode in 0..OPCODES {
        for byte in [0, 1, b'a', 0xff] {
            for bytes in 0..120 {
                for node in [0, ROOT, node, u64::MAX] {
                    let body = vec![byte; bytes];
                    let answer = kernel.server.answer(&message(opcode, node, &body)).unwrap();
                    assert!(answer.is_none_or(|answer| answer.len() >= 16));
                }
            }
        }
    }
    assert_eq!(fs::read_dir(kernel.outside.path()).unwrap().count(), before);
    assert_eq!(
        fs::read(kernel.outside.path().join("secret")).unwrap(),
        b"secret"
    );
    fs::set_permissions(kernel.host(""), fs::Permissions::from_mode(0o755)).unwrap();
}

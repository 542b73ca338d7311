//! What the agent itself says to the kernel and understands of it: the first message of a mount, and refusals.
//!
//! Layouts and numbers are those of the kernel's `include/uapi/linux/fuse.h`, version 7.31 and later. All else is the host's:
//! `shared/fuse.rs` of the lab, which answers as is agreed here.

use std::io;

use rustix::io::Errno;

use crate::protocol::SHARED_DATA_BYTES_MAX;

const INIT: u32 = 26;
/// Those that have no answer.
const FORGET: u32 = 2;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

/// What the protocol says of this version is understood.
const VERSION: u32 = 7;
/// Kernels since 5.10 speak it; before 7.23 the answer to [`INIT`] was shorter.
const MINOR_MIN: u32 = 31;
/// The flags that matter go beyond 32 bits since then.
const MINOR: u32 = 39;

/// Reads and writes of several pages, up to [`SHARED_DATA_BYTES_MAX`].
const BIG_WRITES: u64 = 1 << 5;
const MAX_PAGES: u64 = 1 << 22;
const PAGE_BYTES: usize = 4096;
/// Files are truncated as they are opened, in one go.
const ATOMIC_TRUNCATE: u64 = 1 << 3;
/// A folder may be listed and looked into at once.
const PARALLEL_FOLDERS: u64 = 1 << 18;
/// There are flags beyond 32 bits.
const EXTENDED: u64 = 1 << 30;
/// Files that bypass the kernel's cache may still be mapped.
const DIRECT_IO_MAPS: u64 = 1 << 36;

const HEADER_BYTES: usize = 40;

/// The answer to the first message of a mount.
pub(super) fn introduce(message: &[u8]) -> io::Result<Vec<u8>> {
    let word =
        |at| u32_at(message, at).ok_or_else(|| io::Error::other("the kernel says too little"));
    let unique = question(message).filter(|_| u32_at(message, 4) == Some(INIT));
    let unique = unique.ok_or_else(|| io::Error::other("the kernel does not introduce itself"))?;
    let (version, minor) = (word(HEADER_BYTES)?, word(HEADER_BYTES + 4)?);
    if version != VERSION || minor < MINOR_MIN {
        return Err(io::Error::other(format!(
            "the kernel speaks FUSE {version}.{minor}, not {VERSION}.{MINOR_MIN} or later"
        )));
    }
    let (read_ahead, low) = (word(HEADER_BYTES + 8)?, word(HEADER_BYTES + 12)?);
    // Older kernels end there.
    let high = u32_at(message, HEADER_BYTES + 16).unwrap_or(0);
    let offered = u64::from(high) << 32 | u64::from(low);
    let flags = offered
        & (BIG_WRITES | MAX_PAGES | ATOMIC_TRUNCATE | PARALLEL_FOLDERS | EXTENDED | DIRECT_IO_MAPS);
    let words = [
        VERSION,
        MINOR,
        read_ahead,
        flags as u32,
        // As many requests in the background as the kernel would have by itself.
        0,
        SHARED_DATA_BYTES_MAX as u32,
        // Times are in nanoseconds.
        1,
        (SHARED_DATA_BYTES_MAX / PAGE_BYTES) as u32,
        (flags >> 32) as u32,
    ];
    let mut content: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    content.extend([0; 28]);
    Ok(answer(unique, 0, &content))
}

/// Which message of the kernel this is, if it waits for an answer.
pub(super) fn question(message: &[u8]) -> Option<u64> {
    let opcode = u32_at(message, 4)?;
    let unique = u64_at(message, 8)?;
    (!matches!(opcode, FORGET | DESTROY | BATCH_FORGET)).then_some(unique)
}

/// Which message of the kernel this answers.
pub(super) fn answered(message: &[u8]) -> Option<u64> {
    u64_at(message, 8)
}

/// The answer that says why there is none.
pub(super) fn refusal(unique: u64, why: Errno) -> Vec<u8> {
    answer(unique, -why.raw_os_error(), &[])
}

fn answer(unique: u64, error: i32, content: &[u8]) -> Vec<u8> {
    let length = 16 + content.len() as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(error.to_ne_bytes());
    message.extend(unique.to_ne_bytes());
    message.extend(content);
    message
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(opcode: u32, words: &[u32]) -> Vec<u8> {
        let length = (HEADER_BYTES + 4 * words.len()) as u32;
        let header = [length, opcode, 77, 0, 0, 0, 0, 0, 1, 0];
        let words = header.iter().chain(words);
        words.flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32_at(bytes, at).unwrap()
    }

    #[test]
    fn a_kernel_is_told_what_it_may_do() {
        let offer = message(INIT, &[7, 38, 4096, u32::MAX, u32::MAX]);
        let answer = introduce(&offer).unwrap();
        assert_eq!((answer.len(), word(&answer, 0)), (16 + 64, 16 + 64));
        assert_eq!((word(&answer, 4), word(&answer, 8)), (0, 77));
        assert_eq!(word(&answer, 16), 7);
        assert_eq!(word(&answer, 16 + 20), 64 * 1024, "the largest write");
        // One that knows no flags beyond 32 bits is told of none.
        let earlier = message(INIT, &[7, 31, 4096, u32::MAX]);
        assert_eq!(word(&introduce(&earlier).unwrap(), 16 + 32), 0);
    }

    #[test]
    fn a_kernel_that_speaks_otherwise_is_refused() {
        for words in [
            &[7, 30, 0, 0][..],
            &[8, 0, 0, 0],
            &[6, 99, 0, 0],
            &[7, 38],
            &[],
        ] {
            assert!(introduce(&message(INIT, words)).is_err(), "{words:?}");
        }
        assert!(introduce(&message(1, &[7, 38, 0, 0])).is_err());
        assert!(introduce(&[]).is_err());
    }

    #[test]
    fn only_what_is_waited_for_is_answered() {
        assert_eq!(question(&message(1, &[])), Some(77));
        for told in [FORGET, DESTROY, BATCH_FORGET] {
            assert_eq!(question(&message(told, &[])), None, "{told}");
        }
        let refusal = refusal(77, Errno::NOTCONN);
        assert_eq!(answered(&refusal), Some(77));
        assert_eq!(word(&refusal, 4).cast_signed(), -libc::ENOTCONN);
        assert_eq!(answered(&refusal[..15]), None);
    }
}

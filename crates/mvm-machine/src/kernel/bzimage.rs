//! Finds the ELF kernel inside a compressed kernel image, so that QEMU boots it directly.
//!
//! The layout is in the kernel's `Documentation/arch/x86/boot.rst`: a boot sector with a setup header,
//! real-mode code, then a small decompressor which carries the compressed ELF. Booting the ELF by its
//! PVH entry point saves the guest that decompression: a quarter of a second (lz4) up to three (xz).

use std::borrow::Cow;
use std::io;

use object::elf::{FileHeader64, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::codec::{self, Codec};

/// A file could not be used as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelImageError {
    /// Neither an ELF file nor a bzImage.
    #[error("recognise it as an x86-64 kernel: it is neither an ELF file nor a bzImage")]
    NotAKernel,
    /// The file ends before the part its header points to, or the header is older than 2.08.
    #[error("read its setup header: {0}")]
    Header(&'static str),
    /// The compression is one of those the kernel's build offers, but not one read here.
    #[error(
        "unpack its payload: {0} is not read here; use gzip, xz, zstd or lz4, or give the vmlinux file"
    )]
    UnknownCompression(&'static str),
    /// The payload does not decode.
    #[error("unpack its payload: {0}")]
    Payload(#[from] io::Error),
    /// The ELF file is not one for this architecture.
    #[error("read it as an x86-64 ELF file: {0}")]
    Elf(String),
    /// QEMU cannot enter it.
    #[error(
        "find its PVH entry point: the kernel was built without CONFIG_PVH, so QEMU cannot start it directly"
    )]
    NoPvh,
    /// Its release, which names its modules, is not in it.
    #[error("find its release: there is no 'Linux version' in it")]
    NoRelease,
}

/// No kernel unpacks to more; Debian's cloud kernel is 53 MB.
const ELF_BYTES_MAX: usize = 512 << 20;

const ELF_MAGIC: &[u8] = b"\x7fELF";

/// The ELF file in a kernel image, which may be that ELF file already.
pub(crate) fn extract_elf(image: &[u8]) -> Result<Cow<'_, [u8]>, KernelImageError> {
    let kernel = if image.starts_with(ELF_MAGIC) {
        Cow::Borrowed(image)
    } else {
        Cow::Owned(unpack(payload(image)?)?)
    };
    check_entry_point(&kernel)?;
    Ok(kernel)
}

/// Where the setup header's fields lie, from the beginning of the file.
mod field {
    pub(super) const SETUP_SECTORS: usize = 0x1f1;
    pub(super) const MAGIC: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const PAYLOAD_OFFSET: usize = 0x248;
    pub(super) const PAYLOAD_LENGTH: usize = 0x24c;
}

const SECTOR_BYTES: usize = 512;

/// The first version of the boot protocol that says where the payload is.
const PROTOCOL_MIN: u16 = 0x0208;

fn payload(image: &[u8]) -> Result<&[u8], KernelImageError> {
    let bytes = |offset: usize, count: usize| image.get(offset..offset + count);
    let word = |offset| {
        let bytes = bytes(offset, 4).ok_or(KernelImageError::Header("the file is cut off"))?;
        Ok::<_, KernelImageError>(
            bytes
                .iter()
                .rev()
                .fold(0_usize, |number, byte| number << 8 | usize::from(*byte)),
        )
    };
    if bytes(field::MAGIC, 4) != Some(b"HdrS") {
        return Err(KernelImageError::NotAKernel);
    }
    let version = (word(field::VERSION)? & 0xffff) as u16;
    if version < PROTOCOL_MIN {
        return Err(KernelImageError::Header(
            "its boot protocol is older than 2.08",
        ));
    }
    // Zero sectors stand for four, a rule from the floppy days.
    let sectors = match word(field::SETUP_SECTORS)? & 0xff {
        0 => 4,
        sectors => sectors,
    };
    let begin = (sectors + 1) * SECTOR_BYTES + word(field::PAYLOAD_OFFSET)?;
    bytes(begin, word(field::PAYLOAD_LENGTH)?).ok_or(KernelImageError::Header(
        "its payload lies beyond the end of the file",
    ))
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, KernelImageError> {
    match payload {
        [0x02, 0x21, 0x4c, 0x18, ..] => {
            return Ok(codec::decode_lz4_legacy(payload, ELF_BYTES_MAX)?);
        }
        [b'B', b'Z', b'h', ..] => return Err(KernelImageError::UnknownCompression("bzip2")),
        [0x5d, 0, 0, ..] => return Err(KernelImageError::UnknownCompression("lzma")),
        [0x89, b'L', b'Z', b'O', ..] => return Err(KernelImageError::UnknownCompression("lzo")),
        _ => {}
    }
    match Codec::of(payload) {
        Codec::Plain if payload.starts_with(ELF_MAGIC) => Ok(payload.to_vec()),
        Codec::Plain => Err(KernelImageError::UnknownCompression("its compression")),
        codec => Ok(codec.decode(payload, ELF_BYTES_MAX as u64)?),
    }
}

/// The note that gives QEMU the 32-bit entry point (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_NOTE: (&[u8], u32) = (b"Xen", 18);

fn check_entry_point(kernel: &[u8]) -> Result<(), KernelImageError> {
    let broken = |error: object::Error| KernelImageError::Elf(error.to_string());
    let header = FileHeader64::<Endianness>::parse(kernel).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(KernelImageError::Elf(format!(
            "its machine number is {}",
            header.e_machine(endian)
        )));
    }
    for segment in header.program_headers(endian, kernel).map_err(broken)? {
        if segment.p_type(endian) != PT_NOTE {
            continue;
        }
        let Some(mut notes) = segment.notes(endian, kernel).map_err(broken)? else {
            continue;
        };
        while let Some(note) = notes.next().map_err(broken)? {
            if (note.name(), note.n_type(endian)) == PVH_NOTE {
                return Ok(());
            }
        }
    }
    Err(KernelImageError::NoPvh)
}

/// The release of an ELF kernel, as `uname -r` would print it.
pub(crate) fn release(kernel: &[u8]) -> Result<String, KernelImageError> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = kernel;
    // The words stand in format strings too, followed by `%s`.
    while let Some(position) = find(rest, BANNER) {
        rest = &rest[position + BANNER.len()..];
        let length = rest
            .iter()
            .take(128)
            .take_while(|byte| is_release_byte(**byte))
            .count();
        if length > 0 && rest[0].is_ascii_digit() {
            return Ok(String::from_utf8_lossy(&rest[..length]).into_owned());
        }
    }
    Err(KernelImageError::NoRelease)
}

fn is_release_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_+~".contains(&byte)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut begin = 0;
    while let Some(step) = haystack
        .get(begin..)?
        .iter()
        .position(|byte| *byte == first)
    {
        begin += step;
        if haystack[begin..].starts_with(needle) {
            return Some(begin);
        }
        begin += 1;
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The smallest ELF file that passes for a kernel: one note segment, then a banner.
    pub(crate) fn elf_kernel(note_name: &[u8; 4], machine: u16) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
        file[16..18].copy_from_slice(&2_u16.to_le_bytes());
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[20] = 1;
        file[32] = 64; // program headers
        file[52] = 64;
        file[54] = 56;
        file[56] = 1;
        let mut segment = vec![0; 56];
        segment[0] = 4; // PT_NOTE
        segment[8] = 120;
        segment[32] = 20;
        segment[40] = 20;
        segment[48] = 4;
        file.extend(segment);
        for word in [4_u32, 4, 18] {
            file.extend(word.to_le_bytes());
        }
        file.extend(note_name);
        file.extend([0; 4]);
        file.extend(b"Linux version %s Linux version 6.1.0-9-test (someone@somewhere)\0");
        file
    }

    /// A bzImage with one setup sector around a payload.
    pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[0x1f1] = 1;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        file[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        file.extend([0; 16]);
        file.extend(payload);
        file.extend([0; 100]);
        file
    }

    fn good() -> Vec<u8> {
        elf_kernel(b"Xen\0", 62)
    }

    #[test]
    fn the_elf_comes_out_of_every_wrapping() {
        let elf = good();
        let mut lz4 = codec::LZ4_LEGACY_MAGIC.to_vec();
        let block = lz4_flex::block::compress(&elf);
        lz4.extend((block.len() as u32).to_le_bytes());
        lz4.extend(block);
        lz4.extend((elf.len() as u32).to_le_bytes());
        let mut zstd = zstd::encode_all(&elf[..], 1).unwrap();
        zstd.extend((elf.len() as u32).to_le_bytes());
        for payload in [elf.clone(), lz4, zstd] {
            assert_eq!(*extract_elf(&bzimage(&payload)).unwrap(), elf);
        }
        assert_eq!(*extract_elf(&elf).unwrap(), elf);
        assert_eq!(release(&elf).unwrap(), "6.1.0-9-test");
    }

    #[track_caller]
    fn refuses(image: &[u8], expected: &str) {
        let message = extract_elf(image).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn bad_images_are_refused() {
        let image = bzimage(&good());
        refuses(b"", "neither an ELF file nor a bzImage");
        refuses(b"#!/bin/sh\n", "neither an ELF file nor a bzImage");
        refuses(&image[..0x24a], "cut off");
        refuses(&image[..1100], "beyond the end");
        refuses(&bzimage(b"BZh91AY"), "bzip2");
        refuses(&bzimage(b"\x5d\0\0\0\x01"), "lzma");
        refuses(&bzimage(b"unheard of"), "its compression is not read here");
        refuses(
            &bzimage(&[0xfd, b'7', b'z', b'X', b'Z', 0, 1]),
            "unpack its payload",
        );
        refuses(&elf_kernel(b"GNU\0", 62), "CONFIG_PVH");
        refuses(&elf_kernel(b"Xen\0", 183), "machine number is 183");
        refuses(&good()[..70], "ELF");
        let mut old = image;
        old[0x206] = 7;
        refuses(&old, "older than 2.08");
        assert!(release(b"no banner, Linux version %s only").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_damaged_image_never_panics(position in 0..1500_usize, byte in any::<u8>(), cut in 0..1500_usize, wrapped in any::<bool>()) {
            let mut image = if wrapped { bzimage(&good()) } else { good() };
            if let Some(place) = image.get_mut(position) {
                *place = byte;
            }
            image.truncate(cut);
            let _ = extract_elf(&image);
            let _ = release(&image);
        }
    }
}

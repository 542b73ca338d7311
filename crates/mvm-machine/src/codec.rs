//! The compressions met in packages, kernels and modules: told by their magic, undone within bounds.

use std::io::{self, BufRead, Read};

/// How much memory an xz stream may ask for; `xz -9` needs 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 256 << 20;

/// A compression, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

impl Codec {
    /// Tells the compression by the first bytes.
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Codec::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Codec::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
            _ => Codec::Plain,
        }
    }

    /// Reads one compressed stream; what follows the stream is left alone.
    pub(crate) fn reader<'a>(self, input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Codec::Plain => Box::new(input),
            Codec::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
            Codec::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, 0)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Codec::Zstd => Box::new(zstd::Decoder::with_buffer(input)?.single_frame()),
        })
    }

    /// Undoes the compression of a whole file in memory.
    pub(crate) fn decode(self, input: &[u8], bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        Bounded::new(self.reader(input)?, bytes_max).read_to_end(&mut output)?;
        Ok(output)
    }
}

/// Undoes the lz4 "legacy" framing which the kernel's build uses: a magic, then blocks with their lengths.
///
/// The kernel appends the plain size as four more bytes, which look like one more block's length.
pub(crate) fn decode_lz4_legacy(input: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    const BLOCK_BYTES: usize = 8 << 20;
    let broken = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut rest = input
        .strip_prefix(&LZ4_LEGACY_MAGIC)
        .ok_or_else(|| broken("not an lz4 legacy stream"))?;
    let mut output = Vec::new();
    while let Some((length, following)) = rest.split_first_chunk::<4>() {
        if following.is_empty() {
            break;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let block = following
            .get(..length)
            .ok_or_else(|| broken("an lz4 block is cut off"))?;
        let begin = output.len();
        if begin + BLOCK_BYTES > bytes_max {
            return Err(too_long(bytes_max as u64));
        }
        output.resize(begin + BLOCK_BYTES, 0);
        let count = lz4_flex::block::decompress_into(block, &mut output[begin..])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        output.truncate(begin + count);
        rest = &following[length..];
    }
    Ok(output)
}

pub(crate) const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// A reader that fails, rather than ends, once more than a bound has been read.
pub(crate) struct Bounded<R> {
    inner: R,
    bytes_max: u64,
    left: u64,
}

impl<R: Read> Bounded<R> {
    pub(crate) fn new(inner: R, bytes_max: u64) -> Self {
        Bounded {
            inner,
            bytes_max,
            left: bytes_max,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(too_long(self.bytes_max)),
        }
        Ok(count)
    }
}

fn too_long(bytes_max: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unpacks to more than {bytes_max} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(content: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn lz4_legacy(content: &[u8]) -> Vec<u8> {
        let mut stream = LZ4_LEGACY_MAGIC.to_vec();
        let block = lz4_flex::block::compress(content);
        stream.extend((block.len() as u32).to_le_bytes());
        stream.extend(block);
        stream.extend((content.len() as u32).to_le_bytes());
        stream
    }

    #[track_caller]
    fn check(packed: &[u8], expected: Codec) {
        assert_eq!(Codec::of(packed), expected);
        let mut trailed = packed.to_vec();
        if expected != Codec::Plain {
            trailed.extend([1, 2, 3, 4]);
        }
        assert_eq!(expected.decode(&trailed, 1 << 20).unwrap(), b"content");
        let bound = expected.decode(packed, 3).unwrap_err().to_string();
        assert!(bound.contains("more than 3 bytes"), "{bound}");
    }

    #[test]
    fn every_codec_is_told_and_undone() {
        check(b"content", Codec::Plain);
        check(&gzip(b"content"), Codec::Gzip);
        check(&xz(b"content"), Codec::Xz);
        check(&zstd::encode_all(&b"content"[..], 1).unwrap(), Codec::Zstd);
        assert_eq!(
            decode_lz4_legacy(&lz4_legacy(b"content"), 1 << 30).unwrap(),
            b"content"
        );
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        for packed in [
            gzip(&[7; 999]),
            xz(&[7; 999]),
            zstd::encode_all(&[7; 999][..], 1).unwrap(),
        ] {
            let cut = &packed[..packed.len() - 5];
            assert!(Codec::of(cut).decode(cut, 1 << 20).is_err());
        }
        let packed = lz4_legacy(&[7; 999]);
        assert!(decode_lz4_legacy(&packed[..packed.len() - 9], 1 << 30).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn garbage_is_refused_quietly(content in proptest::collection::vec(any::<u8>(), 0..300), magic in 0..4) {
            let magic: &[u8] = match magic {
                0 => &[0x1f, 0x8b, 8],
                1 => &[0xfd, b'7', b'z', b'X', b'Z', 0],
                2 => &[0x28, 0xb5, 0x2f, 0xfd],
                _ => &LZ4_LEGACY_MAGIC,
            };
            let packed = [magic, &content].concat();
            let _ = Codec::of(&packed).decode(&packed, 1 << 20);
            let _ = decode_lz4_legacy(&packed, 16 << 20);
        }
    }
}

//! Writes the read-only disk that all machines share: a squashfs whose blocks are stored, not compressed.
//!
//! Stored, because an emulated guest unpacks at some 20 MB/s and the host's page cache holds one copy for
//! all; and writing a program of 100 MB then takes no longer than copying it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufWriter,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use backhand::{
    BackhandError, FilesystemCompressor, FilesystemWriter, NodeHeader, SuperBlock,
    compression::{CompressionAction, Compressor},
    kind::Kind,
};

use crate::files::{self, FileError, Naming};

/// The largest squashfs allows: fewer requests for a guest that reads a program.
const BLOCK_BYTES: u32 = 1 << 20;

/// The image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SharedImageError {
    /// The file system could not be put together.
    #[error("could not write the shared disk {path:?}: {reason}")]
    Write {
        /// The image's file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Claims every block to grow, so that the writer stores it as it is.
struct Stored;

impl CompressionAction for Stored {
    type Error = BackhandError;
    type Compressor = Compressor;
    type FilesystemCompressor = FilesystemCompressor;
    type SuperBlock = SuperBlock;

    fn decompress(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        _: Compressor,
    ) -> Result<(), BackhandError> {
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn compress(
        &self,
        bytes: &[u8],
        _: FilesystemCompressor,
        _: u32,
    ) -> Result<Vec<u8>, BackhandError> {
        Ok(vec![0; bytes.len() + 1])
    }
}

/// Writes an image of `content`, guest paths to host files, to `path`.
pub(crate) fn write(
    path: &Path,
    content: &BTreeMap<String, PathBuf>,
) -> Result<(), SharedImageError> {
    let failed = |error: BackhandError| SharedImageError::Write {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut writer = FilesystemWriter::default();
    writer.set_kind(Kind::new_v4(&Stored));
    // The superblock must name a compressor the kernel knows, though no block uses it.
    writer.set_compressor(FilesystemCompressor::new(Compressor::Zstd, None).map_err(failed)?);
    writer.set_block_size(BLOCK_BYTES);
    writer.set_root_mode(0o755);
    writer.set_only_root_id();
    writer.set_emit_compression_options(false);
    for (guest, host) in content {
        let metadata = std::fs::metadata(host).naming("examine", host)?;
        let mode = if metadata.permissions().mode() & 0o111 == 0 {
            0o644
        } else {
            0o755
        };
        if let Some(parent) = Path::new(guest).parent() {
            writer
                .push_dir_all(parent, NodeHeader::new(0o755, 0, 0, 0))
                .map_err(failed)?;
        }
        writer
            .push_file_from_path(host, guest, NodeHeader::new(mode, 0, 0, 0))
            .map_err(failed)?;
    }
    let mut file = BufWriter::new(files::create(path)?);
    writer.write(&mut file).map_err(failed)?;
    let file: File = file
        .into_inner()
        .map_err(|error| error.into_error())
        .naming("write", path)?;
    file.sync_all()
        .naming("flush", path)
        .map_err(SharedImageError::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use backhand::{FilesystemReader, InnerNode};

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&source, &bytes).unwrap();
        let image = folder.path().join("image");
        write(
            &image,
            &BTreeMap::from([("/usr/bin/program".to_owned(), source)]),
        )
        .unwrap();
        let reader = FilesystemReader::from_reader_with_offset_and_kind(
            std::io::BufReader::new(File::open(&image).unwrap()),
            0,
            Kind::new_v4(&Stored),
        )
        .unwrap();
        let file = reader
            .files()
            .find(|node| node.fullpath == Path::new("/usr/bin/program"))
            .unwrap();
        let InnerNode::File(file) = &file.inner else {
            panic!("not a file")
        };
        let mut read = Vec::new();
        reader.file(file).reader().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let content = BTreeMap::from([("/a".to_owned(), PathBuf::from("/no/such/file"))]);
        let error = write(&folder.path().join("image"), &content).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("could not examine /no/such/file"),
            "{error}"
        );
    }
}

//! The guest agent's static binary, built by this crate's build script and embedded here.

/// The binary: PID 1 of every guest, and the watcher on the host.
pub const BYTES: &[u8] = include_bytes!(env!("MVM_AGENT_BINARY"));

#[cfg(test)]
mod tests {
    use object::{
        LittleEndian, elf,
        read::elf::{FileHeader, ProgramHeader},
    };

    use super::*;

    #[test]
    fn it_is_small_and_static() {
        assert!(
            BYTES.len() <= 2 << 20,
            "the agent has {} bytes, 2 MiB is the most",
            BYTES.len()
        );
        let header = elf::FileHeader64::<LittleEndian>::parse(BYTES).unwrap();
        let segments = header.program_headers(LittleEndian, BYTES).unwrap();
        assert!(
            segments
                .iter()
                .all(|segment| segment.p_type(LittleEndian) != elf::PT_INTERP)
        );
    }
}

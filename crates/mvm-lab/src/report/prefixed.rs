//! Lines of several runs on one output, each behind the name of its run.

use std::io::{self, Write};

/// Writes whole lines to an output, each behind a name.
#[derive(Debug)]
pub struct Prefixed<W> {
    output: W,
    name: String,
    begun: Vec<u8>,
}

impl<W: Write> Prefixed<W> {
    /// Puts `name` before each line that is written to `output`.
    pub fn new(name: impl Into<String>, output: W) -> Prefixed<W> {
        Prefixed {
            output,
            name: name.into(),
            begun: Vec::new(),
        }
    }
}

impl<W: Write> Write for Prefixed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let mut line = format!("{} | ", self.name).into_bytes();
            line.extend(self.begun.drain(..=end));
            // In one piece, so that lines of others do not come between.
            self.output.write_all(&line)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_name() {
        let mut written = Vec::new();
        let mut prefixed = Prefixed::new("net", &mut written);
        prefixed.write_all(b"one\nt").unwrap();
        prefixed.write_all(b"wo\n").unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "net | one\nnet | two\n"
        );
    }
}

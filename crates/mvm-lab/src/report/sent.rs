//! A report whose lines go to somebody else, who shows them.

use std::io::{self, Write};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Sends what is written to it, line by line.
#[derive(Debug)]
pub struct Sent {
    sender: UnboundedSender<String>,
    begun: Vec<u8>,
}

impl Sent {
    /// Returns it, and where its lines arrive.
    pub fn new() -> (Sent, UnboundedReceiver<String>) {
        let (sender, receiver) = unbounded_channel();
        let begun = Vec::new();
        (Sent { sender, begun }, receiver)
    }
}

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = String::from_utf8_lossy(&self.begun).into_owned();
                    self.begun.clear();
                    // Nobody may be left to show it.
                    let _ = self.sender.send(line);
                }
                byte => self.begun.push(*byte),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_whole() {
        let (mut lines, mut received) = Sent::new();
        lines.write_all(b"one\nt").unwrap();
        lines.write_all(b"wo\n\nrest").unwrap();
        drop(lines);
        let all: Vec<String> = std::iter::from_fn(|| received.try_recv().ok()).collect();
        assert_eq!(all, ["one", "two", ""]);
    }
}

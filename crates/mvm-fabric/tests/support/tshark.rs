//! What Wireshark's `tshark` makes of a packet capture: a file is right if others can read it.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is asked of each packet, in the order of [`Packet::parse`].
const FIELDS: [&str; 6] = [
    "frame.interface_name",
    "frame.packet_flags_direction",
    "frame.comment",
    "frame.time_epoch",
    "frame.len",
    "data.data",
];

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) interface: String,
    /// `inbound`, `outbound`, or why it was dropped.
    pub(crate) fate: String,
    /// Seconds since 1970, to the nanosecond.
    pub(crate) time: String,
    pub(crate) frame_bytes: usize,
    /// Of the frame, if it has one.
    pub(crate) number: Option<u32>,
}

impl Packet {
    fn parse(line: &str) -> Packet {
        let fields: Vec<&str> = line.split('\t').collect();
        let [interface, direction, comment, time, frame_bytes, data] = fields[..] else {
            panic!("tshark prints {line:?}");
        };
        Packet {
            interface: interface.to_owned(),
            fate: fate(direction, comment),
            time: time.to_owned(),
            frame_bytes: frame_bytes.parse().unwrap(),
            number: data
                .get(..8)
                .map(|digits| u32::from_str_radix(digits, 16).unwrap()),
        }
    }

    /// As one line: interface, fate, number.
    pub(crate) fn line(&self) -> String {
        let number = self.number.map_or("-".to_owned(), |n| n.to_string());
        format!("{} {} {number}", self.interface, self.fate)
    }
}

#[track_caller]
fn fate(direction: &str, comment: &str) -> String {
    match (direction, comment) {
        ("0x00000001", "") => "inbound".to_owned(),
        ("0x00000002", "") => "outbound".to_owned(),
        ("", dropped) => dropped.to_owned(),
        both => panic!("a packet is told to be {both:?}"),
    }
}

/// All packets of a file, which must be whole.
#[track_caller]
pub(crate) fn packets(file: &Path) -> Vec<Packet> {
    try_packets(file).unwrap_or_else(|complaints| panic!("tshark: {complaints}"))
}

/// All packets of a file; if it is not whole, what tshark says of it.
#[track_caller]
pub(crate) fn try_packets(file: &Path) -> Result<Vec<Packet>, String> {
    let mut command = Command::new("tshark");
    command.args(["-T", "fields"]).arg("-r").arg(file);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => panic!(
            "this test reads a packet capture with tshark, which is in no folder of PATH; as root: \
             apt-get install --no-install-recommends tshark"
        ),
        Err(error) => panic!("tshark could not be started: {error}"),
    };
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    Ok(text.lines().map(Packet::parse).collect())
}

/// The packets of a file as lines.
#[track_caller]
pub(crate) fn lines(file: &Path) -> Vec<String> {
    packets(file).iter().map(Packet::line).collect()
}

/// The numbers of the packets with an interface and fate.
pub(crate) fn numbers(packets: &[Packet], interface: &str, fate: &str) -> Vec<u32> {
    packets
        .iter()
        .filter(|packet| packet.interface == interface && packet.fate == fate)
        .map(|packet| packet.number.unwrap())
        .collect()
}

//! What guests say, for people: each line with its machine's name, in its machine's colour.

use std::{collections::BTreeMap, io::Write};

use super::Colours;
use crate::event::{Line, LineListener};

/// ANSI colours that are legible on black and on white.
const COLOURS: [u8; 6] = [36, 35, 34, 32, 33, 31];

/// Writes every line that the guests say to `output`.
pub fn lines(mut output: impl Write + Send + 'static, colours: Colours) -> LineListener {
    let mut places = BTreeMap::new();
    Box::new(move |line| {
        let next = places.len();
        let place = *places.entry(line.machine.to_owned()).or_insert(next);
        let colour = match colours {
            Colours::On => Some(COLOURS[place % COLOURS.len()]),
            Colours::Off => None,
        };
        // A reader that has gone away (a broken pipe) does not end the run.
        let _ = writeln!(output, "{}", told(line, colour)).and_then(|()| output.flush());
    })
}

fn told(line: &Line<'_>, colour: Option<u8>) -> String {
    let Line {
        machine,
        service,
        text,
    } = line;
    let source = service.map(|service| format!(" {service}"));
    let source = format!("{machine}{} |", source.unwrap_or_default());
    match colour {
        Some(code) => format!("\u{1b}[{code}m{source}\u{1b}[0m {text}"),
        None => format!("{source} {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(service: Option<&str>, colour: Option<u8>, expected: &str) {
        let line = Line {
            machine: "node1",
            service,
            text: "ready",
        };
        assert_eq!(told(&line, colour), expected);
    }

    #[test]
    fn a_line_tells_who_says_it() {
        check(None, None, "node1 | ready");
        check(Some("web"), None, "node1 web | ready");
        check(
            Some("web"),
            Some(36),
            "\u{1b}[36mnode1 web |\u{1b}[0m ready",
        );
    }
}

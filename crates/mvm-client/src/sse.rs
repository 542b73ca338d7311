//! Reads server-sent events from bytes as they come, as the
//! [standard](https://html.spec.whatwg.org/multipage/server-sent-events.html) has it. `retry` is passed over: the pauses are ours.

/// An event is smaller than this: a job with payload and result, or 64 KiB of output, escaped.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Event {
    /// What sort; `message` if the server does not say.
    pub(crate) name: String,
    pub(crate) data: String,
    /// Where to go on after it, as of the latest event that said.
    pub(crate) id: Option<String>,
}

/// An event is too large.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an event has more than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLarge;

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// A line feed that comes now belongs to the carriage return before.
    after_return: bool,
    begun: bool,
    name: String,
    data: String,
    id: Option<String>,
}

impl Parser {
    /// Takes bytes, and adds the events that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLarge> {
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                byte if self.line.len() + self.data.len() < EVENT_BYTES_MAX => {
                    self.line.push(*byte);
                }
                _ => return Err(TooLarge),
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let mut text = &*text;
        if !std::mem::replace(&mut self.begun, true) {
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
        }
        if text.is_empty() {
            return self.dispatch();
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // Comments, whose field is empty, among them.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        // Each line ended with one.
        data.pop()?;
        Some(Event {
            name: match name.as_str() {
                "" => "message".to_owned(),
                _ => name,
            },
            data,
            id: self.id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for part in parts {
            parser.feed(part, &mut events).unwrap();
        }
        events
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str, Option<&str>)]) {
        let found = read(&[text.as_bytes()]);
        let found: Vec<_> = found
            .iter()
            .map(|event| (&*event.name, &*event.data, event.id.as_deref()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        check(
            "event: chunk\nid: 1:4\ndata: {\"a\": 1}\n\n",
            &[("chunk", "{\"a\": 1}", Some("1:4"))],
        );
        check(
            "data:a\ndata\ndata:  b\n\n",
            &[("message", "a\n\n b", None)],
        );
        check(": beat\n\n:\n\nevent: x\n\n", &[]);
        check(
            "\u{feff}data: a\r\n\r\ndata: b\r\rid: 7\n\ndata: c\n\n",
            &[
                ("message", "a", None),
                ("message", "b", None),
                ("message", "c", Some("7")),
            ],
        );
        check(
            "retry: 5\nnew: field\ndata: a\n\ndata: cut off",
            &[("message", "a", None)],
        );
        check("id: bad\0\ndata: a\n\n", &[("message", "a", None)]);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let part = [b'x'; 1 << 16];
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let mut feed = |bytes: &[u8]| parser.feed(bytes, &mut events);
        assert_eq!(feed(b"data: "), Ok(()));
        let taken = (0..100).take_while(|_| feed(&part).is_ok()).count();
        assert_eq!(taken, EVENT_BYTES_MAX / part.len() - 1);
        let (mut parser, line) = (Parser::default(), [b"data: ", &part[..], b"\n"].concat());
        let taken = (0..100).take_while(|_| parser.feed(&line, &mut events).is_ok());
        assert!(taken.count() < 100, "many lines are too large as well");
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_does_not_matter(
            text in "(event: ?[a-z]{0,3}|id: [0-9]|data:[ a\u{e9}]{0,4}|:|\n|\r|\r\n){0,30}",
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = text.as_bytes();
            let (front, back) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(read(&[bytes]), read(&[front, back]));
        }
    }
}

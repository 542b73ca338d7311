//! Shell texts as far as one can be read without being run: which programs it calls, and with which words. Variables,
//! functions and whatever else a shell would make of it stay what they are.

/// Programs in front of the one that is run, and the shell's own words.
const PREFIXES: [&str; 15] = [
    "sudo", "doas", "env", "exec", "command", "nohup", "time", "timeout", "do", "then", "else",
    "if", "while", "{", "!",
];

/// A program, without its folder, and what it is called with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

impl Call {
    /// Tells whether this holds of one of the arguments.
    pub(super) fn has(&self, holds: impl Fn(&str) -> bool) -> bool {
        self.arguments.iter().any(|word| holds(word))
    }
}

/// The calls of a shell text, in their order, those of `sh -c` inside it too.
pub(super) fn calls(text: &str) -> Vec<Call> {
    commands(text).into_iter().flat_map(calls_of).collect()
}

fn calls_of(words: Vec<String>) -> Vec<Call> {
    let is_prefix = |word: &String| {
        PREFIXES.contains(&word.as_str())
            || word.starts_with('-')
            || word.starts_with(|first: char| first.is_ascii_digit())
            || word.contains('=')
    };
    let mut words = words.into_iter().skip_while(is_prefix);
    let Some(program) = words.next() else {
        return Vec::new();
    };
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    match program.as_str() {
        "bash" | "sh" => words
            .skip_while(|word| !word.starts_with('-') || !word.ends_with('c'))
            .nth(1)
            .map_or_else(Vec::new, |script| calls(&script)),
        _ => vec![Call {
            program,
            arguments: words.collect(),
        }],
    }
}

/// The words of each command of a shell text, without their quotes; whatever a shell would make of the rest.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match characters.next() {
                None | Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '#') if word.is_none() => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            (None, '\n' | ';' | '&' | '|' | '(' | ')' | '`') => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let told: Vec<String> = calls(text)
            .into_iter()
            .map(|call| format!("{} {}", call.program, call.arguments.join("|")))
            .collect();
        assert_eq!(told, expected, "{text:?}");
    }

    #[test]
    fn calls_are_found_wherever_a_shell_has_them() {
        check("", &[]);
        check("tc qdisc", &["tc qdisc"]);
        check("A=b sudo -n /sbin/tc 'a b' \"c\"d", &["tc a b|cd"]);
        check(
            "a 1 && b 2 || c 3; d | e\nf &",
            &["a 1", "b 2", "c 3", "d ", "e ", "f "],
        );
        check("if x; then y; fi # z", &["x ", "y ", "fi "]);
        check("timeout 5 bash -ec 'a \\\n b; c'", &["a b", "c "]);
        check("echo 'a; b' $(c \\; d)", &["echo a; b|$", "c ;|d"]);
        check("echo 'open", &["echo open"]);
    }
}

//! What a scenario submitted and was told, and what a node may therefore list.

use std::collections::BTreeMap;

use super::api::Submitted;

/// Every submission by its URL, with the last thing its submitter was told.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    submissions: BTreeMap<String, Submitted>,
}

impl Ledger {
    /// A later refusal says nothing of an earlier attempt whose outcome is unknown.
    pub(super) fn record(&mut self, url: String, submitted: Submitted) {
        let known = self.submissions.entry(url).or_insert(submitted.clone());
        match (&known, &submitted) {
            (Submitted::Accepted, _) | (Submitted::Unknown, Submitted::Refused) => {}
            _ => *known = submitted,
        }
    }

    pub(super) fn count(&self, kind: &Submitted) -> usize {
        self.submissions
            .values()
            .filter(|submitted| *submitted == kind)
            .count()
    }

    /// Compares a node's listing with what was promised; the error names every difference.
    ///
    /// Accepted jobs are there exactly once, refused ones never, and those of unknown outcome at most once.
    pub(super) fn check(&self, listed: &[String]) -> Result<(), String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for url in listed {
            *counts.entry(url).or_default() += 1;
        }
        let mut differences = Vec::new();
        for (url, submitted) in &self.submissions {
            let count = counts.remove(url.as_str()).unwrap_or(0);
            let promised = match submitted {
                Submitted::Accepted => count == 1,
                Submitted::Refused => count == 0,
                Submitted::Unknown => count <= 1,
            };
            if !promised {
                differences.push(format!("{url} ({submitted:?}) is listed {count} times"));
            }
        }
        differences.extend(
            counts
                .keys()
                .map(|url| format!("{url} was never submitted")),
        );
        if differences.is_empty() {
            Ok(())
        } else {
            Err(differences.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listed: &[&str], expected: &str) {
        let mut ledger = Ledger::default();
        ledger.record("a".into(), Submitted::Accepted);
        ledger.record("r".into(), Submitted::Refused);
        ledger.record("u".into(), Submitted::Unknown);
        let listed: Vec<String> = listed.iter().map(|url| (*url).to_owned()).collect();
        assert_eq!(ledger.check(&listed).err().unwrap_or_default(), expected);
    }

    #[test]
    fn a_refusal_does_not_undo_what_was_said_before() {
        for (earlier, expected) in [
            (Submitted::Unknown, Submitted::Unknown),
            (Submitted::Accepted, Submitted::Accepted),
            (Submitted::Refused, Submitted::Refused),
        ] {
            let mut ledger = Ledger::default();
            ledger.record("a".into(), earlier);
            ledger.record("a".into(), Submitted::Refused);
            assert_eq!(ledger.count(&expected), 1);
        }
    }

    #[test]
    fn promises_are_held_to_the_letter() {
        check(&["a"], "");
        check(&["a", "u"], "");
        check(&[], "a (Accepted) is listed 0 times");
        check(&["a", "a"], "a (Accepted) is listed 2 times");
        check(&["a", "r"], "r (Refused) is listed 1 times");
        check(&["a", "u", "u"], "u (Unknown) is listed 2 times");
        check(&["a", "x"], "x was never submitted");
    }
}

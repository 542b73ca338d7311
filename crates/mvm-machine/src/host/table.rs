//! The survey as aligned plain text. Colour is the caller's: it is handed each state with its padded word.

use std::fmt::{self, Write};

use super::distribution::Support;
use super::finding::{Finding, Necessity, State};
use super::survey::Survey;

impl Survey {
    /// Renders the table; `paint` may wrap a state's word in colour but must keep its width.
    #[must_use]
    pub fn table(&self, paint: impl Fn(State, &str) -> String) -> String {
        let names = self
            .findings
            .iter()
            .map(|finding| finding.requirement.label().len())
            .max()
            .unwrap_or(0);
        let states = self
            .findings
            .iter()
            .map(|finding| finding.state.label().len())
            .max()
            .unwrap_or(0);
        let mut text = format!(
            "host: {}{}\n",
            self.distribution.name,
            promise(self.distribution.support)
        );
        for finding in &self.findings {
            let word = format!("{:states$}", finding.state.label());
            let line = format!(
                "{:names$}  {}  {}",
                finding.requirement.label(),
                paint(finding.state, &word),
                finding.found
            );
            text.push_str(line.trim_end());
            text.push('\n');
            push_details(&mut text, finding, names + states + 4);
        }
        text
    }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table(|_, word| word.to_owned()))
    }
}

fn promise(support: Support) -> &'static str {
    match support {
        Support::Supported => "",
        Support::UntestedRelative => {
            " (untested; Debian 12 and Ubuntu 24.04 or newer are supported)"
        }
        Support::Unsupported => " (unsupported; Debian 12 and Ubuntu 24.04 or newer are supported)",
    }
}

/// What is lost and how to get it, below a finding that is not ok.
fn push_details(text: &mut String, finding: &Finding, indent: usize) {
    if finding.state == State::Ok {
        return;
    }
    let necessity = match finding.necessity {
        Necessity::Required => "needed",
        Necessity::Advised => "optional",
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{:indent$}{necessity}: without it, {}",
        "", finding.without
    );
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "{:indent$}to get it: {}", "", remedy.advice);
    }
}

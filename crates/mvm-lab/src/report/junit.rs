//! Events as JUnit XML, which CI systems show: a run is a suite, a step is a case.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::{
    event::{Event, Listener, StepOutcome},
    node::lock,
    verdict::Verdict,
};

/// Suites of runs, filled while they run.
#[derive(Clone, Default)]
pub struct Junit {
    suites: Arc<Mutex<Vec<TestSuite>>>,
}

impl Junit {
    /// Returns a listener that adds one run as a suite under this name.
    pub fn listener(&self, name: &str) -> Listener {
        let suites = Arc::clone(&self.suites);
        let mut suite = TestSuite::new(name);
        Box::new(move |stamped| match &stamped.event {
            Event::StepEnded {
                step,
                outcome,
                duration_ms,
            } => {
                let status = match outcome {
                    StepOutcome::Passed => TestCaseStatus::success(),
                    StepOutcome::Failed { verdict, message } => unpassed(*verdict, message),
                };
                add(&mut suite, step, status, *duration_ms);
            }
            Event::RunEnded {
                verdict,
                message,
                duration_ms,
            } => {
                let told = suite.failures + suite.errors > 0;
                // What ended a run outside of its steps, and a run without any, are a case of their own.
                if suite.tests == 0 || (*verdict != Verdict::Passed && !told) {
                    let status = match verdict {
                        Verdict::Passed => TestCaseStatus::success(),
                        verdict => unpassed(*verdict, message.as_deref().unwrap_or_default()),
                    };
                    add(&mut suite, "the run", status, *duration_ms);
                }
                suite.set_time(Duration::from_millis(*duration_ms));
                lock(&suites).push(suite.clone());
            }
            _ => {}
        })
    }

    /// Returns the suites of all runs that have ended.
    ///
    /// # Errors
    ///
    /// If they cannot be written as XML.
    pub fn xml(&self) -> Result<String, quick_junit::SerializeError> {
        let mut report = Report::new("mvm-ci");
        report.add_test_suites(lock(&self.suites).iter().cloned());
        report.to_string()
    }
}

fn add(suite: &mut TestSuite, name: &str, status: TestCaseStatus, duration_ms: u64) {
    let mut case = TestCase::new(name, status);
    case.set_classname(suite.name.clone());
    case.set_time(Duration::from_millis(duration_ms));
    suite.add_test_case(case);
}

/// A broken promise is a failure, trouble of the lab an error.
fn unpassed(verdict: Verdict, message: &str) -> TestCaseStatus {
    let kind = match verdict {
        Verdict::Failed => NonSuccessKind::Failure,
        _ => NonSuccessKind::Error,
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(headline(message));
    status.set_type(verdict.word());
    status.set_description(message);
    status
}

/// What went wrong, in a line: of a traceback the error itself, without what led to it and what it showed.
fn headline(message: &str) -> &str {
    let leads_to_it = |line: &&str| line.starts_with(' ') || line.starts_with("Traceback (");
    message
        .lines()
        .find(|line| !leads_to_it(line))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stamped;

    fn step(name: &str, outcome: StepOutcome) -> Event {
        Event::StepEnded {
            step: name.to_owned(),
            outcome,
            duration_ms: 1500,
        }
    }

    fn ended(verdict: Verdict, message: Option<&str>) -> Event {
        Event::RunEnded {
            verdict,
            message: message.map(str::to_owned),
            duration_ms: 2000,
        }
    }

    /// The lines of suites and cases; the report's own identifier is random.
    #[track_caller]
    fn check(runs: &[(&str, Vec<Event>)], expected: &[&str]) {
        let junit = Junit::default();
        for (name, events) in runs {
            let mut listener = junit.listener(name);
            for event in events {
                listener(&Stamped {
                    at_ms: 0.0,
                    event: event.clone(),
                });
            }
        }
        let xml = junit.xml().unwrap();
        let kinds = ["<testsuite ", "<testcase ", "<failure ", "<error "];
        let lines: Vec<&str> = xml
            .lines()
            .map(str::trim)
            .filter(|line| kinds.iter().any(|kind| line.starts_with(kind)))
            .collect();
        assert_eq!(lines, expected, "{xml}");
    }

    #[test]
    fn steps_are_cases() {
        let broken = StepOutcome::Failed {
            verdict: Verdict::Failed,
            message: "1 < 2".to_owned(),
        };
        check(
            &[(
                "net",
                vec![
                    step("up", StepOutcome::Passed),
                    step("ping", broken),
                    ended(Verdict::Failed, Some("1 < 2")),
                ],
            )],
            &[
                r#"<testsuite name="net" tests="2" skipped="0" errors="0" failures="1" time="2.000">"#,
                r#"<testcase name="up" classname="net" time="1.500"/>"#,
                r#"<testcase name="ping" classname="net" time="1.500">"#,
                r#"<failure message="1 &lt; 2" type="failed">1 &lt; 2</failure>"#,
            ],
        );
    }

    #[test]
    fn a_failure_is_headed_by_the_error() {
        const ERROR: &str = "Failed: `x` ended with exit code 1";
        for message in [
            ERROR.to_owned(),
            format!("{ERROR}\n  stdout: 1\n2\n  stderr: why"),
            format!(
                "Traceback (most recent call last):\n  File \"a.py\"\n    x()\n{ERROR}\n  stderr: why"
            ),
        ] {
            assert_eq!(headline(&message), ERROR, "{message}");
        }
        assert_eq!(headline(""), "");
    }

    #[test]
    fn a_run_without_steps_is_a_case() {
        check(
            &[
                ("plain", vec![ended(Verdict::Passed, None)]),
                ("unfit", vec![ended(Verdict::Unfit, Some("no QEMU"))]),
            ],
            &[
                r#"<testsuite name="plain" tests="1" skipped="0" errors="0" failures="0" time="2.000">"#,
                r#"<testcase name="the run" classname="plain" time="2.000"/>"#,
                r#"<testsuite name="unfit" tests="1" skipped="0" errors="1" failures="0" time="2.000">"#,
                r#"<testcase name="the run" classname="unfit" time="2.000">"#,
                r#"<error message="no QEMU" type="environment unfit">no QEMU</error>"#,
            ],
        );
    }
}

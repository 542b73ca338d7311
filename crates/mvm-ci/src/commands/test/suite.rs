//! Several runs on one host: so many at once, the longest first, none hidden by another.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    io::IsTerminal,
    num::NonZeroUsize,
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use indicatif::MultiProgress;
use mvm_lab::{
    durations::Durations,
    event::Listener,
    report::{self, Junit, Prefixed},
    runner::{self, Report, RunOptions, Stay},
    scenario::Scenario,
    seed::Seed,
    verdict::Verdict,
};
use mvm_machine::{cache::Cache, pool::Pool};

use super::super::run;
use crate::cli::TestArgs;

/// A cluster keeps about two processors busy.
const PROCESSORS_PER_RUN: usize = 2;

/// What the runs of one command share.
pub(super) struct Suite<'a> {
    pub(super) arguments: &'a TestArgs,
    pub(super) pool: Option<Arc<Pool>>,
    pub(super) junit: Option<Junit>,
}

/// One run that is over, or could not even begin.
pub(super) struct Done {
    pub(super) name: String,
    pub(super) took: Duration,
    pub(super) report: anyhow::Result<Report>,
}

impl Done {
    pub(super) fn verdict(&self) -> Verdict {
        self.report
            .as_ref()
            .map_or(Verdict::Unknown, |report| report.verdict)
    }
}

impl Suite<'_> {
    /// Runs all, each as often as is asked, and returns what became of them in the order of their ends. After a
    /// signal nothing more is begun.
    pub(super) async fn run(&self, chosen: Vec<(String, Scenario)>) -> Vec<Done> {
        let repeat = self.arguments.repeat.get();
        let jobs = self.jobs().min(chosen.len() * repeat);
        let mut durations = Cache::for_user().ok().map(|cache| Durations::load(&cache));
        let order: Vec<usize> = (0..chosen.len()).collect();
        let mut waiting: VecDeque<usize> = order.repeat(repeat).into();
        if let Some(durations) = durations.as_ref().filter(|_| jobs > 1) {
            let expected = |at: &usize| Reverse(durations.expected(&chosen[*at].0));
            waiting.make_contiguous().sort_by_key(expected);
        }
        let mut running = FuturesUnordered::new();
        let mut done: Vec<Done> = Vec::new();
        loop {
            let stopped = done
                .iter()
                .any(|done| done.verdict() == Verdict::Interrupted);
            while running.len() < jobs && !stopped {
                let Some(at) = waiting.pop_front() else { break };
                let (name, scenario) = &chosen[at];
                running.push(self.one(name, scenario, jobs));
            }
            let Some(ended) = running.next().await else {
                break;
            };
            if let Some(durations) = durations.as_mut().filter(|_| ended.report.is_ok()) {
                durations.observe(&ended.name, ended.took);
            }
            done.push(ended);
        }
        if let Some(durations) = durations {
            durations.save();
        }
        done
    }

    fn jobs(&self) -> usize {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        let fitting = (processors / PROCESSORS_PER_RUN).max(1);
        self.arguments.jobs.map_or(fitting, NonZeroUsize::get)
    }

    async fn one(&self, name: &str, scenario: &Scenario, jobs: usize) -> Done {
        let began = Instant::now();
        let options = self.options(name, scenario, jobs);
        let report = runner::run(scenario, options)
            .await
            .map_err(anyhow::Error::from);
        let report = report.and_then(|report| {
            run::tell_folder(self.arguments.json, &report)?;
            Ok(report)
        });
        Done {
            name: name.to_owned(),
            took: began.elapsed(),
            report,
        }
    }

    fn options(&self, name: &str, scenario: &Scenario, jobs: usize) -> RunOptions {
        let arguments = self.arguments;
        let mut command = vec!["test".to_owned(), name.to_owned()];
        if arguments.warm > 0 {
            command.extend(["--warm".to_owned(), arguments.warm.to_string()]);
        }
        let mut options = run::options(&arguments.run, command, self.listener(scenario, jobs));
        options.environment.warm = self.pool.clone();
        options.seed = arguments.seed.map(Seed);
        if arguments.pause_on_failure {
            options.stay = Stay::Unpassed;
        }
        let junit = self.junit.as_ref();
        options
            .listeners
            .extend(junit.map(|junit| junit.listener(&scenario.name)));
        options
    }

    fn listener(&self, scenario: &Scenario, jobs: usize) -> Listener {
        let output = std::io::stdout;
        match (self.arguments.json, jobs) {
            (true, 1) => return report::json_lines(output()),
            (true, _) => return report::json_lines_of(&scenario.name, output()),
            (false, _) => {}
        }
        if jobs > 1 {
            let output = Prefixed::new(scenario.name.clone(), output());
            return report::terminal(output, run::colours(), None);
        }
        let live =
            (output().is_terminal() && std::io::stderr().is_terminal()).then(MultiProgress::new);
        report::terminal(output(), run::colours(), live)
    }
}

//! Events for people: a live line per machine and step on a terminal, plain lines elsewhere.

use std::{collections::BTreeMap, io::Write, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{
    event::{Event, Listener, LogLevel, MachineState, ServiceState, Stamped, StepOutcome},
    run_folder::shell_line,
    verdict::Verdict,
};

/// How much of a command a line shows.
const COMMAND_CHARACTERS_MAX: usize = 160;

/// Whether words carry colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// ANSI colours by meaning.
    On,
    /// Plain text.
    Off,
}

/// Tells a run to people: lines to `output`, live progress to standard error if `live`.
pub fn terminal(
    output: impl Write + Send + 'static,
    colours: Colours,
    live: Option<MultiProgress>,
) -> Listener {
    let mut teller = Teller {
        output: Box::new(output),
        colours,
        live,
        machines: BTreeMap::new(),
        step: None,
        command: Vec::new(),
    };
    Box::new(move |stamped| teller.tell(stamped))
}

struct Teller {
    output: Box<dyn Write + Send>,
    colours: Colours,
    live: Option<MultiProgress>,
    machines: BTreeMap<String, ProgressBar>,
    step: Option<ProgressBar>,
    command: Vec<String>,
}

impl Teller {
    fn tell(&mut self, stamped: &Stamped) {
        match &stamped.event {
            Event::RunStarted {
                scenario, command, ..
            } => {
                self.command.clone_from(command);
                self.line(&format!("scenario {scenario}"));
            }
            Event::Environment {
                qemu,
                kernel,
                accelerator,
            } => {
                self.line(&format!(
                    "QEMU {qemu}, guest kernel {kernel}, accelerator {accelerator}"
                ));
            }
            Event::Machine { machine, state } => self.machine(stamped, machine, state_word(*state)),
            Event::CameUp {
                machine,
                way,
                duration_ms,
            } => {
                let text = format!("{} in {:.2} s", way.word(), duration_ms / 1000.0);
                self.machine(stamped, machine, &text);
            }
            Event::Checkpointed {
                checkpoint,
                stood_still_ms,
            } => self.line(&format!(
                "    checkpoint {checkpoint} taken; the machines stood still for {stood_still_ms:.0} ms"
            )),
            Event::Restored {
                checkpoint,
                duration_ms,
                ..
            } => self.line(&format!(
                "    checkpoint {checkpoint} restored in {:.2} s",
                duration_ms / 1000.0
            )),
            Event::Service {
                machine,
                service,
                state,
            } => {
                let text = match state {
                    ServiceState::Started => format!("{service} up"),
                    ServiceState::Ended(how) => format!("{service} ended ({how})"),
                    // The machine's own line tells it.
                    ServiceState::Lost(_) => return,
                };
                self.machine(stamped, machine, &text);
            }
            Event::Role { machine, role } => self.machine(stamped, machine, role),
            Event::Network { change, .. } => self.line(&format!("    network: {change}")),
            Event::StepStarted { step } => self.step_started(step),
            Event::StepEnded {
                step,
                outcome,
                duration_ms,
            } => self.step_ended(step, outcome, *duration_ms),
            Event::Command {
                machine,
                told_as,
                command,
                status,
                duration_ms,
            } => {
                let ended = match status {
                    0 => String::new(),
                    status => format!(", exit code {status}"),
                };
                let command = one_line(command);
                let took = seconds(*duration_ms);
                self.line(&format!(
                    "    {machine}: {told_as}: {command} ({took:.2} s{ended})"
                ));
            }
            Event::Log {
                level: LogLevel::Debug,
                ..
            } => {}
            Event::Log {
                level,
                machine,
                text,
            } => self.log(*level, machine.as_deref(), text),
            Event::Warning { text } => {
                let word = self.paint(Verdict::Unknown, "warning");
                self.line(&format!("    {word}: {text}"));
            }
            Event::Note { text } => self.line(&format!("    {text}")),
            Event::RunEnded {
                verdict,
                message,
                duration_ms,
            } => {
                self.ended(*verdict, message.as_deref(), *duration_ms);
            }
        }
    }

    /// A machine's line lives on a terminal; elsewhere each change is a line of its own.
    fn machine(&mut self, stamped: &Stamped, machine: &str, text: &str) {
        let Some(live) = &self.live else {
            self.line(&format!(
                "    [{:8.3} s] {machine}: {text}",
                stamped.at_ms / 1000.0
            ));
            return;
        };
        let bar = self.machines.entry(machine.to_owned()).or_insert_with(|| {
            let bar = live.add(ProgressBar::new_spinner());
            bar.set_style(style("  {prefix:<12} {spinner} {msg}"));
            bar.set_prefix(machine.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.set_message(text.to_owned());
    }

    fn step_started(&mut self, step: &str) {
        let Some(live) = &self.live else { return };
        let bar = live.add(ProgressBar::new_spinner());
        bar.set_style(style("  {spinner} {msg} {elapsed}"));
        bar.set_message(step.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.step = Some(bar);
    }

    fn step_ended(&mut self, step: &str, outcome: &StepOutcome, duration_ms: u64) {
        if let (Some(bar), Some(live)) = (self.step.take(), &self.live) {
            bar.finish_and_clear();
            live.remove(&bar);
        }
        let seconds = format!("{:7.2} s", seconds(duration_ms));
        match outcome {
            StepOutcome::Passed => {
                let word = self.paint(Verdict::Passed, "ok");
                self.line(&format!("{seconds}  {word}    {step}"));
            }
            StepOutcome::Failed { verdict, message } => {
                let word = self.paint(*verdict, "NOT OK");
                self.line(&format!("{seconds}  {word}  {step}"));
                self.line(&indent(message));
            }
        }
    }

    fn ended(&mut self, verdict: Verdict, message: Option<&str>, duration_ms: u64) {
        for (_, bar) in std::mem::take(&mut self.machines) {
            bar.finish_and_clear();
        }
        let word = self.paint(verdict, verdict.word());
        self.line(&format!("{word} in {:.1} s", seconds(duration_ms)));
        if let Some(message) = message {
            self.line(&indent(message));
        }
        if verdict != Verdict::Passed && !self.command.is_empty() {
            let again = shell_line(&self.command);
            self.line(&format!("run it again: {again}"));
        }
    }

    fn log(&mut self, level: LogLevel, machine: Option<&str>, text: &str) {
        let word = match level {
            LogLevel::Debug | LogLevel::Info => String::new(),
            LogLevel::Warning => self.paint(Verdict::Unknown, "warning: "),
            LogLevel::Error => self.paint(Verdict::Failed, "error: "),
        };
        let machine = machine.map(|name| format!("{name}: ")).unwrap_or_default();
        for line in text.split('\n') {
            self.line(&format!("    {machine}{word}{line}"));
        }
    }

    fn paint(&self, verdict: Verdict, text: &str) -> String {
        let code = match verdict {
            Verdict::Passed => "32",
            Verdict::Failed => "31",
            Verdict::Unknown | Verdict::Unfit | Verdict::Interrupted => "33",
        };
        match self.colours {
            Colours::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Colours::Off => text.to_owned(),
        }
    }

    fn line(&mut self, text: &str) {
        let output = &mut self.output;
        // A reader that has gone away (a broken pipe) does not end the run.
        let mut write = || {
            let _ = writeln!(output, "{text}").and_then(|()| output.flush());
        };
        match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn state_word(state: MachineState) -> &'static str {
    match state {
        MachineState::Waiting => "waiting for a boot token",
        MachineState::Booting => "booting",
        MachineState::AgentUp => "agent up",
        MachineState::Paused => "paused",
        MachineState::Crashed => "crashed",
        MachineState::Off => "off",
    }
}

/// The beginning of a command, on one line.
fn one_line(command: &str) -> String {
    let mut words = command.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(COMMAND_CHARACTERS_MAX) {
        words.truncate(end);
        words.push_str(" ...");
    }
    words
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

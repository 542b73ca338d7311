//! Keeps one job: starts it, reaps all that it leaves behind, obeys the node, ends it. The decisions are in
//! `plan`; this carries them out.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group};

use super::plan::{Ending, Happening, Plan, Step, Verdict};
use super::{Control, check_directory, descendants, launch, release_outputs};
use crate::memory::Group;
use crate::wire::{Order, Report};
use crate::{Outcome, Spec};

/// How those are killed who outlive the job's own process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survivors {
    /// By the kernel, when the keeper, PID 1 of their namespace, ends.
    DieWithNamespace,
    /// One by one, until the keeper has no children left.
    Walk,
}

pub(super) struct Keeper<'a> {
    control: &'a mut Control,
    signals: OwnedFd,
    leash: Option<OwnedFd>,
    survivors: Survivors,
    node_gone: bool,
}

/// What reaping found.
struct Reaped {
    ending: Option<Ending>,
    children_left: bool,
}

impl<'a> Keeper<'a> {
    /// `leash` closes when the supervisor outside the namespace is gone.
    pub(super) fn new(
        control: &'a mut Control,
        signals: OwnedFd,
        leash: Option<OwnedFd>,
        survivors: Survivors,
    ) -> Self {
        Self {
            control,
            signals,
            leash,
            survivors,
            node_gone: false,
        }
    }

    /// Runs the job to its end, whatever that is. Under [`Survivors::Walk`] nothing of it is left then.
    pub(super) fn keep(mut self, spec: &Spec, directory: &Path, group: Option<&Group>) -> Outcome {
        let started =
            check_directory(directory).and_then(|()| launch::launch(spec, directory, group));
        let job = match started {
            Ok(job) => job,
            Err(reason) => return Outcome::CouldNotStart { reason },
        };
        release_outputs();
        // A node that is gone already is seen in the first poll.
        let _ = self.control.report(&Report::Started(directory.to_owned()));
        let mut plan = Plan::new(
            Instant::now(),
            spec.time_limit,
            spec.kill_grace,
            spec.linger,
        );
        let verdict = self.carry_out(&mut plan, job);
        if self.survivors == Survivors::Walk {
            descendants::kill_all();
        }
        if group.is_some_and(Group::ran_out) && !matches!(verdict, Verdict::Cancelled) {
            return Outcome::OutOfMemory;
        }
        match verdict {
            Verdict::Ended(Ending::Code(code)) => Outcome::Exited(code),
            Verdict::Ended(Ending::Signal(signal)) => Outcome::Signalled(signal),
            Verdict::TimedOut => Outcome::TimedOut,
            Verdict::Cancelled => Outcome::Cancelled,
        }
    }

    fn carry_out(&mut self, plan: &mut Plan, job: Pid) -> Verdict {
        let mut alive = true;
        loop {
            for happening in self.happenings(job) {
                alive &= !matches!(happening, Happening::Ended(_));
                match plan.step(Instant::now(), happening) {
                    Step::Wait => {}
                    // Only while its leader is not reaped is the group's number surely the job's.
                    Step::Terminate if alive => terminate(job),
                    Step::Terminate => {}
                    Step::Finish(verdict) => return verdict,
                }
            }
            self.wait(plan.wakes_at());
        }
    }

    /// Ends first: a job that has ended is not timed out, however late we look.
    fn happenings(&mut self, job: Pid) -> Vec<Happening> {
        let reaped = reap(job);
        let mut happenings: Vec<_> = reaped.ending.map(Happening::Ended).into_iter().collect();
        if !reaped.children_left {
            happenings.push(Happening::Alone);
        }
        loop {
            match self.control.received_order() {
                Ok(Some(Order::Cancel)) => happenings.push(Happening::Cancel),
                Ok(Some(Order::Kill)) => happenings.push(Happening::Kill),
                Ok(Some(Order::Probe | Order::Start(_))) => {}
                Ok(None) => break,
                Err(_) => {
                    self.node_gone = true;
                    break;
                }
            }
        }
        if self.node_gone {
            happenings.push(Happening::Kill);
        }
        happenings.push(Happening::Tick);
        happenings
    }

    /// Waits for anything to happen, at most until `until`.
    fn wait(&mut self, until: Option<Instant>) {
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: i64::from(i32::MAX),
                tv_nsec: 0,
            })
        });
        let mut events = vec![
            PollFd::new(&self.control.socket, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        events.extend(
            self.leash
                .iter()
                .map(|leash| PollFd::new(leash, PollFlags::empty())),
        );
        if poll(&mut events, timeout.as_ref()).is_err() {
            return;
        }
        let heard = !events[0].revents().is_empty();
        let unleashed = events
            .get(2)
            .is_some_and(|leash| !leash.revents().is_empty());
        drop(events);
        // What the signals say is seen by reaping.
        let mut ignored = [0; 1024];
        while rustix::io::read(&self.signals, &mut ignored).is_ok_and(|count| count > 0) {}
        if unleashed {
            // The supervisor outside was killed. The node sees that and calls the job lost, so this says
            // nothing; with this process, PID 1, all of the namespace ends.
            std::process::exit(1);
        }
        if heard && self.control.receive().is_err() {
            self.node_gone = true;
        }
    }
}

/// Reaps whoever has ended; orphans of the job come to us as our own children.
fn reap(job: Pid) -> Reaped {
    let mut ending = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == job => {
                ending = Some(match status.terminating_signal() {
                    Some(signal) => Ending::Signal(signal),
                    None => Ending::Code(status.exit_status().unwrap_or(-1)),
                });
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                return Reaped {
                    ending,
                    children_left: true,
                };
            }
            Err(_) => {
                return Reaped {
                    ending,
                    children_left: false,
                };
            }
        }
    }
}

/// Asks the job's process group to end; who is stopped is woken, to hear it.
fn terminate(job: Pid) {
    let _ = kill_process_group(job, Signal::TERM);
    let _ = kill_process_group(job, Signal::CONT);
}

//! The time of a switch: it stands still while the switch is held, and wakes the thread when a frame is due.
//!
//! What happens then is in `segment`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A clock that can be stopped.
#[derive(Debug)]
pub(super) struct Clock {
    /// What it showed when it was started last, or shows while it stands.
    start: Duration,
    /// When that was; `None` while it stands.
    started: Option<Instant>,
}

impl Clock {
    /// A clock that shows zero and goes.
    pub(super) fn new() -> Clock {
        Clock {
            start: Duration::ZERO,
            started: Some(Instant::now()),
        }
    }

    /// A clock that stands at a given time.
    pub(super) fn standing(at: Duration) -> Clock {
        Clock {
            start: at,
            started: None,
        }
    }

    pub(super) fn now(&self) -> Duration {
        let since = self.started.map(|started| started.elapsed());
        self.start + since.unwrap_or_default()
    }

    pub(super) fn is_standing(&self) -> bool {
        self.started.is_none()
    }

    /// Stops the clock, if it goes.
    pub(super) fn stand(&mut self) {
        self.start = self.now();
        self.started = None;
    }

    /// Lets the clock go on from where it stands, if it does.
    pub(super) fn go_on(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }
}

/// A descriptor that becomes readable at a set time.
///
/// A timeout of `epoll` would do, if it were not rounded to milliseconds or, in its newer form, late by the
/// slack of the thread's timers.
#[derive(Debug)]
pub(super) struct Alarm {
    descriptor: OwnedFd,
    set: Option<Duration>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Alarm {
            descriptor: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            set: None,
        })
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// Sets the alarm to the time `due` on a clock that goes and shows `now`; never, if there is none.
    pub(super) fn set(&mut self, due: Option<Duration>, now: Duration) -> io::Result<()> {
        if due == self.set {
            return Ok(());
        }
        // Zero would switch it off.
        let left = due.map_or(Duration::ZERO, |due| {
            due.saturating_sub(now).max(Duration::from_nanos(1))
        });
        let once = Itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(left),
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once)?;
        self.set = due;
        Ok(())
    }

    /// Notes that it rang, or that its clock was stopped since, so that it is set anew.
    pub(super) fn forget(&mut self) {
        // Nothing to read if it was set to another time since.
        let _ = rustix::io::read(&self.descriptor, &mut [0; 8]);
        self.set = None;
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        // Times are bounded far below.
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

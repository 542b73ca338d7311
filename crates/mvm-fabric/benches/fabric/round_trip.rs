//! How long a frame takes to a machine that answers it at once, and back.

use std::os::fd::OwnedFd;

use crate::peer::{Part, Peer};
use crate::port::{Port, Wire, introduce};
use crate::switches::Contender;

const ROUNDS: usize = 10_000;

/// What the times of many rounds come to, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrips {
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
}

pub(crate) fn through<C: Contender>() -> RoundTrips {
    let mut switch = C::start();
    let (mut near, mut far) = (switch.attach(), switch.attach());
    introduce(0, &mut near, &mut far);
    between(C::WIRE, Port::into_socket(near), Port::into_socket(far))
}

pub(crate) fn between(wire: Wire, near: OwnedFd, far: OwnedFd) -> RoundTrips {
    let echo = Peer::start(Part::Echo, wire, vec![far]);
    let ping = Peer::start(Part::Ping { rounds: ROUNDS }, wire, vec![near]);
    let times = ping.report();
    echo.report();
    let number = |name: &str| times[name].as_f64().unwrap();
    RoundTrips {
        median_us: number("median_us"),
        p99_us: number("p99_us"),
    }
}

//! Following a service: its output from an offset on, then how it ended.

use std::time::Instant;

use rustix::event::PollFd;

use super::services::{Place, Services};
use super::work::{Input, Kind, Outlet, Progress, Work};
use crate::protocol::{Failure, Lane, Reply, ToHost};

/// A follower of one service. Dropping it leaves the service alone.
#[derive(Debug)]
pub(super) struct Follow {
    /// What was sent lies before it.
    place: Place,
    announced: bool,
    /// There was more to send than one piece.
    behind: bool,
}

impl Follow {
    pub(super) fn begin(place: Place) -> Self {
        Self {
            place,
            announced: false,
            behind: false,
        }
    }
}

impl Work for Follow {
    fn kind(&self) -> Kind {
        Kind::Follow
    }

    fn interests<'a>(&'a self, _may_send: bool, _interests: &mut Vec<PollFd<'a>>) {}

    // The backlog is memory, which no poll waits for: the loop comes back at once while there is more, and
    // others get their turn between two pieces.
    fn deadline(&self, may_send: bool) -> Option<Instant> {
        (self.behind && may_send).then(Instant::now)
    }

    fn followed(&self) -> Option<Place> {
        Some(self.place)
    }

    fn input(&mut self, _input: Input) {}

    fn advance(
        &mut self,
        _now: Instant,
        services: &Services,
        outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure> {
        if !self.announced {
            self.announced = true;
            let offset = self.place.offset;
            outlet.send(&ToHost::Following { offset });
        }
        let piece = services.piece(self.place, outlet.room());
        if !piece.is_empty() {
            outlet.data(Lane::Main, piece);
            self.place.offset += piece.len() as u64;
        }
        if let Some(status) = services.ended_before(self.place) {
            outlet.send(&ToHost::Exited(status));
            return Ok(Progress::Done(Reply::Nothing));
        }
        self.behind = !services.piece(self.place, 1).is_empty();
        Ok(Progress::Going)
    }
}

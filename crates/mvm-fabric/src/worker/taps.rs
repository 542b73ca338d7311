//! What the thread does for packet captures: taps ports, and untaps them.
//!
//! What is recorded is in `taps`.

use std::collections::BTreeMap;

use super::Worker;
use crate::link::Port;
use crate::packet_capture::Recorder;
use crate::segment::Observer;
use crate::switch::TapError;
use crate::taps::{AlreadyTapped, TapId};

impl Worker {
    pub(crate) fn tap(
        &mut self,
        recorder: Recorder,
        interfaces: &BTreeMap<Port, String>,
    ) -> Result<TapId, TapError> {
        let links = self.segment.links();
        for port in interfaces.keys() {
            links.check_port(*port)?;
        }
        let tap = TapId(self.taps_made);
        self.taps
            .add(tap, recorder, interfaces)
            .map_err(|AlreadyTapped(port)| TapError::AlreadyTapped {
                name: links.name(port).clone(),
            })?;
        self.taps_made += 1;
        self.observe();
        tracing::debug!(?tap, ports = interfaces.len(), "ports tapped");
        Ok(tap)
    }

    pub(crate) fn untap(&mut self, tap: TapId) {
        self.taps.remove(tap);
        self.observe();
        tracing::debug!(?tap, "ports untapped");
    }

    /// Lets the taps see what happens, if there are any: a segment without an observer is faster.
    fn observe(&mut self) {
        let tapped = !self.taps.is_empty();
        let observer = tapped.then(|| Box::new(self.taps.clone()) as Box<dyn Observer>);
        self.segment.set_observer(observer);
    }
}

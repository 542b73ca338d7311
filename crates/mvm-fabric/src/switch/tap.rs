//! Tapping the ports of a running switch for a packet capture.
//!
//! What is recorded is in `taps`, how it is written in `packet_capture`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Commands, Stopped, Switch};
use crate::link::{LinkError, Port};
use crate::packet_capture::PacketCapture;
use crate::taps::TapId;

/// Ports could not be tapped; none is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// A port belongs to another switch.
    #[error(transparent)]
    Port(#[from] LinkError),
    /// The capture records the port already, by another tap.
    #[error("the packet capture records {name:?} already")]
    AlreadyTapped {
        /// The name of the port.
        name: Arc<str>,
    },
    /// The switch has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Ports of a switch that a packet capture records, until this is dropped.
///
/// Dropping it waits as other calls of the switch do, and from then on nothing more is recorded by it. A
/// tap keeps neither its switch nor its capture going.
#[must_use = "dropping it ends the tap"]
#[derive(Debug)]
pub struct Tap {
    commands: Commands,
    id: TapId,
}

impl Drop for Tap {
    fn drop(&mut self) {
        let id = self.id;
        // A switch that has stopped has no taps any more.
        let _ = self.commands.call(move |worker| worker.untap(id));
    }
}

impl Switch {
    /// Lets a packet capture record ports, each under the name of an interface, from now on and until the
    /// returned [`Tap`] is dropped.
    ///
    /// What is recorded of a port is told at [`PacketCapture`]: what its machine sends and gets, and copies
    /// that are dropped on their way to it, or on their way from it to a port that this capture does not record
    /// of this switch. A frame that came before is recorded when it is handed over or dropped.
    ///
    /// A switch may have many taps, of one capture for other ports, too, and of several captures for the same
    /// ports. Ports with one interface name, of whatever switch, are one interface in the file. A switch made by
    /// [`Switch::restore`] has no taps.
    ///
    /// Every record is a copy made on the switch's thread; a switch without taps pays nothing.
    ///
    /// # Errors
    ///
    /// If a port is unknown, or recorded by the same capture already.
    pub fn tap(
        &self,
        capture: &PacketCapture,
        interfaces: BTreeMap<Port, String>,
    ) -> Result<Tap, TapError> {
        let recorder = capture.recorder();
        let id = self.call(move |worker| worker.tap(recorder, &interfaces))??;
        Ok(Tap {
            commands: self.commands.clone(),
            id,
        })
    }
}

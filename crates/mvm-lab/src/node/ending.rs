//! Machines that end by themselves: a guest that powered off, or whose QEMU died.

use super::Node;
use crate::event::MachineState;

impl Node {
    /// Tells whether the machine is on. One that ended by itself is off from the moment this is asked.
    pub async fn is_on(&self) -> bool {
        self.notice_end().await;
        self.machine.lock().await.is_some()
    }

    /// Waits until the machine is off, whoever ends it.
    pub async fn wait_for_end(&self) {
        loop {
            let end = match self.machine.lock().await.as_ref() {
                Some(running) => running.end(),
                None => return,
            };
            end.await;
            self.notice_end().await;
        }
    }

    /// Puts a machine that has ended by itself away, as one that was shut down is.
    async fn notice_end(&self) {
        let mut machine = self.machine.lock().await;
        let Some(running) = machine.take_if(|running| running.has_ended()) else {
            return;
        };
        self.talk_to_nobody();
        self.stopped(running.wait().await);
        drop(machine);
        self.lose_services().await;
        self.entered(MachineState::Off);
    }
}

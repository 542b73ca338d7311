//! What is recorded into a place that may be another one later: for machines that run before it is known whose they are.
//!
//! What is recorded and how is [`crate::console`]'s and [`crate::machine`]'s.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// A recording that goes on until what it listens to ends. Dropping this does not end it.
pub(crate) struct Recording<T> {
    task: JoinHandle<()>,
    moves: mpsc::Sender<Move<T>>,
}

/// Another place for a recording.
pub(crate) struct Move<T> {
    pub(crate) target: T,
    /// Told once nothing goes to the old place any more.
    pub(crate) moved: oneshot::Sender<()>,
}

impl<T: Send + 'static> Recording<T> {
    /// Starts `record`, which is given the moves to come.
    pub(crate) fn start<F>(record: impl FnOnce(mpsc::Receiver<Move<T>>) -> F) -> Recording<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // A recording is moved once.
        let (moves, inbox) = mpsc::channel(1);
        Recording {
            task: tokio::spawn(record(inbox)),
            moves,
        }
    }

    /// Has all that comes from now on recorded in `target`; false if the recording has ended.
    pub(crate) async fn move_to(&self, target: T) -> bool {
        let (moved, answer) = oneshot::channel();
        self.moves.send(Move { target, moved }).await.is_ok() && answer.await.is_ok()
    }

    /// Waits until what it listens to has ended and all is recorded, at most `allowed`.
    pub(crate) async fn ended(&mut self, allowed: Duration) {
        // Whether it ended in time only decides how complete the recording is.
        let _ = tokio::time::timeout(allowed, &mut self.task).await;
    }
}

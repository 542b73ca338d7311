//! Work that turns out to be long goes on on a thread of its own.
//!
//! The threads of the runtime belong to all: whoever computes on one keeps requests, leases and, in a node, the votes of its
//! cluster waiting. A guest that computes only for moments is done before another thread has woken up, so it begins here.

use std::{
    future::{pending, poll_fn},
    panic::resume_unwind,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use tokio::{runtime::Handle, sync::oneshot};

/// Says that work turned out to be long.
pub(crate) type IsLong = Arc<AtomicBool>;

/// Runs a future; on a thread of its own, from where it first waits after `is_long` was set, if there is a runtime. Dropped, it
/// ends where it next waits.
pub(crate) async fn aside<T: Send + 'static>(
    mut work: Pin<Box<dyn Future<Output = T> + Send>>,
    is_long: IsLong,
) -> T {
    let runtime = Handle::try_current().ok();
    let begun = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if runtime.is_some() && is_long.load(Ordering::Relaxed) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    if let Some(done) = begun.await {
        return done;
    }
    let Some(runtime) = runtime else {
        return work.await;
    };
    let (wanted, unwanted) = oneshot::channel::<()>();
    let going_on = async {
        tokio::select! {
            biased;
            _ = unwanted => None,
            done = work => Some(done),
        }
    };
    let done = tokio::task::spawn_blocking(move || runtime.block_on(going_on)).await;
    drop(wanted);
    match done {
        Ok(Some(done)) => done,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The runtime is going down.
        Ok(None) | Err(_) => pending().await,
    }
}

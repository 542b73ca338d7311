//! The name of the request that a task works on, for those who pass it on to another node.

use std::future::Future;

tokio::task_local! {
    static REQUEST: String;
}

/// Does something on behalf of a request.
pub(crate) fn within<F: Future>(id: String, work: F) -> impl Future<Output = F::Output> {
    REQUEST.scope(id, work)
}

/// The request on whose behalf this task works, if any.
pub(crate) fn current() -> Option<String> {
    REQUEST.try_with(Clone::clone).ok()
}

//! Lists of jobs: a page, or all pages as a stream.

use futures_util::{Stream, TryStreamExt as _, stream};
use mvm_queue::{Cursor, Filter, Order, PAGE_MAX};

use crate::{
    calls::Client,
    error::ClientError,
    exchange::{ANSWER_BYTES_MAX, Call},
    view::{Consistency, JobView, JobsPage},
};

/// A job in a list is smaller than this: its payload and its result are the largest parts.
const JOB_BYTES_MAX: usize = 256 << 10;

/// Which jobs, and from which end.
#[derive(Clone, Debug)]
pub struct JobsQuery {
    /// Which of them.
    pub filter: Filter,
    /// From which end.
    pub order: Order,
    /// Continue after this place.
    pub after: Option<Cursor>,
    /// Jobs on a page.
    pub limit: u32,
    /// How fresh.
    pub consistency: Consistency,
}

impl JobsQuery {
    /// The jobs that fit a filter, oldest first, in pages of 100.
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            order: Order::OldestFirst,
            after: None,
            limit: 100,
            consistency: Consistency::Linearizable,
        }
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let Filter {
            state,
            label,
            submitted_on,
            claimed_on,
            created_from_ms,
            created_before_ms,
        } = &self.filter;
        let order = match self.order {
            Order::OldestFirst => None,
            Order::NewestFirst => Some("newest_first".to_owned()),
        };
        let pairs = [
            ("limit", Some(self.limit.to_string())),
            ("after", self.after.map(|place| place.0.to_string())),
            ("order", order),
            ("state", state.map(|state| state.to_string())),
            ("label", label.clone()),
            ("submitted_on", submitted_on.map(|node| node.to_string())),
            ("claimed_on", claimed_on.map(|node| node.to_string())),
            (
                "created_from_ms",
                created_from_ms.map(|at| at.0.to_string()),
            ),
            (
                "created_before_ms",
                created_before_ms.map(|at| at.0.to_string()),
            ),
        ];
        let given = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        given.chain(self.consistency.query()).collect()
    }
}

impl Client {
    /// One page of the list. It may be short, even empty, while there is a next one.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn jobs(&self, query: &JobsQuery) -> Result<JobsPage, ClientError> {
        let mut call = Call::get(["api", "v1", "jobs"]);
        call.query = query.pairs();
        let jobs = query.limit.min(PAGE_MAX) as usize;
        call.bytes_max = ANSWER_BYTES_MAX.max(jobs * JOB_BYTES_MAX);
        self.read(call).await
    }

    /// All jobs that fit, page after page. Ends after an error.
    pub fn all_jobs(
        &self,
        query: JobsQuery,
    ) -> impl Stream<Item = Result<JobView, ClientError>> + '_ {
        let pages = stream::try_unfold(Some(query), move |query| async move {
            let Some(mut query) = query else {
                return Ok(None);
            };
            let page = self.jobs(&query).await?;
            let following = page.next.map(|next| {
                query.after = Some(next);
                query
            });
            let jobs = stream::iter(page.jobs.into_iter().map(Ok));
            Ok::<_, ClientError>(Some((jobs, following)))
        });
        pages.try_flatten()
    }
}

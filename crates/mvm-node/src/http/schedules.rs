//! The routes of schedules: jobs that the cluster submits at times.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use mvm_queue::{
    Answer, Change, Effect, FLOW_KIND, JobSpec, Missed, Query, StoredSchedule, validate_schedule,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App,
    asking::{Named, mismatch, of_request, propose, read, request_id},
    body, form,
    problem::Problem,
    redact, v1,
};
use crate::{flow, id, store::Store};

type Shared<S> = State<Arc<App<S>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetSchedule {
    cron: String,
    #[serde(default)]
    missed: Missed,
    job: JobSpec,
}

/// `PUT /api/v1/schedules/{name}`
pub(super) async fn set<S: Store>(
    State(app): Shared<S>,
    Named(name): Named<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let SetSchedule {
        cron,
        missed,
        mut job,
    } = body::json(&headers, body).await?;
    let request = request_id(&app, &headers)?;
    v1::check_spec(&job)?;
    if job.kind == FLOW_KIND {
        // Each of its workflows runs what is deployed now.
        flow::pin(&*app.store, &mut job, &app.host.flow_limits)
            .await
            .map_err(Problem::bad_request)?;
    }
    let next_ms = validate_schedule(&name, &cron, &job, id::now()).map_err(Problem::invalid)?;
    let change = Change::SetSchedule {
        name: name.clone(),
        cron,
        missed,
        spec: Box::new(job),
        next_ms,
    };
    match propose(&app, &request, change).await? {
        Effect::ScheduleSet { revision } => {
            let told = json!({ "name": name, "revision": revision, "next_ms": next_ms });
            Ok(of_request(Json(told), &request))
        }
        other => Err(mismatch(&other)),
    }
}

/// `DELETE /api/v1/schedules/{name}`
pub(super) async fn remove<S: Store>(
    State(app): Shared<S>,
    Named(name): Named<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = request_id(&app, &headers)?;
    match propose(&app, &request, Change::RemoveSchedule { name }).await? {
        Effect::ScheduleRemoved => Ok(of_request(StatusCode::NO_CONTENT, &request)),
        other => Err(mismatch(&other)),
    }
}

/// `GET /api/v1/schedules`
pub(super) async fn list<S: Store>(
    State(app): Shared<S>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let [consistency] = form::fields(query.unwrap_or_default().as_bytes(), ["consistency"])?;
    let (answer, wrap) = read(&app, consistency.as_deref(), Query::Schedules).await?;
    match answer {
        Answer::Schedules { schedules } => {
            let schedules: Vec<_> = schedules.iter().map(view).collect();
            Ok(Json(wrap(json!({ "schedules": schedules }))).into_response())
        }
        other => Err(mismatch(&other)),
    }
}

fn view(schedule: &StoredSchedule) -> Value {
    json!({
        "name": schedule.name,
        "revision": schedule.revision,
        "cron": schedule.cron,
        "missed": schedule.missed,
        "job": redact::shown(&schedule.spec),
        "next_ms": schedule.next_ms,
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, header::CONTENT_TYPE};
    use mvm_queue::{Command, RequestId, UnixMillis};
    use tower_service::Service;

    use super::*;
    use crate::store::MemoryStore;

    /// A store with the module `m` 1.
    fn store() -> MemoryStore {
        let store = MemoryStore::new();
        let (hash, bytes) = ("a".repeat(64), b"module".to_vec());
        let deploy = Change::Deploy {
            name: "m".into(),
            version: "1".into(),
            hash: hash.clone(),
            bytes: bytes.len() as u64,
            chunks: 1,
        };
        let put = Change::PutChunk {
            hash,
            number: 0,
            bytes,
        };
        for change in [put, deploy] {
            let request = RequestId(change.digest());
            let at = UnixMillis(0);
            store.apply(&Command {
                request,
                at,
                change,
            });
        }
        store
    }

    #[tokio::test]
    async fn a_schedule_of_workflows_is_pinned_to_what_is_deployed() {
        let store = Arc::new(store());
        let mut router = App::new(Arc::clone(&store), 1, "0123456789abcdef").router();
        let mut put = async |module: &str| {
            let job =
                json!({ "kind": FLOW_KIND, "payload": { "module": module, "workflow": "w" } });
            let body = json!({ "cron": "0 5 * * *", "job": job }).to_string();
            let request = Request::put("/api/v1/schedules/nightly")
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(body))
                .unwrap();
            router.call(request).await.unwrap().status()
        };
        assert_eq!(put("other").await, StatusCode::BAD_REQUEST);
        assert_eq!(put("m").await, StatusCode::OK);
        let Answer::Schedules { schedules } = store.answer(&Query::Schedules) else {
            panic!("it lists no schedules");
        };
        let payload = &schedules[0].spec.payload;
        assert_eq!(
            (&payload["version"], &payload["hash"]),
            (&json!("1"), &json!("a".repeat(64)))
        );
    }
}

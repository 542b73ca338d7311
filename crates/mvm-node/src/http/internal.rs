//! The routes by which nodes ask one another; clients are turned away.
//!
//! They answer 200 to whatever they looked at, so that the asking node can take any other
//! status to mean that nothing was done.

use std::{sync::Arc, time::Duration};

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use serde::de::DeserializeOwned;

use super::{App, body, problem::Problem};
use futures_util::future::join_all;
use mvm_queue::{Query, Versioned, WIRE_VERSION};

use crate::{
    consensus::{Proposal, Reading, Unavailable},
    join::Standing,
    request,
    store::{BackupMade, DEADLINE_HEADER, Deadline, FORWARDED_MAX, ForwardedCommand, Store},
};

/// Takes at most [`FORWARDED_MAX`] of [`ForwardedCommand`], answers a [`Proposal`] to each.
pub(crate) const PROPOSE: &str = "/internal/v1/propose";
/// Takes a [`Query`], answers a [`Reading`].
pub(crate) const READ: &str = "/internal/v1/read";
/// Takes nothing, answers why this node cannot act as leader, or `null` if it can.
pub(crate) const LEAD: &str = "/internal/v1/lead";
/// Takes nothing, answers a [`Standing`]. Served before this node has joined.
pub(crate) const STANDING: &str = "/internal/v1/standing";

/// All of them. Who sends no secret is turned away by each.
pub(super) const ROUTES: [&str; 5] = [PROPOSE, READ, LEAD, BACK_UP, STANDING];

/// A client's largest body, as JSON inside JSON, with room for what the node adds.
const BODY_BYTES_MAX: usize = 8 * body::BODY_BYTES_MAX;
/// As many of these as may come at once.
const PROPOSED_BYTES_MAX: usize = FORWARDED_MAX * BODY_BYTES_MAX;

/// Takes nothing, answers a [`BackupMade`].
pub(crate) const BACK_UP: &str = "/internal/v1/back-up";

type Shared<S> = State<Arc<App<S>>>;
type Answered<T> = Result<Json<Versioned<T>>, Problem>;

pub(super) async fn propose<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Vec<Proposal>> {
    let forwarded: Vec<ForwardedCommand> = admit(&app, &headers, body, PROPOSED_BYTES_MAX).await?;
    let deadline = deadline(&headers)?;
    if forwarded.len() > FORWARDED_MAX {
        return Err(Problem::bad_request(format!(
            "{} commands at once; at most {FORWARDED_MAX} are allowed",
            forwarded.len()
        )));
    }
    let proposals = forwarded
        .into_iter()
        .map(async |ForwardedCommand { command, request }| {
            let proposing = app.store.propose_forwarded(command, deadline);
            match request {
                Some(request) => request::within(request, proposing).await,
                None => proposing.await,
            }
        });
    Ok(Json(Versioned::new(join_all(proposals).await)))
}

pub(super) async fn read<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Reading> {
    let query: Query = admit(&app, &headers, body, BODY_BYTES_MAX).await?;
    let deadline = deadline(&headers)?;
    Ok(Json(Versioned::new(
        app.store.read_forwarded(query, deadline).await,
    )))
}

pub(super) async fn lead<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Option<Unavailable>> {
    let () = admit(&app, &headers, body, BODY_BYTES_MAX).await?;
    Ok(Json(Versioned::new(app.store.lead().await.err())))
}

pub(super) async fn back_up<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered<BackupMade> {
    let () = admit(&app, &headers, body, BODY_BYTES_MAX).await?;
    Ok(Json(Versioned::new(app.store.back_up_forwarded().await)))
}

pub(super) async fn standing<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Standing> {
    let () = admit(&app, &headers, body, BODY_BYTES_MAX).await?;
    Ok(Json(Versioned::new(app.store.standing())))
}

async fn admit<S: Store, T: DeserializeOwned>(
    app: &App<S>,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<T, Problem> {
    if !app.is_member(headers) {
        return Err(Problem::forbidden("the node's secret is missing or wrong")
            .hint("all nodes of a cluster need the same secret_store"));
    }
    let bytes = body::read(headers, body, bytes_max).await?;
    let Versioned { version, body } = body::parse_json::<Versioned<serde_json::Value>>(&bytes)?;
    if version != WIRE_VERSION {
        return Err(Problem::bad_request(format!(
            "this node speaks version {WIRE_VERSION}, not {version}"
        )));
    }
    serde_json::from_value(body).map_err(|error| Problem::bad_request(error.to_string()))
}

fn deadline(headers: &HeaderMap) -> Result<Deadline, Problem> {
    let left = headers
        .get(DEADLINE_HEADER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    match left {
        Some(left_ms) => Ok(Deadline::forwarded(Duration::from_millis(left_ms))),
        None => Err(Problem::bad_request(format!(
            "{DEADLINE_HEADER} is missing or not a number"
        ))),
    }
}

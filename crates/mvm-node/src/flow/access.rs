//! Who may speak to a node's engine: the same tokens as at its other interface.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    auth::{Scope, Tokens},
    id,
};

/// What may be asked for without a token.
const OPEN: [&str; 2] = ["/health", "/version"];

/// The interface, for those only who may; for everybody, without tokens.
pub(crate) fn guarded(router: Router, tokens: Option<Arc<Tokens>>) -> Router {
    match tokens {
        Some(tokens) => router.layer(from_fn_with_state(tokens, admit)),
        None => router,
    }
}

async fn admit(State(tokens): State<Arc<Tokens>>, request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let needed = match *request.method() {
        Method::GET | Method::HEAD => Scope::Read,
        _ => Scope::Submit,
    };
    match check(&tokens, request.headers(), needed) {
        Ok(()) => next.run(request).await,
        Err((status, error)) => (status, Json(json!({ "error": error }))).into_response(),
    }
}

fn check(tokens: &Tokens, headers: &HeaderMap, needed: Scope) -> Result<(), (StatusCode, String)> {
    let unauthorized = |error: &str| (StatusCode::UNAUTHORIZED, error.to_owned());
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = given.ok_or_else(|| {
        unauthorized("this node wants a token; send it as `Authorization: Bearer mvm_...`, see docs/security.md")
    })?;
    let identity = tokens
        .identify(token.trim(), id::now())
        .map_err(|denied| unauthorized(&denied.to_string()))?;
    if identity.may(needed) {
        Ok(())
    } else {
        let error = format!("the token {} lacks the scope {needed}", identity.name);
        Err((StatusCode::FORBIDDEN, error))
    }
}

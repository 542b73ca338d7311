//! Who comes in: limits what an address may send, and asks for the token that a route needs.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;

use super::{App, internal, problem::Problem, rate::RateLimiter, routes};
use crate::{
    auth::{Identity, Scope, Tokens},
    id,
    store::Store,
};

/// What guards the interface; nothing by default, as on loopback.
#[derive(Debug, Default)]
pub struct Guard {
    /// Who may do what. Without tokens everybody may do everything.
    pub tokens: Option<Arc<Tokens>>,
    /// How much an address may send.
    pub rate: Option<RateLimiter>,
}

/// Lets a request pass to its handler, or answers it.
pub(super) async fn admit<S: Store>(
    State(app): State<Arc<App<S>>>,
    request: Request,
    next: Next,
) -> Response {
    match check(&app, &request) {
        Err(problem) => problem.into_response(),
        Ok(None) => next.run(request).await,
        Ok(Some(identity)) => {
            let span = tracing::info_span!("client", token = identity.name);
            next.run(request).instrument(span).await
        }
    }
}

/// Returns who sent the request, where it matters.
fn check<S: Store>(app: &App<S>, request: &Request) -> Result<Option<Identity>, Problem> {
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map(MatchedPath::as_str);
    // Handlers of these ask for the secret that nodes share.
    let is_internal = path.is_some_and(|path| internal::ROUTES.contains(&path));
    if is_internal && app.is_member(request.headers()) {
        return Ok(None);
    }
    if let Some(rate) = &app.guard.rate
        && let Some(ConnectInfo(client)) = request.extensions().get::<ConnectInfo<SocketAddr>>()
    {
        let taken = rate.take(client.ip(), Instant::now());
        taken.map_err(too_many)?;
    }
    let (Some(tokens), Some(path), false) = (&app.guard.tokens, path, is_internal) else {
        return Ok(None);
    };
    match needed(request.method(), path) {
        None => Ok(None),
        Some(scope) => identify(tokens, request.headers(), scope).map(Some),
    }
}

/// The scope that a route needs. What is not listed is for administrators, whatever it does.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    // axum answers HEAD by the handler of GET.
    let method = match *method {
        Method::HEAD => "GET",
        ref method => method.as_str(),
    };
    let listed = |route: &&super::Route| route.method == method && route.path == path;
    match routes().iter().find(listed) {
        Some(route) => route.scope,
        None => Some(Scope::Admin),
    }
}

fn identify(tokens: &Tokens, headers: &HeaderMap, needed: Scope) -> Result<Identity, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(unauthorized("the request has no token", "Bearer"));
    };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    let invalid = "Bearer error=\"invalid_token\"";
    let token =
        token.ok_or_else(|| unauthorized("the authorization is not a bearer token", invalid))?;
    let identity = tokens
        .identify(token, id::now())
        .map_err(|denied| unauthorized(denied.to_string(), invalid))?;
    match identity.may(needed) {
        true => Ok(identity),
        false => Err(insufficient(&identity, needed)),
    }
}

/// As RFC 6750 has it.
fn unauthorized(detail: impl Into<String>, challenge: &'static str) -> Problem {
    Problem::unauthorized(detail)
        .hint("send Authorization: Bearer mvm_...; `mvm-ci token new` makes tokens, see docs/security.md")
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

fn insufficient(identity: &Identity, needed: Scope) -> Problem {
    let name = &identity.name;
    let problem = Problem::out_of_scope(format!("the token {name} lacks the scope {needed}"));
    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
    match HeaderValue::try_from(challenge) {
        Ok(challenge) => problem.header(header::WWW_AUTHENTICATE, challenge),
        Err(_) => problem,
    }
}

fn too_many(wait: Duration) -> Problem {
    let seconds = wait.as_secs() + 1;
    Problem::too_many("this address sends more requests than it may")
        .hint("slow down; rate_limit_per_s is the limit")
        .header(header::RETRY_AFTER, HeaderValue::from(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_for_administrators() {
        for (method, path, expected) in [
            (Method::GET, "/health", None),
            (Method::HEAD, "/health", None),
            (Method::GET, "/", Some(Scope::Read)),
            (Method::HEAD, "/queue/list", Some(Scope::Read)),
            (Method::POST, "/new-job", Some(Scope::Submit)),
            (Method::POST, "/api/v1/claims", Some(Scope::Worker)),
            (Method::DELETE, "/health", Some(Scope::Admin)),
            (Method::GET, "/brand-new", Some(Scope::Admin)),
        ] {
            assert_eq!(needed(&method, path), expected, "{method} {path}");
        }
    }
}

//! The node's HTTP interface, version 1, as a client speaks it: from actions to requests and from answers to what was told.
//! Who sends them is the caller's.

use serde_json::{Value, json};

use crate::{
    action::{Action, AttemptSeen, Claim, Consistency, Ended, JobId, JobSeen, NodeId, Token, Told},
    workload::Ask,
};

/// Jobs on a page of a list.
pub const PAGE: usize = 500;

/// A request; its id goes into the header `Idempotency-Key` unless it is a `GET`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// As JSON.
    pub body: Option<Value>,
}

/// Something that carries requests to nodes.
pub trait Wire: Sync {
    /// Sends a request, under an id if it has one, and returns status and body; the error says why there is no answer. It
    /// ends in bounded time.
    fn send(
        &self,
        node: NodeId,
        request: Request,
        id: Option<&str>,
    ) -> impl Future<Output = Result<(u16, Value), String>> + Send;
}

/// Asks a node over HTTP; a list page by page.
pub async fn ask(wire: &impl Wire, ask: &Ask) -> Told {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let request = request(&ask.action, after.as_ref());
        let id = (request.method == "POST").then_some(ask.request.as_str());
        let (status, body) = match wire.send(ask.node, request, id).await {
            Ok(answer) => answer,
            Err(detail) => return Told::Unknown { detail },
        };
        match told(&ask.action, status, &body) {
            Told::Listed { jobs } => all.extend(jobs),
            told => return told,
        }
        match &body["next"] {
            Value::Null => return Told::Listed { jobs: all },
            next => after = Some(next.clone()),
        }
    }
}

fn post(path: String, body: Value) -> Request {
    Request {
        method: "POST",
        path,
        body: Some(body),
    }
}

fn get(path: String) -> Request {
    Request {
        method: "GET",
        path,
        body: None,
    }
}

/// Returns the request that asks for an action. Lists come in pages: `after` is the `next` of the page before.
pub fn request(action: &Action, after: Option<&Value>) -> Request {
    match action {
        Action::Submit { spec, .. } => post("/api/v1/jobs".to_owned(), spec.clone()),
        Action::Claim {
            worker,
            slots,
            kinds,
        } => post(
            "/api/v1/claims".to_owned(),
            json!({ "worker": worker, "slots": slots, "kinds": kinds }),
        ),
        Action::Start { job, token } => post(path(job, "start"), json!({ "token": token })),
        Action::Renew { job, token } => post(path(job, "renew"), json!({ "token": token })),
        Action::Finish { job, token, ended } => {
            let report = match ended {
                Ended::Succeeded => json!({ "report": "succeeded", "result": null }),
                Ended::Failed => {
                    json!({ "report": "failed", "error": "as planned", "permanent": false })
                }
                Ended::Lost => json!({ "report": "lost" }),
            };
            post(
                path(job, "finish"),
                json!({ "token": token, "report": report }),
            )
        }
        Action::Cancel { job } => post(path(job, "cancel"), json!({})),
        Action::List { consistency } => {
            let consistency = match consistency {
                Consistency::Linearizable => "linearizable",
                Consistency::Local => "local",
            };
            let after = after.map(|after| format!("&after={}", plain(after)));
            get(format!(
                "/api/v1/jobs?limit={PAGE}&consistency={consistency}{}",
                after.unwrap_or_default()
            ))
        }
        Action::Attempts { job } => get(path(job, "attempts")),
    }
}

fn path(job: &JobId, what: &str) -> String {
    format!("/api/v1/jobs/{}/{what}", job.0)
}

/// A string without its quotes, and anything else as it is.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns what an answer to an action tells; of a list, what its page tells.
pub fn told(action: &Action, status: u16, body: &Value) -> Told {
    let detail = || {
        let said = body["detail"].as_str().map(str::to_owned);
        said.unwrap_or_else(|| body.to_string())
    };
    match status {
        200 | 201 => understood(action, body).unwrap_or_else(|| Told::Broken {
            detail: format!("{status} with {body}"),
        }),
        503 | 429 => Told::Refused { detail: detail() },
        504 => Told::Unknown { detail: detail() },
        400..500 => Told::Rejected {
            status,
            detail: detail(),
        },
        _ => Told::Broken {
            detail: format!("{status}: {}", detail()),
        },
    }
}

fn understood(action: &Action, body: &Value) -> Option<Told> {
    Some(match action {
        Action::Submit { .. } => Told::Submitted {
            job: id(&body["id"])?,
        },
        Action::Claim { .. } => Told::Claimed {
            claims: each(&body["claims"], |claim| {
                Some(Claim {
                    job: id(&claim["id"])?,
                    token: token(&claim["token"])?,
                })
            })?,
        },
        Action::Start { .. } | Action::Finish { .. } | Action::Cancel { .. } => Told::Moved {
            state: text(&body["state"])?,
        },
        Action::Renew { .. } => {
            body["renewals"].as_u64()?;
            Told::Renewed
        }
        Action::List { .. } => Told::Listed {
            jobs: each(&body["jobs"], job)?,
        },
        Action::Attempts { .. } => Told::Tried {
            attempts: each(&body["attempts"], |attempt| {
                Some(AttemptSeen {
                    token: token(&attempt["token"])?,
                    worker: text(&attempt["worker"])?,
                    outcome: attempt["outcome"].as_str().map(str::to_owned),
                })
            })?,
        },
    })
}

fn job(job: &Value) -> Option<JobSeen> {
    Some(JobSeen {
        id: id(&job["id"])?,
        key: text(&job["idempotency_key"])?,
        state: text(&job["state"])?,
        token: token(&job["attempts"])?,
        claimed_by: job["claimed_by"].as_str().map(str::to_owned),
    })
}

fn each<T>(list: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    list.as_array()?.iter().map(read).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn id(value: &Value) -> Option<JobId> {
    text(value).map(JobId)
}

fn token(value: &Value) -> Option<Token> {
    value.as_i64().map(Token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Class;

    #[track_caller]
    fn check(action: &Action, status: u16, body: Value, expected: &str) {
        assert_eq!(told(action, status, &body).to_string(), expected);
    }

    #[test]
    fn answers_are_what_they_promise() {
        let (job, token) = (JobId("a".to_owned()), Token(1));
        let submit = Action::Submit {
            key: "k".to_owned(),
            spec: Value::Null,
        };
        let renew = Action::Renew {
            job: job.clone(),
            token,
        };
        let id = json!({ "id": "a", "state": "pending" });
        check(&submit, 201, id.clone(), "acknowledged as job a");
        check(&submit, 200, id, "acknowledged as job a");
        check(&submit, 200, json!({}), "broken: 200 with {}");
        let problem = |detail: &str| json!({ "detail": detail });
        check(
            &submit,
            503,
            problem("no quorum"),
            "refused (503): no quorum",
        );
        check(&submit, 504, problem("late"), "unknown: late");
        check(&renew, 409, problem("ended"), "rejected (409): ended");
        check(&renew, 500, problem("oh"), "broken: 500: oh");
        check(&renew, 302, Value::Null, "broken: 302: null");
        let renewed = json!({ "renewals": 1, "cancel": false });
        check(&renew, 200, renewed, "acknowledged");
        let claims = json!({ "claims": [{ "id": "a", "token": 1, "kind": "work" }] });
        let claim = Action::Claim {
            worker: "w".to_owned(),
            slots: 1,
            kinds: Vec::new(),
        };
        check(&claim, 200, claims, "granted job a by token 1");
        assert_eq!(told(&renew, 429, &Value::Null).class(), Class::Refused);
    }

    #[test]
    fn pages_follow_one_another() {
        let list = Action::List {
            consistency: Consistency::Local,
        };
        let path = request(&list, Some(&json!(17))).path;
        assert_eq!(path, "/api/v1/jobs?limit=500&consistency=local&after=17");
    }
}

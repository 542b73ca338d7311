//! What nodes say to one another.

use serde_json::{Value, json};

use super::{SECRET, Server, check_problem};

#[test]
fn internal_routes_are_for_nodes_only() {
    let server = Server::start();
    let propose = |headers: &[(&str, &str)], body: &str| {
        server.send("POST", "/internal/v1/propose", headers, body.as_bytes())
    };
    let claim = |request: &str| {
        let change = json!({ "change": "claim", "node": 1, "worker": "w", "slots": 1, "labels": [], "kinds": [] });
        json!({ "command": { "request": request, "at": 1, "change": change } })
    };
    let of = |commands: &[Value]| json!({ "version": 5, "body": commands }).to_string();
    let command = &of(&[claim("r")]);
    let secret = ("x-mvm-secret", SECRET);
    let deadline = ("x-mvm-deadline-ms", "1000");
    check_problem(&propose(&[deadline], command), 403, "secret");
    check_problem(
        &propose(&[("x-mvm-secret", "wrong"), deadline], command),
        403,
        "secret",
    );
    check_problem(&propose(&[secret], command), 400, "x-mvm-deadline-ms");
    check_problem(
        &propose(&[secret, deadline], &command.replace(":5", ":9")),
        400,
        "version 5, not 9",
    );
    check_problem(
        &propose(&[secret, deadline], r#"{"version":5,"body":[{}]}"#),
        400,
        "missing field",
    );
    let many: Vec<_> = (0..33).map(|number| claim(&number.to_string())).collect();
    check_problem(
        &propose(&[secret, deadline], &of(&many)),
        400,
        "33 commands at once; at most 32",
    );
    let unknown = json!({ "command": { "request": "s", "at": 1, "change": { "change": "retry", "job": "none" } } });
    let answer = propose(&[secret, deadline], &of(&[claim("r"), unknown]));
    let body = &answer.json()["body"];
    let proposals = [&body[0]["proposal"], &body[1]["proposal"]];
    assert_eq!(
        (answer.status, proposals),
        (200, [&json!("committed"), &json!("rejected")])
    );
}

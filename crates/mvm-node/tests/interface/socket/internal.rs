//! What nodes say to one another.

use serde_json::json;

use super::{SECRET, Server, check_problem};

#[test]
fn internal_routes_are_for_nodes_only() {
    let server = Server::start();
    let propose = |headers: &[(&str, &str)], body: &str| {
        server.send("POST", "/internal/v1/propose", headers, body.as_bytes())
    };
    let command = r#"{"version":4,"body":{"request":"r","at":1,"change":{"change":"claim","node":1,"worker":"w","slots":1,"labels":[],"kinds":[]}}}"#;
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
        &propose(
            &[secret, deadline],
            &command.replace(":4,\"body", ":9,\"body"),
        ),
        400,
        "version 4, not 9",
    );
    check_problem(
        &propose(&[secret, deadline], r#"{"version":4,"body":{}}"#),
        400,
        "missing field",
    );
    let answer = propose(&[secret, deadline], command);
    assert_eq!(
        (answer.status, &answer.json()["body"]["proposal"]),
        (200, &json!("committed"))
    );
}

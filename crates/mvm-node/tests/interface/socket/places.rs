//! Places: all that are told exist, and others say what there is.

use mvm_node::http::routes;

use super::{Server, check_problem};
use crate::paths;

#[test]
fn unknown_places_and_methods_say_what_there_is() {
    let server = Server::start();
    check_problem(
        &server.send("GET", "/nowhere", &[], b""),
        404,
        "nothing at /nowhere",
    );
    let answer = server.send("GET", "/new-job", &[], b"");
    check_problem(&answer, 405, "does not take GET");
    assert_eq!(answer.json()["hint"], "use POST");
    for query in [
        "limit=0",
        "limit=501",
        "limit=x",
        "after=x",
        "state=x",
        "consistency=x",
        "x=1",
        "limit=%ff",
    ] {
        let answer = server.send("GET", &format!("/queue/list?{query}"), &[], b"");
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
}

#[test]
fn every_route_of_the_table_exists() {
    let server = Server::start();
    for route in routes() {
        let answer = server.send(route.method, &paths::filled(route.path, "x"), &[], b"");
        let missing = answer.status == 405 || answer.text().contains("there is nothing at");
        assert!(!missing, "{route:?}: {}", answer.text());
    }
}

//! A client of a node: a submitter and a worker at once.

use serde_json::{Value, json};

use crate::{
    http::Http,
    load::{Client, Steps},
};

/// What jobs carry, here and at the peer.
pub(crate) fn payload() -> Value {
    json!({ "commit": "c633108e1f", "target": "x86_64-unknown-linux-gnu" })
}

/// A connection to a node that works as one worker.
pub(crate) struct NodeClient {
    http: Http,
    worker: String,
}

impl NodeClient {
    pub(crate) async fn connect(port: u16, number: usize) -> Self {
        Self {
            http: Http::connect(port).await.unwrap(),
            worker: format!("worker-{number}"),
        }
    }
}

impl Client for NodeClient {
    async fn live(&mut self, steps: &mut Steps) {
        let submission = json!({ "kind": "bench", "payload": payload() });
        steps
            .time("submit", self.http.post("/api/v1/jobs", &submission))
            .await;
        let offer = json!({ "worker": self.worker, "kinds": ["bench"] });
        let answer = steps
            .time("claim", self.http.post("/api/v1/claims", &offer))
            .await;
        // Each client has submitted one job more than it claimed, so there is one for each.
        let claim = &answer["claims"][0];
        let job = format!("/api/v1/jobs/{}", claim["id"].as_str().unwrap());
        let token = claim["token"].clone();
        let path = format!("{job}/start");
        steps
            .time("start", self.http.post(&path, &json!({ "token": token })))
            .await;
        let path = format!("{job}/finish");
        let report = json!({ "report": "succeeded", "result": { "passed": 17 } });
        let finish = json!({ "token": token, "report": report });
        steps.time("finish", self.http.post(&path, &finish)).await;
    }
}

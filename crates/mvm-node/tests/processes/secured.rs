//! Three nodes in processes of their own that speak TLS and ask for tokens.
//!
//! What a green run does not prove: that hiqlite's own connections withstand somebody between the nodes; they are
//! encrypted without certificates being checked.

use mvm_node::auth::{NewGrant, Scope, Token, append};

use crate::{
    cluster::{Cluster, wait},
    support::{Answer, get, request},
    tls::Authority,
};

#[test]
fn a_cluster_with_tls_and_tokens_forms_forwards_and_refuses() {
    let mut cluster = Cluster::new(3);
    let path = |name: &str| cluster.directory().join(name);
    let (cert, key, tokens) = (path("cert.pem"), path("key.pem"), path("tokens.toml"));
    let authority = Authority::new();
    authority.certify(&cert, &key);
    let ca = authority.write(path("ca.pem"));
    let [submit, late] = ["submit", "late"].map(|_| Token::generate().unwrap());
    append(&tokens, &grant("submit", &submit)).unwrap();
    cluster.set("MVM_CI_TLS_CERT", cert);
    cluster.set("MVM_CI_TLS_KEY", key);
    cluster.set("MVM_CI_TLS_CA", ca);
    cluster.set("MVM_CI_TOKENS", &tokens);
    (1..=3).for_each(|id| cluster.start(id));

    let send = |id: usize, method: &str, path: &str, token: Option<&Token>| {
        let bearer = token.map(|token| format!("Bearer {}", token.expose()));
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let body: &[u8] = match method {
            "POST" => b"url=http://x/",
            _ => b"",
        };
        let request = request(method, path, &headers, body);
        authority.exchange(cluster.address(id), &request)
    };
    let expect = |id, method, path, token, status| {
        wait(
            &format!("{method} {path} on {id} gives {status}"),
            || match send(id, method, path, token) {
                Ok(answer) if answer.status == status => Ok(answer),
                other => Err(format!("{other:?}")),
            },
        )
    };
    (1..=3).for_each(|id| drop(expect(id, "GET", "/ready", None, 200)));

    // One of them leads; the others forward to it.
    for id in 1..=3 {
        let answer: Answer = send(id, "POST", "/new-job", Some(&submit)).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(send(id, "POST", "/new-job", None).unwrap().status, 401);
        assert_eq!(
            send(id, "POST", "/queue/claim", Some(&submit))
                .unwrap()
                .status,
            403
        );
    }
    let listed = send(2, "GET", "/queue/list", Some(&submit)).unwrap().json();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 3);
    assert!(get(cluster.address(1), "/ready").is_err(), "plain HTTP");

    assert_eq!(
        send(1, "GET", "/queue/stats", Some(&late)).unwrap().status,
        401
    );
    append(&tokens, &grant("late", &late)).unwrap();
    expect(1, "GET", "/queue/stats", Some(&late), 200);
}

fn grant(name: &str, token: &Token) -> NewGrant {
    NewGrant {
        name: name.to_owned(),
        scopes: vec![Scope::Submit],
        hash: token.hash(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: None,
    }
}

//! HTTPS over a real socket: known by its authority, not by another; renewed without a restart.

use std::sync::Arc;

use mvm_node::{
    http::{App, HEAD_TIMEOUT, Limits, serve},
    store::MemoryStore,
    tls::ServerTls,
};
use tokio::sync::oneshot;

use crate::{
    support::{get, request},
    tls::Authority,
};

#[test]
fn a_certificate_is_shown_checked_and_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    let (first, second) = (Authority::new(), Authority::new());
    first.certify(&cert, &key);
    let server = Arc::new(ServerTls::open(&cert, &key).unwrap());

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let router = App::new(Arc::new(MemoryStore::new()), 1, "0123456789abcdef").router();
    let limits = Limits {
        connections_max: 8,
        head_timeout: HEAD_TIMEOUT,
    };
    let (close, closing) = oneshot::channel::<()>();
    let tls = Some(Arc::clone(&server));
    let serving = runtime.spawn(async move {
        let closing = async { drop(closing.await) };
        serve(listener, router, tls, limits, closing).await;
    });

    let ask = |authority: &Authority| {
        let answer = authority.exchange(address, &request("GET", "/health", &[], b""));
        answer
            .map(|answer| answer.status)
            .map_err(|error| error.to_string())
    };
    assert_eq!(ask(&first), Ok(200));
    let error = ask(&second).unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert!(
        get(address, "/health").is_err(),
        "plain HTTP is not answered"
    );

    let (old, new_key) = (std::fs::read(&cert).unwrap(), directory.path().join("new"));
    second.certify(&cert, &new_key);
    let error = server.reload().unwrap_err().to_string();
    assert!(error.contains("cert.pem for TLS"), "{error}");
    assert_eq!(ask(&first), Ok(200), "half a renewal changes nothing");
    std::fs::rename(&new_key, &key).unwrap();
    server.reload().unwrap();
    assert_eq!(ask(&second), Ok(200));
    assert!(ask(&first).is_err());
    std::fs::write(&cert, old).unwrap();
    server.reload().unwrap_err();

    close.send(()).unwrap();
    runtime.block_on(serving).unwrap();
    assert!(
        ask(&second).is_err(),
        "a closed server takes no connections"
    );
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("empty"), "").unwrap();
    Authority::new().certify(&path("cert"), &path("key"));
    for (cert, key, expected) in [
        ("none", "key", "none for TLS"),
        ("empty", "key", "it has no certificate"),
        ("cert", "empty", "empty for TLS"),
    ] {
        let error = ServerTls::open(&path(cert), &path(key))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

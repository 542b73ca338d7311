//! Who is let in, over a real socket with the store in memory: tokens, scopes, and the limits of connections.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode},
};
use expect_test::expect;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use mvm_node::{
    auth::{NewGrant, Scope, Token, Tokens, append},
    http::{App, Guard, HEAD_TIMEOUT, Limits, RateLimiter, routes, serve},
    store::MemoryStore,
};

use crate::{
    paths,
    support::{Answer, exchange, get, request},
};

const SECRET: &str = "0123456789abcdef";
const HANG: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    /// Dropping it ends the server.
    _runtime: tokio::runtime::Runtime,
}

fn start(guard: Guard, limits: Limits) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let router = App::guarded(Arc::new(MemoryStore::new()), 7, SECRET, guard).router();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve(
        listener,
        router,
        None,
        limits,
        std::future::pending(),
    ));
    Server {
        address,
        _runtime: runtime,
    }
}

const LIMITS: Limits = Limits {
    connections_max: 64,
    head_timeout: HEAD_TIMEOUT,
};

/// A token of each scope, one that has expired, and one that nobody knows.
struct Clients {
    scoped: [(Scope, Token); 4],
    expired: Token,
    unknown: Token,
    tokens: Tokens,
}

fn clients() -> Clients {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens.toml");
    let make = |name: &str, scope, expires_at| {
        let token = Token::generate().unwrap();
        let grant = NewGrant {
            name: name.to_owned(),
            scopes: vec![scope],
            hash: token.hash(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at,
        };
        append(&file, &grant).unwrap();
        token
    };
    Clients {
        scoped: Scope::ALL.map(|scope| (scope, make(scope.as_str(), scope, None))),
        expired: make("expired", Scope::Admin, Some(jiff::Timestamp::UNIX_EPOCH)),
        unknown: Token::generate().unwrap(),
        tokens: Tokens::open(&file).unwrap(),
    }
}

fn send(server: &Server, method: &str, path: &str, authorization: Option<&str>) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(authorization.map(|value| ("authorization", value)));
    let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
    exchange(server.address, &request(method, path, &headers, body)).unwrap()
}

#[test]
fn each_route_asks_for_its_scope() {
    let Clients {
        scoped,
        expired,
        unknown,
        tokens,
    } = clients();
    let guard = Guard {
        tokens: Some(Arc::new(tokens)),
        rate: None,
    };
    let server = start(guard, LIMITS);
    let mut table = String::new();
    for route in routes() {
        let path = paths::filled(route.path, "unheard-of");
        let ask = |authorization: Option<&str>| send(&server, route.method, &path, authorization);
        let _ = writeln!(
            table,
            "{:<6} {:<4} {}",
            route.scope.map_or("open", Scope::as_str),
            route.method,
            route.path
        );
        let nobody = [
            None,
            Some("Basic YTpi".to_owned()),
            Some("Bearer ".to_owned()),
            Some("Bearer nonsense".to_owned()),
            Some(format!("Bearer {}", expired.expose())),
            Some(format!("Bearer {}", unknown.expose())),
        ];
        for authorization in nobody {
            let answer = ask(authorization.as_deref());
            let Some(_) = route.scope else {
                assert_eq!(answer.status, 200, "{route:?}: {answer:?}");
                continue;
            };
            assert_eq!(answer.status, 401, "{route:?}: {answer:?}");
            let challenge = match authorization {
                None => "Bearer",
                Some(_) => "Bearer error=\"invalid_token\"",
            };
            assert_eq!(answer.header("www-authenticate"), Some(challenge));
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json")
            );
            assert_eq!(answer.header("x-mvm-node"), Some("7"));
        }
        for (scope, token) in &scoped {
            let answer = ask(Some(&format!("bearer {}", token.expose())));
            let allowed = route.scope.is_none_or(|needed| scope.includes(needed));
            assert_eq!(
                answer.status != 403,
                allowed,
                "{route:?} {scope}: {answer:?}"
            );
            assert_ne!(answer.status, 401, "{route:?} {scope}: {answer:?}");
            if let (false, Some(needed)) = (allowed, route.scope) {
                let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
                assert_eq!(answer.header("www-authenticate"), Some(&*challenge));
                let detail = answer.json()["detail"].as_str().unwrap().to_owned();
                assert_eq!(
                    detail,
                    format!("the token {scope} lacks the scope {needed}")
                );
            }
            assert!(!answer.text().contains(token.expose()), "{answer:?}");
        }
    }
    // A new route is to be added here with thought.
    expect![[r#"
        submit POST /api/v1/jobs
        read   GET  /api/v1/jobs
        read   GET  /api/v1/jobs/{id}
        read   GET  /api/v1/jobs/{id}/events
        read   GET  /api/v1/jobs/{id}/attempts
        read   GET  /api/v1/jobs/{id}/attempts/{attempt}/{stream}
        read   GET  /api/v1/jobs/{id}/log
        read   GET  /api/v1/jobs/{id}/log/events
        submit POST /api/v1/jobs/{id}/cancel
        submit POST /api/v1/jobs/{id}/retry
        read   GET  /api/v1/schedules
        submit PUT  /api/v1/schedules/{name}
        submit DELETE /api/v1/schedules/{name}
        worker POST /api/v1/claims
        worker POST /api/v1/jobs/{id}/start
        worker POST /api/v1/jobs/{id}/renew
        worker POST /api/v1/jobs/{id}/finish
        read   GET  /api/v1/stats
        submit POST /new-job
        submit POST /queue/publish
        worker POST /queue/claim
        worker POST /queue/status/{id}
        read   GET  /queue/status/{id}
        read   GET  /queue/list
        read   GET  /queue/stats
        read   GET  /api/v1/node
        admin  POST /api/v1/backups
        admin  GET  /api/v1/backups
        admin  GET  /api/v1/backups/{backup}
        admin  POST /api/v1/node/drain
        open   GET  /health
        open   GET  /ready
        read   GET  /metrics
        read   GET  /cluster
        read   GET  /api/openapi.json
        read   GET  /
        read   GET  /workflows/{id}
    "#]]
    .assert_eq(&table);
}

#[test]
fn nodes_need_their_secret_and_no_token() {
    let [(_, read), ..] = clients().scoped;
    let guard = Guard {
        tokens: Some(Arc::new(clients().tokens)),
        rate: None,
    };
    let server = start(guard, LIMITS);
    let ask = |secret: Option<&str>| {
        let bearer = format!("Bearer {}", read.expose());
        let mut headers = vec![("content-type", "application/json")];
        headers.push(match secret {
            Some(secret) => ("x-mvm-secret", secret),
            None => ("authorization", &bearer),
        });
        let body = br#"{"version": 0, "body": null}"#;
        let request = request("POST", "/internal/v1/lead", &headers, body);
        exchange(server.address, &request).unwrap().status
    };
    assert_eq!(ask(Some(SECRET)), 400, "it is another version");
    assert_eq!(ask(Some("0123456789abcdeF")), 403);
    assert_eq!(ask(None), 403);
}

#[test]
fn an_address_is_slowed_down_and_nodes_are_not() {
    let guard = Guard {
        tokens: None,
        rate: RateLimiter::new(1),
    };
    let router = App::guarded(Arc::new(MemoryStore::new()), 7, SECRET, guard).router();
    let service = TowerToHyperService::new(router);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ask = |from: &str, path: &str, secret: &str| {
        let mut request = Request::post(path)
            .header("x-mvm-secret", secret)
            .body(Body::empty())
            .unwrap();
        let from: SocketAddr = format!("{from}:1").parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(from));
        runtime.block_on(service.call(request)).unwrap()
    };
    let statuses: Vec<_> = (0..3)
        .map(|_| ask("10.0.0.1", "/new-job", "").status())
        .collect();
    let refused = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    assert_eq!(statuses, [refused, refused, StatusCode::TOO_MANY_REQUESTS]);
    let slowed = ask("10.0.0.1", "/new-job", SECRET);
    assert_eq!(
        slowed.status(),
        429,
        "the secret is for the routes of nodes"
    );
    assert_eq!(slowed.headers()["retry-after"], "1");
    assert_eq!(ask("10.0.0.1", "/internal/v1/lead", "wrong").status(), 429);
    assert_ne!(ask("10.0.0.1", "/internal/v1/lead", SECRET).status(), 429);
    assert_eq!(ask("10.0.0.2", "/new-job", "").status(), refused);
    assert!((0..9).all(|_| ask("127.0.0.1", "/new-job", "").status() == refused));
}

/// Sends something and waits until the server closes; gives what it said.
fn until_closed(address: SocketAddr, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.write_all(sent).unwrap();
    let mut said = String::new();
    match stream.read_to_string(&mut said) {
        Ok(_) => said,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => said,
        Err(error) => panic!("the connection stays open: {error}"),
    }
}

#[test]
fn slow_and_idle_clients_are_cut() {
    let limits = Limits {
        head_timeout: Duration::from_millis(200),
        ..LIMITS
    };
    let server = start(Guard::default(), limits);
    for sent in ["", "GET /heal", "GET /health HTTP/1.1\r\nhost: x\r\n"] {
        assert_eq!(
            until_closed(server.address, sent.as_bytes()),
            "",
            "{sent:?}"
        );
    }
    let idle = until_closed(server.address, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
}

#[test]
fn heads_have_limits() {
    let server = start(Guard::default(), LIMITS);
    let status = |headers: &[(&str, &str)]| {
        let request = request("GET", "/health", headers, b"");
        exchange(server.address, &request).unwrap().status
    };
    assert_eq!(status(&[("x", "y"); 50]), 200);
    assert_eq!(status(&[("x", "y"); 70]), 431);
    assert_eq!(status(&[("x", &"y".repeat(20_000))]), 200);
    assert_eq!(status(&[("x", &"y".repeat(40_000))]), 431);
}

#[test]
fn connections_are_counted() {
    let limits = Limits {
        connections_max: 2,
        ..LIMITS
    };
    let server = start(Guard::default(), limits);
    let keep = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stream
    };
    let kept = [keep(), keep()];
    assert!(get(server.address, "/health").is_err(), "one too many");
    drop(kept);
    let again = (0..1000).any(|_| get(server.address, "/health").is_ok());
    assert!(again, "a slot that was given back is free");
}

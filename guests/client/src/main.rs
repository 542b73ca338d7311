//! Speaks to an engine as other people's programs do, by the unmodified public crate `flawless-utils`: deploys the module
//! `compat`, starts workflows with and without a response, sends messages. Panics where it sees something else than the
//! vendor's server would show; prints the id of the workflow that received the messages.

use flawless::message;
use flawless_utils::Server;
use serde_json::{Value, json};

const USAGE: &str = "usage: client URL COMPAT.WASM [TOKEN]";

#[message("pear")]
struct Pear {
    weight: u32,
}

#[message("stop")]
struct Stop;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or(USAGE)?;
    let path = arguments.next().ok_or(USAGE)?;
    let token = arguments.next();
    let bytes = std::fs::read(&path).map_err(|error| format!("could not read {path}: {error}"))?;
    // The client takes modules that are part of its program.
    let bytes: &'static [u8] = bytes.leak();

    let server = Server::new(url, token.as_deref());
    server.deploy(bytes).await?;
    // Programs deploy whenever they start.
    let module = server.deploy(bytes).await?;
    let garbage = server.deploy(b"no module").await;
    let refused = garbage.expect_err("no module was deployed");
    assert!(refused.contains("not a WebAssembly module"), "{refused}");

    let input = json!({ "text": "\u{1F980}", "list": [1, 2.5, null] });
    let echo = module.start_by_name("echo", &input).await?;
    let response = echo.response().as_deref().expect("a response");
    assert_eq!(serde_json::from_str::<Value>(response).ok(), Some(input));

    let unknown = module.start_by_name("absent", ()).await;
    let refused = unknown.expect_err("there is no such workflow");
    assert!(refused.contains("has no workflow"), "{refused}");
    let misfit = module.start_by_name("sleeps", "soon").await;
    let refused = misfit.expect_err("the input does not fit");
    assert!(refused.contains("invalid type: string"), "{refused}");

    // It takes no `Response`, so it goes on.
    let listens = module.start_by_name("listens", ()).await?;
    assert_eq!(listens.response(), &None);
    listens.send_msg(Pear { weight: 3 }).await?;
    listens.send_msg(Stop).await?;
    println!("{}", listens.id());
    Ok(())
}

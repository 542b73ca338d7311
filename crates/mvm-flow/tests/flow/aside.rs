//! Who computes for long does not keep the threads of the runtime from others.

use std::{
    thread::{self, ThreadId},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use mvm_flow::{
    abi::{Answer, Command},
    guest::{End, Guests, Host, Limits, Runnable, Stopped},
    id::ModuleHash,
};
use tokio::sync::oneshot;

/// Workflows that compute for a moment, for a while and for ever before their first command.
const MODULE: &str = r##"
(module
  (import "wasabi" "submit" (func $submit (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\"TimeNow\"")
  (func (export "wasabi::alloc") (param i32) (result i32) (i32.const 1024))
  (func $compute (param $rounds i64)
    (loop $next
      (local.set $rounds (i64.sub (local.get $rounds) (i64.const 1)))
      (br_if $next (i64.ne (local.get $rounds) (i64.const 0)))))
  (func $ask
    (drop (call $submit (i32.const 0) (i32.const 9) (i32.const 16) (i32.const 20))))
  (func (export "#flawless#module#computes%_#_%1.0.0"))
  (func (export "#flawless#workflow#init#moment") (result i32) (i32.const 1))
  (func (export "#flawless#workflow#init#while") (result i32) (i32.const 1))
  (func (export "#flawless#workflow#init#ever") (result i32) (i32.const 1))
  (func (export "#flawless#workflow#run#moment")
    (call $compute (i64.const 1000)) (call $ask))
  (func (export "#flawless#workflow#run#while")
    (call $compute (i64.const 400000000)) (call $ask))
  (func (export "#flawless#workflow#run#ever")
    (call $compute (i64.const 0)) (call $ask)))
"##;

/// Notes where it was asked, and says when it goes.
struct Noting {
    asked_on: Option<ThreadId>,
    panics: bool,
    _gone: oneshot::Sender<()>,
}

impl Noting {
    fn new() -> (Self, oneshot::Receiver<()>) {
        let (gone, went) = oneshot::channel();
        let host = Self {
            asked_on: None,
            panics: false,
            _gone: gone,
        };
        (host, went)
    }
}

impl Host for Noting {
    fn submit(&mut self, _command: Command) -> BoxFuture<'_, Result<Answer, Stopped>> {
        self.asked_on = Some(thread::current().id());
        assert!(!self.panics, "the host panics");
        async { Ok(Answer::Unit) }.boxed()
    }
}

async fn module() -> (Guests<Noting>, Runnable<Noting>) {
    let guests = Guests::new(None).unwrap();
    let bytes = wat::parse_str(MODULE).unwrap();
    let module = guests
        .module::<mvm_flow::guest::CannotRun>(&ModuleHash::of(&bytes), async { Ok(bytes.clone()) })
        .await;
    let module = module.unwrap();
    (guests, module)
}

#[tokio::test]
async fn a_guest_that_computes_for_long_goes_on_elsewhere() {
    let (_guests, module) = module().await;
    let is_asked_here = async |workflow| {
        let (host, _) = Noting::new();
        let (end, host) = module.run(workflow, host, Limits::default()).await;
        assert!(matches!(end, End::Returned), "{end:?}");
        host.asked_on == Some(thread::current().id())
    };
    assert!(!is_asked_here("while").await);
    // On a busy machine a moment may take long, but not each time.
    let mut tries = 0;
    while !is_asked_here("moment").await {
        tries += 1;
        assert!(tries < 100);
    }
}

#[tokio::test]
async fn a_guest_that_goes_on_elsewhere_ends_when_it_is_dropped() {
    let (_guests, module) = module().await;
    let (host, went) = Noting::new();
    let limits = Limits {
        instructions: u64::MAX,
        ..Limits::default()
    };
    let running = module.run("ever", host, limits);
    let ended = tokio::time::timeout(Duration::from_millis(100), running).await;
    assert!(ended.is_err());
    // Its end of this is dropped with it.
    assert!(went.await.is_err());
}

#[tokio::test]
async fn a_panic_elsewhere_is_one_here() {
    let (_guests, module) = module().await;
    let (mut host, _) = Noting::new();
    host.panics = true;
    let running = async move { module.run("while", host, Limits::default()).await.0 };
    let panicked = tokio::spawn(running).await.unwrap_err();
    assert_eq!(
        panicked.into_panic().downcast_ref::<&str>(),
        Some(&"the host panics")
    );
}

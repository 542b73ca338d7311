//! Runs modules: the border between guest and host. What crosses it is in [`crate::abi`]; what the host does about it is a [`Host`].
//!
//! ```text
//!   guest                                 host
//!   submit(in, len, &out, &len) ────────▶ reads JSON, asks the Host
//!     wasabi::alloc(length)     ◀──────── (re-entrantly) for room for the answer
//!     out, len                  ◀──────── the answer's JSON; 0, or a negative code
//! ```
//!
//! Guests are deterministic: NaNs are canonical, there are no threads and no relaxed SIMD, and the limit of computing is counted
//! in instructions. A guest that computes for long goes on [`aside`].

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::future::BoxFuture;
use wasmtime::{
    AsContextMut, Cache, CacheConfig, Caller, Config, Engine, Error, InstancePre, Linker, Memory,
    Module, OptLevel, ResourceLimiter, Store, Trap, UpdateDeadline,
};

use crate::{
    abi::{Answer, Command, SubmitError, TEXT_BYTES_MAX},
    aside::{IsLong, aside},
    execution::Halt,
    id::ModuleHash,
    journal::{Refused, Wait},
    module::{ALLOC, MEMORY, SUBMIT, init_of, run_of},
};

/// How often a guest that computes for long can be ended.
const TICK: Duration = Duration::from_millis(10);
/// For so many ticks at most a guest computes on a thread of the runtime.
const TICKS_HERE: u64 = 2;
/// Elements of all of a guest's tables.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Compiled modules in memory. A module takes about ten times its size.
const COMPILED_MAX: usize = 64;

/// What one guest may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Memory.
    pub memory_bytes: usize,
    /// Instructions between two commands, or before the first and after the last.
    pub instructions: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 * 1024 * 1024,
            // Some ten seconds.
            instructions: 20_000_000_000,
        }
    }
}

/// What a guest's commands come to.
pub trait Host: Send + 'static {
    /// Answers a command, or stops the guest.
    fn submit(&mut self, command: Command) -> BoxFuture<'_, Result<Answer, Stopped>>;
}

/// Why the host stopped a guest.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The core says so.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// It waits, and need not be in memory meanwhile.
    #[error("it waits")]
    Waits(Wait),
    /// It waits for a secret, and is looked at again.
    #[error("{0}")]
    Lacks(String),
    /// Somebody wants it to be paused.
    #[error("it is paused")]
    Paused,
    /// The store does not take what it does.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It did what workflows must not do.
    #[error("{0}")]
    Misbehaved(String),
}

/// How a guest ended.
#[derive(Debug)]
pub enum End {
    /// The workflow returned.
    Returned,
    /// The host stopped it.
    Stopped(Stopped),
    /// It trapped, as a panic does.
    Trapped {
        /// What the trap says.
        trap: String,
        /// What it did wrong before, which may be the reason.
        complaint: Option<String>,
    },
}

/// Compiles modules, and keeps what it compiled.
pub struct Guests<H: 'static> {
    engine: Engine,
    /// With each, when it was last used, counted in uses.
    compiled: Mutex<HashMap<ModuleHash, (u64, Runnable<H>)>>,
    /// One module is compiled at a time: many workflows begin with the same one.
    compiling: tokio::sync::Mutex<()>,
}

impl<H> std::fmt::Debug for Guests<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Guests").finish_non_exhaustive()
    }
}

/// Modules cannot be run here.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct CannotRun {
    what: &'static str,
    why: String,
}

impl CannotRun {
    fn new(what: &'static str) -> impl Fn(Error) -> Self {
        move |error| Self {
            what,
            why: format!("{error:#}"),
        }
    }
}

impl<H: Host> Guests<H> {
    /// Prepares to run modules. What is compiled is kept in `cache`, if given, for the next process.
    pub fn new(cache: Option<&Path>) -> Result<Self, CannotRun> {
        let mut config = Config::new();
        config
            .cranelift_nan_canonicalization(true)
            .cranelift_opt_level(OptLevel::Speed)
            .consume_fuel(true)
            .epoch_interruption(true)
            .wasm_simd(false)
            .wasm_relaxed_simd(false)
            .wasm_tail_call(false)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .wasm_extended_const(false);
        if let Some(directory) = cache {
            let mut cache = CacheConfig::new();
            cache.with_directory(directory);
            let cache =
                Cache::new(cache).map_err(CannotRun::new("the cache of compiled modules"))?;
            config.cache(Some(cache));
        }
        let engine =
            Engine::new(&config).map_err(CannotRun::new("WebAssembly cannot be run here"))?;
        let weak = engine.weak();
        let tick = move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new()
            .name("flow-ticks".into())
            .spawn(tick)
            .map_err(|error| CannotRun {
                what: "a thread cannot be started",
                why: error.to_string(),
            })?;
        Ok(Self {
            engine,
            compiled: Mutex::default(),
            compiling: tokio::sync::Mutex::default(),
        })
    }

    /// The module of that hash; `bytes` gives it if it has to be compiled.
    pub async fn module<E: From<CannotRun>>(
        &self,
        hash: &ModuleHash,
        bytes: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<Runnable<H>, E> {
        if let Some(module) = self.known(hash) {
            return Ok(module);
        }
        let _compiling = self.compiling.lock().await;
        if let Some(module) = self.known(hash) {
            return Ok(module);
        }
        let bytes = bytes.await?;
        let engine = self.engine.clone();
        let compiled = tokio::task::spawn_blocking(move || compile(&engine, &bytes)).await;
        let module = compiled.unwrap_or_else(|error| {
            Err(CannotRun {
                what: "the module could not be compiled",
                why: error.to_string(),
            })
        })?;
        self.keep(hash.clone(), module.clone());
        Ok(module)
    }

    /// The module of that hash, if it has been compiled.
    fn known(&self, hash: &ModuleHash) -> Option<Runnable<H>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = compiled.values().map(|(used, _)| *used).max().unwrap_or(0);
        let (used, module) = compiled.get_mut(hash)?;
        *used = latest + 1;
        Some(module.clone())
    }

    /// Keeps a module, in the place of the one that was not used for longest.
    fn keep(&self, hash: ModuleHash, module: Runnable<H>) {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let uses = || {
            compiled
                .iter()
                .map(|(hash, (used, _))| (*used, hash.clone()))
        };
        let latest = uses().map(|(used, _)| used).max().unwrap_or(0);
        if compiled.len() >= COMPILED_MAX
            && let Some((_, oldest)) = uses().min_by_key(|(used, _)| *used)
        {
            compiled.remove(&oldest);
        }
        compiled.insert(hash, (latest + 1, module));
    }
}

fn compile<H: Host>(engine: &Engine, bytes: &[u8]) -> Result<Runnable<H>, CannotRun> {
    let module =
        Module::new(engine, bytes).map_err(CannotRun::new("the module could not be compiled"))?;
    let mut linker = Linker::new(engine);
    let (from, name) = SUBMIT;
    linker
        .func_wrap_async(from, name, |caller, pointers: (u32, u32, u32, u32)| {
            Box::new(submit(caller, pointers))
        })
        .and_then(|linker| linker.instantiate_pre(&module))
        .map(Runnable)
        .map_err(CannotRun::new("the module cannot be linked"))
}

/// A module that can be run.
pub struct Runnable<H: 'static>(InstancePre<Guest<H>>);

impl<H> Clone for Runnable<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H> std::fmt::Debug for Runnable<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Runnable").finish_non_exhaustive()
    }
}

impl<H: Host> Runnable<H> {
    /// Runs a workflow from its beginning, and gives the host back. Dropping the future ends the guest.
    pub async fn run(&self, workflow: &str, host: H, limits: Limits) -> (End, H) {
        let is_long = IsLong::default();
        let guest = Guest {
            host,
            limits,
            is_long: IsLong::clone(&is_long),
            allocating: false,
            complaint: None,
        };
        let mut store = Store::new(self.0.module().engine(), guest);
        store.limiter(|guest| guest);
        store.set_epoch_deadline(TICKS_HERE);
        store.epoch_deadline_callback(|store| {
            store.data().is_long.store(true, Ordering::Relaxed);
            Ok(UpdateDeadline::Yield(1))
        });
        let (module, workflow) = (self.clone(), workflow.to_owned());
        let running = async move {
            let called = module.call(&mut store, &workflow).await;
            let mut guest = store.into_data();
            let end = match called {
                Ok(()) => End::Returned,
                Err(error) => ended(error, &mut guest),
            };
            (end, guest.host)
        };
        aside(Box::pin(running), is_long).await
    }

    /// Whether the module has a workflow of that name.
    pub fn has(&self, workflow: &str) -> bool {
        self.0.module().get_export(&init_of(workflow)).is_some()
    }

    async fn call(&self, store: &mut Store<Guest<H>>, workflow: &str) -> Result<(), Error> {
        let instructions = store.data().limits.instructions;
        store.set_fuel(instructions)?;
        let instance = self.0.instantiate_async(&mut *store).await?;
        let init = instance.get_typed_func::<(), i32>(&mut *store, &init_of(workflow))?;
        init.call_async(&mut *store, ()).await?;
        let run = instance.get_typed_func::<(), ()>(&mut *store, &run_of(workflow))?;
        run.call_async(&mut *store, ()).await
    }
}

fn ended<H>(error: Error, guest: &mut Guest<H>) -> End {
    let trap = error.downcast_ref::<Trap>().copied();
    let error = match error.downcast::<Stopped>() {
        Ok(stopped) => return End::Stopped(stopped),
        Err(error) => error,
    };
    let trap = match trap {
        Some(Trap::OutOfFuel) => format!(
            "it computed for {} instructions without a command, which is the limit",
            guest.limits.instructions
        ),
        Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").into(),
        None => format!("{error:#}"),
    };
    End::Trapped {
        trap,
        complaint: guest.complaint.take(),
    }
}

/// What belongs to a guest.
struct Guest<H> {
    host: H,
    limits: Limits,
    /// It computes for long.
    is_long: IsLong,
    /// The guest's allocator runs; it must not ask for anything.
    allocating: bool,
    /// What it did wrong last, for when it traps.
    complaint: Option<String>,
}

impl<H: Host> ResourceLimiter for Guest<H> {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, Error> {
        let fits = desired <= self.limits.memory_bytes;
        if !fits {
            self.complaint = Some(format!(
                "it asked for {} MiB of memory; the limit is {} MiB",
                desired.div_ceil(1024 * 1024),
                self.limits.memory_bytes / (1024 * 1024)
            ));
        }
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, Error> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// What the guest's `submit` does.
async fn submit<H: Host>(
    mut caller: Caller<'_, Guest<H>>,
    (in_pointer, in_length, out_pointer, out_length): (u32, u32, u32, u32),
) -> Result<i32, Error> {
    if caller.data().allocating {
        return Err(misbehaved("its allocator asked for something"));
    }
    let Some(memory) = caller
        .get_export(MEMORY)
        .and_then(|export| export.into_memory())
    else {
        return Ok(SubmitError::NoMemoryExport as i32);
    };
    let command = match command(&memory, &caller, in_pointer, in_length)? {
        Ok(command) => command,
        Err(complaint) => {
            caller.data_mut().complaint = Some(complaint);
            return Ok(SubmitError::InputDeserializationFailed as i32);
        }
    };
    let answer = caller
        .data_mut()
        .host
        .submit(command)
        .await
        .map_err(Error::new)?;
    let answer = serde_json::to_vec(&answer)?;
    let instructions = caller.data().limits.instructions;
    caller.set_fuel(instructions)?;
    caller.as_context_mut().set_epoch_deadline(TICKS_HERE);
    let Some(alloc) = caller
        .get_export(ALLOC)
        .and_then(|export| export.into_func())
    else {
        return Ok(SubmitError::NoAllocExport as i32);
    };
    let alloc = alloc.typed::<u32, u32>(&caller)?;
    // No answer is larger than a command, and so than four gigabytes.
    let length = u32::try_from(answer.len())?;
    caller.data_mut().allocating = true;
    let allocated = alloc.call_async(&mut caller, length).await;
    caller.data_mut().allocating = false;
    let pointer = match allocated {
        Ok(pointer) => pointer,
        // These are ends of the guest, not of one call.
        Err(error) if error.is::<Stopped>() || error.downcast_ref() == Some(&Trap::OutOfFuel) => {
            return Err(error);
        }
        Err(error) => {
            let complaint = format!("its allocator failed: {error:#}");
            caller.data_mut().complaint.get_or_insert(complaint);
            return Ok(SubmitError::AllocCallFailed as i32);
        }
    };
    let written = write(&memory, &mut caller, pointer, &answer)
        && write(&memory, &mut caller, out_pointer, &pointer.to_le_bytes())
        && write(&memory, &mut caller, out_length, &length.to_le_bytes());
    if written {
        return Ok(0);
    }
    caller.data_mut().complaint = Some("its pointers for the answer are outside its memory".into());
    Ok(SubmitError::OutputWriteFailed as i32)
}

/// Reads a command. The inner error is a complaint about its text.
fn command<H: Host>(
    memory: &Memory,
    caller: &Caller<'_, Guest<H>>,
    pointer: u32,
    length: u32,
) -> Result<Result<Command, String>, Error> {
    let (start, length) = (pointer as usize, length as usize);
    let text = memory
        .data(caller)
        .get(start..)
        .and_then(|rest| rest.get(..length));
    let Some(text) = text else {
        return Ok(Err("its pointer to a command is outside its memory".into()));
    };
    if length > TEXT_BYTES_MAX {
        return Err(misbehaved(&format!(
            "it handed over {length} bytes at once; at most {TEXT_BYTES_MAX} are allowed"
        )));
    }
    let complaint = |error: serde_json::Error| {
        let text: String = String::from_utf8_lossy(text).chars().take(200).collect();
        format!("it asked for what is no command: {error}: {text}")
    };
    Ok(serde_json::from_slice(text).map_err(complaint))
}

fn write<H: Host>(
    memory: &Memory,
    caller: &mut Caller<'_, Guest<H>>,
    pointer: u32,
    bytes: &[u8],
) -> bool {
    memory.write(caller, pointer as usize, bytes).is_ok()
}

fn misbehaved(what: &str) -> Error {
    Error::new(Stopped::Misbehaved(what.to_owned()))
}

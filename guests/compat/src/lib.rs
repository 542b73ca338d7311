//! The module that tests of the engine run: workflows that use every command of the guests' interface, and some that
//! misbehave. Each workflow's input and response are the types beside it, as JSON.

mod effects;
mod everything;
mod messages;
mod misbehaves;
mod plain;

flawless::module! { name = "compat", version = "1.0.0" }

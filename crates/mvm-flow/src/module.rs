//! What a module must be to be deployed, told from its bytes alone. Nothing is run or compiled here.
//!
//! Rust guests name themselves by their exports: `#flawless#module#NAME%_#_%VERSION` for the module, and
//! `#flawless#workflow#init#W` with `#flawless#workflow#run#W` for each workflow `W`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wasmparser::{
    ExternalKind, FuncType, Parser, Payload, TypeRef, ValType, Validator, WasmFeatures,
};

use crate::id::ModuleHash;

/// The largest module.
pub const MODULE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest name or version.
const NAME_BYTES_MAX: usize = 128;
/// Workflows of one module.
const WORKFLOWS_MAX: usize = 1_000;

const MODULE: &str = "#flawless#module#";
const BETWEEN: &str = "%_#_%";
const INIT: &str = "#flawless#workflow#init#";
const RUN: &str = "#flawless#workflow#run#";
pub(crate) const ALLOC: &str = "wasabi::alloc";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const SUBMIT: (&str, &str) = ("wasabi", "submit");

/// What guests may use of WebAssembly: what rustc 1.95 makes use of, and nothing whose result could differ from run to run.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::GC_TYPES);

/// A module, as its exports describe it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The names of its workflows.
    pub workflows: BTreeSet<String>,
    /// The hash of its bytes.
    pub hash: ModuleHash,
}

/// Why something is no module.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum NotAModule {
    #[error("the file is empty")]
    Empty,
    #[error("the module has {found} bytes; at most {MODULE_BYTES_MAX} are allowed")]
    TooLarge { found: usize },
    #[error("it is not a WebAssembly module: {why}")]
    NotWasm { why: String },
    #[error(
        "it exports no module name; build it with the crate `flawless` 1.0.0-beta.3 and `flawless::module! {{ name = \"...\", version = \"...\" }}`"
    )]
    NoName,
    #[error("it exports two module names, {first:?} and {second:?}; one crate is one module")]
    TwoNames { first: String, second: String },
    #[error(
        "the {what} {text:?} is not allowed: 1 to {NAME_BYTES_MAX} letters, digits and . _ - + are"
    )]
    BadName { what: &'static str, text: String },
    #[error("it has no workflow; mark a function by #[flawless::workflow(\"name\")]")]
    NoWorkflow,
    #[error("it has {found} workflows; at most {WORKFLOWS_MAX} are allowed")]
    TooManyWorkflows { found: usize },
    #[error("the workflow {workflow:?} exports no {part:?} function")]
    HalfWorkflow {
        workflow: String,
        part: &'static str,
    },
    #[error(
        "it imports {module:?} {field:?}, which workflows do not have; all they can use is `wasabi` `submit` (no WASI, no wasm-bindgen)"
    )]
    Import { module: String, field: String },
    #[error("the export {export:?} is not {expected}")]
    Export {
        export: String,
        expected: &'static str,
    },
    #[error("it lacks the export {export:?}; build it with the crate `flawless` 1.0.0-beta.3")]
    Missing { export: &'static str },
}

/// Says what the bytes of a module describe, or why they are none.
pub fn describe(bytes: &[u8]) -> Result<Description, NotAModule> {
    if bytes.is_empty() {
        return Err(NotAModule::Empty);
    }
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(NotAModule::TooLarge { found: bytes.len() });
    }
    let not_wasm = |error: wasmparser::BinaryReaderError| NotAModule::NotWasm {
        why: error.to_string(),
    };
    let mut validator = Validator::new_with_features(FEATURES);
    let types = validator.validate_all(bytes).map_err(not_wasm)?;
    let types = types.as_ref();
    let function = |index: u32| {
        let id = types.core_function_at(index);
        types.get(id).map(|sub| sub.unwrap_func().clone())
    };
    let mut found = Found::default();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(not_wasm)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(not_wasm)?;
                    let is_submit = (import.module, import.name) == SUBMIT
                        && matches!(import.ty, TypeRef::Func(_));
                    if !is_submit {
                        return Err(NotAModule::Import {
                            module: short(import.module),
                            field: short(import.name),
                        });
                    }
                    if let TypeRef::Func(index) = import.ty {
                        let id = types.core_type_at_in_module(index);
                        let is_typed = types.get(id).is_some_and(|sub| is(sub.unwrap_func(), 4, 1));
                        if !is_typed {
                            return Err(NotAModule::Export {
                                export: "wasabi submit (imported)".into(),
                                expected: "a function of four i32 that returns an i32",
                            });
                        }
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(not_wasm)?;
                    let signature = match export.kind {
                        ExternalKind::Func => function(export.index),
                        _ => None,
                    };
                    found.export(export.name, export.kind, signature.as_ref())?;
                }
            }
            _ => {}
        }
    }
    found.describe(ModuleHash::of(bytes))
}

/// Whether a function takes so many `i32` and returns so many.
fn is(function: &FuncType, parameters: usize, results: usize) -> bool {
    let all_i32 = |types: &[ValType]| types.iter().all(|ty| *ty == ValType::I32);
    function.params().len() == parameters
        && function.results().len() == results
        && all_i32(function.params())
        && all_i32(function.results())
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[derive(Default)]
struct Found {
    name: Option<String>,
    inits: BTreeSet<String>,
    runs: BTreeSet<String>,
    memory: bool,
    alloc: bool,
}

impl Found {
    fn export(
        &mut self,
        name: &str,
        kind: ExternalKind,
        function: Option<&FuncType>,
    ) -> Result<(), NotAModule> {
        let needs = |parameters, results, expected| {
            if function.is_some_and(|function| is(function, parameters, results)) {
                Ok(())
            } else {
                Err(NotAModule::Export {
                    export: short(name),
                    expected,
                })
            }
        };
        if let Some(identity) = name.strip_prefix(MODULE) {
            needs(0, 0, "a function without parameters and results")?;
            if let Some(first) = &self.name {
                return Err(NotAModule::TwoNames {
                    first: short(first),
                    second: short(identity),
                });
            }
            self.name = Some(identity.to_owned());
        } else if let Some(workflow) = name.strip_prefix(INIT) {
            needs(0, 1, "a function without parameters that returns an i32")?;
            self.inits.insert(workflow.to_owned());
        } else if let Some(workflow) = name.strip_prefix(RUN) {
            needs(0, 0, "a function without parameters and results")?;
            self.runs.insert(workflow.to_owned());
        } else if name == ALLOC {
            needs(1, 1, "a function of an i32 that returns an i32")?;
            self.alloc = true;
        } else if name == MEMORY {
            if kind != ExternalKind::Memory {
                return Err(NotAModule::Export {
                    export: MEMORY.into(),
                    expected: "a memory",
                });
            }
            self.memory = true;
        }
        Ok(())
    }

    fn describe(self, hash: ModuleHash) -> Result<Description, NotAModule> {
        let identity = self.name.ok_or(NotAModule::NoName)?;
        let (name, version) = identity
            .split_once(BETWEEN)
            .ok_or_else(|| bad_name("name", &identity))?;
        if !is_name(name) {
            return Err(bad_name("name", name));
        }
        if !is_name(version) {
            return Err(bad_name("version", version));
        }
        if self.inits.is_empty() && self.runs.is_empty() {
            return Err(NotAModule::NoWorkflow);
        }
        if self.inits.len() > WORKFLOWS_MAX {
            return Err(NotAModule::TooManyWorkflows {
                found: self.inits.len(),
            });
        }
        let half = |workflow: &String, part| NotAModule::HalfWorkflow {
            workflow: short(workflow),
            part,
        };
        if let Some(workflow) = self.inits.difference(&self.runs).next() {
            return Err(half(workflow, "run"));
        }
        if let Some(workflow) = self.runs.difference(&self.inits).next() {
            return Err(half(workflow, "init"));
        }
        if let Some(workflow) = self.inits.iter().find(|workflow| !is_name(workflow)) {
            return Err(bad_name("workflow's name", workflow));
        }
        if !self.alloc {
            return Err(NotAModule::Missing { export: ALLOC });
        }
        if !self.memory {
            return Err(NotAModule::Missing { export: MEMORY });
        }
        Ok(Description {
            name: name.to_owned(),
            version: version.to_owned(),
            workflows: self.inits,
            hash,
        })
    }
}

fn bad_name(what: &'static str, text: &str) -> NotAModule {
    NotAModule::BadName {
        what,
        text: short(text),
    }
}

/// Whether a text may name a module, a version or a workflow: it stands in addresses and file names.
pub fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.bytes().all(fits)
        && text != "."
        && text != ".."
}

pub(crate) fn init_of(workflow: &str) -> String {
    format!("{INIT}{workflow}")
}

pub(crate) fn run_of(workflow: &str) -> String {
    format!("{RUN}{workflow}")
}

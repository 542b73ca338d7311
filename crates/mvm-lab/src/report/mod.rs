//! What people and programs read of a run: functions of its events.

mod json;
mod lines;
mod terminal;

pub use json::json_lines;
pub use lines::lines;
pub use terminal::{Colours, terminal};

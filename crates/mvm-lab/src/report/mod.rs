//! What people and programs read of a run: functions of its events.

mod json;
mod junit;
mod lines;
mod prefixed;
mod sent;
mod terminal;

pub use json::{json_lines, json_lines_of};
pub use junit::Junit;
pub use lines::lines;
pub use prefixed::Prefixed;
pub use sent::Sent;
pub use terminal::{Colours, terminal};

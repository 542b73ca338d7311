//! Draws bad values, from a seed.

use serde_json::{Map, Value, json};

/// SplitMix64.
pub(crate) struct Draw {
    state: u64,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// True in so many of a hundred cases.
    pub(crate) fn often(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn one<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Some bytes, few or many, of any sort; never none.
    pub(crate) fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        let length = 1 + self.below(length_max);
        match self.below(5) {
            0 => (0..length).map(|_| self.next().to_le_bytes()[0]).collect(),
            1 => "\u{1f600}\u{202e}\u{e9}".repeat(length).into_bytes(),
            2 => vec![0; length],
            3 => self
                .one(&[
                    "..",
                    "/",
                    "a/../b",
                    "' OR 1=1 --",
                    "%00",
                    "-1",
                    "null",
                    "1:2",
                    " ",
                ])
                .as_bytes()
                .to_vec(),
            _ => vec![b'x'; length],
        }
    }

    /// A parameter's value: about as often good as bad.
    pub(crate) fn parameter(&mut self, schema: &Value) -> Vec<u8> {
        let good: Vec<String> = match (schema["type"].as_str(), schema["enum"].as_array()) {
            (_, Some(words)) => words
                .iter()
                .map(|word| word.as_str().unwrap().to_owned())
                .collect(),
            (Some("integer"), _) => ["0", "1", "7", "500"].map(str::to_owned).to_vec(),
            _ => ["linux", "1:0", "key-1", "key-2"]
                .map(str::to_owned)
                .to_vec(),
        };
        match self.below(10) {
            0..6 => self.one(&good).clone().into_bytes(),
            6 => self.one(&EXTREMES).to_string().into_bytes(),
            _ => self.bytes(200),
        }
    }

    /// Changes something in a value, mostly to what it should not be.
    pub(crate) fn mutate(&mut self, value: &mut Value, depth: usize) {
        let deeper = depth < 4 && self.often(70);
        match value {
            Value::Object(fields) if deeper && !fields.is_empty() => {
                self.mutate_object(fields, depth)
            }
            Value::Array(items) if deeper && !items.is_empty() => {
                let place = self.below(items.len());
                self.mutate(&mut items[place], depth + 1);
            }
            _ => *value = self.value(),
        }
    }

    fn mutate_object(&mut self, fields: &mut Map<String, Value>, depth: usize) {
        let names: Vec<String> = fields.keys().cloned().collect();
        let name = self.one(&names).clone();
        match self.below(6) {
            0 => drop(fields.remove(&name)),
            1 => {
                let field = self.one(&FIELDS).to_string();
                let value = self.value();
                fields.insert(field, value);
            }
            2 => {
                let value = fields.remove(&name).unwrap_or_default();
                fields.insert(name.to_uppercase(), value);
            }
            _ => self.mutate(&mut fields[&name], depth + 1),
        }
    }

    fn value(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!(self.often(50)),
            2 => number(*self.one(&EXTREMES)),
            3 => json!(1.5),
            4 => json!(1e300),
            5 => json!(String::from_utf8_lossy(&self.bytes(300))),
            6 => json!(self.one(&["", "fetch", "process", "completed", "a\u{0}b", "\u{7f}"])),
            7 => json!([]),
            8 => json!({}),
            9 => (0..1 + self.below(200)).fold(json!(1), |inner, _| json!([inner])),
            10 => (0..40).map(|number| json!(format!("l{number}"))).collect(),
            _ => json!({"report": "succeeded", "url": "http://x/", "key": "k", "limit": 1}),
        }
    }

    /// Damages text so that it may be none any more.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        let place = self.below(bytes.len() + 1);
        match self.below(6) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, 0xff),
            2 => bytes.insert(place, 0),
            3 => drop(bytes.splice(place..place, *br#""\ud800""#)),
            4 => bytes.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
            _ => bytes.extend_from_slice(b"}"),
        }
    }
}

fn number(number: i128) -> Value {
    // Beyond 64 bits it becomes a fraction, as it does when the node reads it.
    serde_json::from_str(&number.to_string()).unwrap()
}

/// At and beyond the edges of what numbers hold.
const EXTREMES: [i128; 10] = [
    -1,
    i64::MIN as i128,
    0,
    501,
    u32::MAX as i128,
    u32::MAX as i128 + 1,
    i64::MAX as i128,
    i64::MAX as i128 + 1,
    u64::MAX as i128,
    u64::MAX as i128 + 1,
];

const FIELDS: [&str; 12] = [
    "",
    "x",
    "labels",
    "priority",
    "backoff",
    "concurrency",
    "dependencies",
    "attempts_max",
    "idempotency_key",
    "kinds",
    "slots",
    "token",
];

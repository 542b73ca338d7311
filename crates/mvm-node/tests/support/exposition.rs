//! Reads Prometheus and OpenMetrics text, and is stricter than those who usually read it.
//!
//! Sources: Prometheus's "Exposition formats", and the OpenMetrics 1.0 specification, as far as counters, gauges, histograms
//! and infos go.

// Each test binary uses a part of this.
#![allow(dead_code, reason = "shared by several test binaries")]

use std::collections::BTreeMap;

pub(crate) type Labels = BTreeMap<String, String>;

/// A metric with its samples.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    /// By name and labels.
    pub(crate) samples: BTreeMap<(String, Labels), f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Exposition {
    pub(crate) families: BTreeMap<String, Family>,
}

impl Exposition {
    /// Reads Prometheus text, version 0.0.4.
    pub(crate) fn prometheus(text: &str) -> Result<Self, String> {
        parse(text, |kind, family| match kind {
            "counter" if !family.ends_with("_total") => {
                Err("a counter does not end in _total".into())
            }
            "counter" | "gauge" => Ok(vec![family.to_owned()]),
            "histogram" => Ok(parts_of_histogram(family)),
            other => Err(format!("type {other}")),
        })
    }

    /// Reads OpenMetrics text, version 1.0.0.
    pub(crate) fn openmetrics(text: &str) -> Result<Self, String> {
        let text = text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?;
        parse(text, |kind, family| match kind {
            "counter" | "gauge" if family.ends_with("_total") => {
                Err("a family's name ends in _total".into())
            }
            "counter" => Ok(vec![format!("{family}_total")]),
            "gauge" => Ok(vec![family.to_owned()]),
            "info" => Ok(vec![format!("{family}_info")]),
            "histogram" => Ok(parts_of_histogram(family)),
            other => Err(format!("type {other}")),
        })
    }

    /// The value of a sample, of which the labels that matter are given; summed over all others.
    #[track_caller]
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |found: &Labels| {
            labels
                .iter()
                .all(|(label, value)| found.get(*label).map(String::as_str) == Some(*value))
        };
        let samples = self.families.values().flat_map(|family| &family.samples);
        let mut values = samples
            .filter(|((known, found), _)| known == name && fits(found))
            .map(|(_, value)| *value)
            .peekable();
        assert!(values.peek().is_some(), "no sample {name} {labels:?}");
        values.sum()
    }
}

fn parts_of_histogram(family: &str) -> Vec<String> {
    ["_bucket", "_count", "_sum"]
        .map(|part| format!("{family}{part}"))
        .into()
}

fn parse(
    text: &str,
    samples_of: impl Fn(&str, &str) -> Result<Vec<String>, String>,
) -> Result<Exposition, String> {
    if !text.ends_with('\n') {
        return Err("the last line does not end".into());
    }
    let mut exposition = Exposition::default();
    let mut current = String::new();
    let mut names = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = |problem: &str| format!("line {}: {problem}: {line}", number + 1);
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| at("no help"))?;
            check_name(name).map_err(|problem| at(&problem))?;
            let family = Family {
                help: help.to_owned(),
                ..Family::default()
            };
            if exposition.families.insert(name.into(), family).is_some() {
                return Err(at("a second time"));
            }
            name.clone_into(&mut current);
            names.clear();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| at("no type"))?;
            let family = exposition.families.get_mut(name);
            let family = family.filter(|family| name == current && family.kind.is_empty());
            let family = family.ok_or_else(|| at("a type without help before it"))?;
            kind.clone_into(&mut family.kind);
            names = samples_of(kind, name).map_err(|problem| at(&problem))?;
        } else {
            let (name, labels, value) = sample(line).map_err(|problem| at(&problem))?;
            if !names.contains(&name) {
                return Err(at("not a sample of the family above"));
            }
            let family = exposition.families.get_mut(&current);
            let family = family.ok_or_else(|| at("a sample without a family"))?;
            if family.kind == "counter" && !(value.is_finite() && value >= 0.0) {
                return Err(at("not a count"));
            }
            if family.samples.insert((name, labels), value).is_some() {
                return Err(at("a duplicate"));
            }
        }
    }
    for (name, family) in &exposition.families {
        if family.kind == "histogram" {
            check_histogram(name, family)?;
        }
    }
    Ok(exposition)
}

fn check_name(name: &str) -> Result<(), String> {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let valid = name.bytes().next().is_some_and(first)
        && name
            .bytes()
            .all(|byte| first(byte) || byte.is_ascii_digit());
    valid.then_some(()).ok_or_else(|| format!("name {name:?}"))
}

fn sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    check_name(name)?;
    let mut labels = Labels::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inner.split_once("=\"").ok_or("labels")?;
            check_name(label)?;
            let (value, after) = quoted(after)?;
            if labels.insert(label.into(), value).is_some() {
                return Err(format!("label {label} twice"));
            }
            match after.strip_prefix(',') {
                Some(more) => inner = more,
                None => {
                    rest = after.strip_prefix('}').ok_or("labels do not end")?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    Ok((name.into(), labels, number(value)?))
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[place + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, same @ ('\\' | '"'))) => same,
                _ => return Err("an unknown escape".into()),
            }),
            other => value.push(other),
        }
    }
    Err("a label's value does not end".into())
}

fn number(text: &str) -> Result<f64, String> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        _ if text.bytes().all(|byte| b"0123456789.eE+-".contains(&byte)) => text
            .parse()
            .map_err(|error: std::num::ParseFloatError| error.to_string()),
        _ => Err(format!("value {text:?}")),
    }
}

fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for ((sample, labels), value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let buckets = series.entry(labels).or_default();
        match (sample.ends_with("_bucket"), bound) {
            (true, Some(bound)) => buckets.push((number(&bound)?, *value)),
            (false, None) => {}
            _ => return Err(format!("{name}: le where it does not belong")),
        }
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        if !buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1) {
            return Err(format!("{name} {labels:?}: not cumulative: {buckets:?}"));
        }
        let part = |part: &str| {
            family
                .samples
                .get(&(format!("{name}{part}"), labels.clone()))
        };
        let (Some(count), Some(_)) = (part("_count"), part("_sum")) else {
            return Err(format!("{name} {labels:?}: no count or no sum"));
        };
        if buckets.last() != Some(&(f64::INFINITY, *count)) {
            return Err(format!("{name} {labels:?}: +Inf is not the count"));
        }
    }
    Ok(())
}

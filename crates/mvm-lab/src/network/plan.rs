//! How machines are linked, as data: a mesh, a star, a ring, a line, or regions that are far apart.
//!
//! Pure: names go in, and what links there are and how long they take comes out. The network makes it so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use mvm_fabric::{Latency, LatencyError};

/// Which machines are linked, and how far apart they are.
///
/// Only machines that are linked exchange frames: no machine passes frames on for others, unless what runs in it
/// does. Machines stand in the order of their numbers, that is, of their sorted names (`node10` before `node2`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkPlan {
    /// Each with each.
    #[default]
    FullMesh,
    /// One with each, and the others with it only.
    Star {
        /// The one.
        centre: String,
    },
    /// Each with the one before and the one after it, and the last with the first.
    Ring,
    /// Each with the one before and the one after it.
    Line,
    /// Each with each, with delays between regions.
    Regions(Regions),
}

/// Groups of machines and how long the way between them takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    /// The regions; each machine is in one of them.
    pub regions: Vec<Region>,
    /// The round trip from each region to each, by position: a square table, the same there and back.
    ///
    /// Either direction takes half of it. What stands for a region with itself is between its own machines.
    pub round_trips: Vec<Vec<Duration>>,
}

/// Machines that are close to one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it is called in errors.
    pub name: String,
    /// The names of its machines.
    pub machines: Vec<String>,
}

impl Region {
    /// A region of these machines.
    pub fn new(name: &str, machines: &[&str]) -> Region {
        Region {
            name: name.to_owned(),
            machines: machines.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

impl Regions {
    /// Three regions `west`, `centre` and `east` of these machines: a round trip takes 30 ms from west to centre,
    /// 80 ms from centre to east, 120 ms from west to east, and no time within a region.
    pub fn example(west: &[&str], centre: &[&str], east: &[&str]) -> Regions {
        let table = [[0, 30, 120], [30, 0, 80], [120, 80, 0]];
        Regions {
            regions: vec![
                Region::new("west", west),
                Region::new("centre", centre),
                Region::new("east", east),
            ],
            round_trips: table
                .iter()
                .map(|row| row.iter().copied().map(Duration::from_millis).collect())
                .collect(),
        }
    }
}

/// Why machines cannot be linked as a plan says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The plan names a machine that is not there.
    #[error("there is no machine {name:?}, there are {known:?}")]
    UnknownMachine {
        /// The name in the plan.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A machine is in two regions, or twice in one.
    #[error("machine {name:?} stands in two regions")]
    InTwoRegions {
        /// The machine.
        name: String,
    },
    /// A machine is in no region.
    #[error("machine {name:?} stands in no region")]
    InNoRegion {
        /// The machine.
        name: String,
    },
    /// The table of round trips is not square, or has another size.
    #[error(
        "{regions} regions need {regions} rows of {regions} round trips, there are rows of {rows:?}"
    )]
    TableSize {
        /// How many regions there are.
        regions: usize,
        /// How long the rows of the table are.
        rows: Vec<usize>,
    },
    /// A round trip takes another time seen from the other side.
    #[error(
        "a round trip from {one} to {other} takes {there:?}, and from {other} to {one} {back:?}"
    )]
    TableNotSymmetric {
        /// The one region.
        one: String,
        /// The other region.
        other: String,
        /// From the one.
        there: Duration,
        /// From the other.
        back: Duration,
    },
    /// A round trip is longer than can be.
    #[error("the way from {one} to {other}, half a round trip, cannot be so long: {source}")]
    TooFar {
        /// The one region.
        one: String,
        /// The other region.
        other: String,
        /// What is wrong.
        source: LatencyError,
    },
}

/// What a plan comes to for certain machines. A direction is told by the positions of both machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Where there is no link.
    pub(crate) missing: BTreeSet<(usize, usize)>,
    /// What the way takes, where it takes any time.
    pub(crate) delays: BTreeMap<(usize, usize), Latency>,
}

impl LinkPlan {
    /// Tells which links there are between machines of these names, in their order.
    pub(crate) fn resolve(&self, names: &[&str]) -> Result<Resolved, PlanError> {
        let last = names.len().saturating_sub(1);
        let adjacent = |from: usize, to: usize| from.abs_diff(to) == 1;
        let resolved = match self {
            LinkPlan::FullMesh => Resolved::default(),
            LinkPlan::Star { centre } => {
                let centre = position(names, centre)?;
                only(names, |from, to| from == centre || to == centre)
            }
            LinkPlan::Ring => only(names, |from, to| {
                adjacent(from, to) || from.abs_diff(to) == last
            }),
            LinkPlan::Line => only(names, adjacent),
            LinkPlan::Regions(regions) => Resolved {
                delays: regions.delays(names)?,
                ..Resolved::default()
            },
        };
        Ok(resolved)
    }
}

impl fmt::Display for LinkPlan {
    /// What it is, as in "the topology is a ...".
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkPlan::FullMesh => write!(formatter, "full mesh"),
            LinkPlan::Star { centre } => write!(formatter, "star around {centre}"),
            LinkPlan::Ring => write!(formatter, "ring"),
            LinkPlan::Line => write!(formatter, "line"),
            LinkPlan::Regions(regions) => {
                let told = regions.regions.iter();
                let told: Vec<_> = told
                    .map(|region| format!("{} ({})", region.name, region.machines.join(", ")))
                    .collect();
                write!(formatter, "mesh of regions {}", told.join(", "))
            }
        }
    }
}

impl Regions {
    fn delays(&self, names: &[&str]) -> Result<BTreeMap<(usize, usize), Latency>, PlanError> {
        let one_way = self.one_way()?;
        let places = self.places(names)?;
        let delays = pairs(names.len()).map(|(from, to)| {
            let delay = one_way[places[from]][places[to]];
            ((from, to), delay)
        });
        Ok(delays
            .filter(|(_, delay)| *delay != Latency::ZERO)
            .collect())
    }

    /// Halves the table, if it is one.
    fn one_way(&self) -> Result<Vec<Vec<Latency>>, PlanError> {
        let count = self.regions.len();
        let rows: Vec<_> = self.round_trips.iter().map(Vec::len).collect();
        if rows != vec![count; count] {
            return Err(PlanError::TableSize {
                regions: count,
                rows,
            });
        }
        let row = |one| (0..count).map(|other| self.half(one, other)).collect();
        (0..count).map(row).collect()
    }

    /// The way from one region to another, by position.
    fn half(&self, one: usize, other: usize) -> Result<Latency, PlanError> {
        let name = |position: usize| self.regions[position].name.clone();
        let (there, back) = (self.round_trips[one][other], self.round_trips[other][one]);
        if there != back {
            return Err(PlanError::TableNotSymmetric {
                one: name(one),
                other: name(other),
                there,
                back,
            });
        }
        Latency::new(there / 2).map_err(|source| PlanError::TooFar {
            one: name(one),
            other: name(other),
            source,
        })
    }

    /// Tells each machine's region.
    fn places(&self, names: &[&str]) -> Result<Vec<usize>, PlanError> {
        let mut places = vec![None; names.len()];
        for (place, region) in self.regions.iter().enumerate() {
            for name in &region.machines {
                let machine = &mut places[position(names, name)?];
                if machine.replace(place).is_some() {
                    return Err(PlanError::InTwoRegions { name: name.clone() });
                }
            }
        }
        let placed = names.iter().zip(places).map(|(name, place)| {
            place.ok_or_else(|| PlanError::InNoRegion {
                name: (*name).to_owned(),
            })
        });
        placed.collect()
    }
}

fn only(names: &[&str], linked: impl Fn(usize, usize) -> bool) -> Resolved {
    let missing = pairs(names.len()).filter(|(from, to)| !linked(*from, *to));
    Resolved {
        missing: missing.collect(),
        delays: BTreeMap::new(),
    }
}

/// Every direction between two of `count` machines.
fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count)
        .flat_map(move |from| (0..count).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
}

fn position(names: &[&str], name: &str) -> Result<usize, PlanError> {
    names
        .iter()
        .position(|known| *known == name)
        .ok_or_else(|| PlanError::UnknownMachine {
            name: name.to_owned(),
            known: names.iter().map(|known| (*known).to_owned()).collect(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

    /// One row per machine: `+` where there is a link.
    #[track_caller]
    fn check(plan: &LinkPlan, names: &[&str], expected: &[&str]) {
        let missing = plan.resolve(names).unwrap().missing;
        let cell = |from: usize, to: usize| match (from == to, missing.contains(&(from, to))) {
            (true, _) => '.',
            (false, true) => '-',
            (false, false) => '+',
        };
        let rows: Vec<String> = (0..names.len())
            .map(|from| (0..names.len()).map(|to| cell(from, to)).collect())
            .collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn plans_mean_what_they_say() {
        let star = LinkPlan::Star {
            centre: "n2".to_owned(),
        };
        check(&star, &NAMES[..4], &[".+--", "+.++", "-+.-", "-+-."]);
        check(
            &LinkPlan::Line,
            &NAMES[..4],
            &[".+--", "+.+-", "-+.+", "--+."],
        );
        check(
            &LinkPlan::Ring,
            &NAMES[..4],
            &[".+-+", "+.+-", "-+.+", "+-+."],
        );
        check(&LinkPlan::Ring, &NAMES[..3], &[".++", "+.+", "++."]);
        check(&LinkPlan::Ring, &NAMES[..2], &[".+", "+."]);
        for plan in [LinkPlan::FullMesh, LinkPlan::Line, LinkPlan::Ring] {
            check(&plan, &NAMES[..1], &["."]);
        }
        check(&LinkPlan::FullMesh, &NAMES[..3], &[".++", "+.+", "++."]);
    }

    #[test]
    fn the_example_has_half_of_each_round_trip_in_either_direction() {
        let regions = Regions::example(&["n1", "n2"], &["n3"], &["n4", "n5"]);
        let resolved = LinkPlan::Regions(regions).resolve(&NAMES).unwrap();
        assert!(resolved.missing.is_empty());
        let delay = |from: usize, to: usize| {
            let delay = resolved.delays.get(&(from - 1, to - 1));
            delay.map_or(0, |delay| delay.get().as_millis())
        };
        assert_eq!([delay(1, 2), delay(4, 5)], [0, 0]);
        assert_eq!([delay(1, 3), delay(3, 2)], [15, 15]);
        assert_eq!([delay(3, 4), delay(5, 3)], [40, 40]);
        assert_eq!([delay(1, 5), delay(4, 2)], [60, 60]);
    }

    #[track_caller]
    fn check_refused(change: impl FnOnce(&mut Regions), expected: &str) {
        let mut regions = Regions::example(&["n1", "n2"], &["n3"], &["n4", "n5"]);
        change(&mut regions);
        let error = LinkPlan::Regions(regions).resolve(&NAMES).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn plans_that_make_no_sense_are_refused() {
        let star = LinkPlan::Star {
            centre: "n9".to_owned(),
        };
        assert_eq!(
            star.resolve(&NAMES[..2]).unwrap_err().to_string(),
            "there is no machine \"n9\", there are [\"n1\", \"n2\"]"
        );
        check_refused(
            |regions| regions.regions[0].machines.push("n3".to_owned()),
            "machine \"n3\" stands in two regions",
        );
        check_refused(
            |regions| regions.regions[2].machines.clear(),
            "machine \"n4\" stands in no region",
        );
        check_refused(
            |regions| regions.regions[1].machines[0] = "n6".to_owned(),
            "there is no machine \"n6\", there are [\"n1\", \"n2\", \"n3\", \"n4\", \"n5\"]",
        );
        check_refused(
            |regions| regions.round_trips[1].truncate(2),
            "3 regions need 3 rows of 3 round trips, there are rows of [3, 2, 3]",
        );
        check_refused(
            |regions| regions.round_trips[0][1] = Duration::from_millis(31),
            "a round trip from west to centre takes 31ms, and from centre to west 30ms",
        );
        check_refused(
            |regions| regions.round_trips[1][1] = Duration::MAX,
            "the way from centre to centre, half a round trip, cannot be so long: \
             a delay of 9223372036854775807 s is longer than 3600 s",
        );
    }
}

//! A topology as a TOML file: its shape, and errors that lead to the line. `docs/topology.md` tells people about it.
//!
//! Only the file's form is checked here; whether its machines make a topology is [`Topology::members`]' to say, which
//! reading ends with.

mod machine;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use mvm_machine::machine::Mtu;
use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Deserializer, de::Error as _};

use self::machine::{KindWord, MachineTable};
use super::{ImageContents, MemoryPlan, SegmentConfig, Topology, TopologyError};
use crate::network::{LinkPlan, Region, Regions};

/// A word this much like a known one is taken for a slip of it; 1 is the same word.
const LIKENESS_MIN: f64 = 0.8;

/// Where in a file a mistake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The key, such as `machines.node1.memory_mib`; empty where there is none.
    pub key: String,
}

impl fmt::Display for FilePlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.path.display(), self.line)?;
        match self.key.is_empty() {
            true => Ok(()),
            false => write!(formatter, ": {}", self.key),
        }
    }
}

/// Why a file is no topology.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read.
    #[error("could not read the topology {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no TOML, or says something that no topology says.
    #[error("{place}: {problem}{}", suggestion.as_ref().map(|word| format!("; did you mean {word:?}?")).unwrap_or_default())]
    Form {
        /// Where.
        place: FilePlace,
        /// What is wrong.
        problem: String,
        /// What may be meant.
        suggestion: Option<String>,
    },
    /// Its machines make no topology.
    #[error("{path:?}: {source}")]
    Topology {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TopologyError,
    },
}

impl Topology {
    /// Reads a topology from a TOML file.
    ///
    /// # Errors
    ///
    /// If there is no such file, or it is no topology: with the line and the key where that can be told.
    pub fn read(path: &Path) -> Result<Topology, FileError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Topology::parse(&text, path)
    }

    /// Reads a topology from TOML; `path` is what errors say of where it comes from.
    ///
    /// # Errors
    ///
    /// If it is no topology: with the line and the key where that can be told.
    pub fn parse(text: &str, path: &Path) -> Result<Topology, FileError> {
        let deserializer = toml::Deserializer::parse(text)
            .map_err(|error| form_error(text, path, String::new(), &error))?;
        let file: TopologyFile =
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                let key = match error.path().to_string() {
                    root if root == "." => String::new(),
                    key => key,
                };
                form_error(text, path, key, error.inner())
            })?;
        let mut topology = Topology::from(file);
        topology.find_host_files(path.parent().unwrap_or(Path::new("")));
        match topology.members() {
            Ok(_) => Ok(topology),
            Err(source) => Err(FileError::Topology {
                path: path.to_owned(),
                source,
            }),
        }
    }
}

/// The shape of the file as a JSON schema (draft 2020-12), for editors.
pub fn file_schema() -> Schema {
    schema_for!(TopologyFile)
}

fn form_error(text: &str, path: &Path, key: String, error: &toml::de::Error) -> FileError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.as_bytes().iter().take(start);
    let place = FilePlace {
        path: path.to_owned(),
        line: 1 + before.filter(|byte| **byte == b'\n').count(),
        key,
    };
    let problem = error.message().trim().replace('\n', ", ");
    FileError::Form {
        place,
        suggestion: suggestion(&problem),
        problem,
    }
}

/// The expected word that an unknown one is most like, as serde tells both: the first word in backquotes is unknown.
fn suggestion(problem: &str) -> Option<String> {
    if !problem.starts_with("unknown ") {
        return None;
    }
    let mut words = problem.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    let likeness = |word: &&str| strsim::jaro_winkler(unknown, word);
    let nearest = words.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&nearest) >= LIKENESS_MIN).then(|| nearest.to_owned())
}

/// What a lab of mvm-ci is made of.
#[derive(Deserialize, JsonSchema)]
#[schemars(title = "Topology of mvm-ci")]
#[serde(deny_unknown_fields)]
struct TopologyFile {
    /// The machines by host name. They are numbered from 1 in the order of their names.
    machines: BTreeMap<String, MachineTable>,
    /// The segments by number, 1 to 254, where they are not like all others.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, SegmentTable>")]
    segments: BTreeMap<SegmentKey, SegmentTable>,
    /// What machines boot.
    #[serde(default)]
    image: ImageTable,
    /// Where the machines' memory lies.
    #[serde(default)]
    memory: MemoryWord,
    /// From launch to an answering agent, such as "90s"; 60s.
    #[serde(default, deserialize_with = "duration_or_none")]
    #[schemars(with = "Option<String>")]
    boot_timeout: Option<Duration>,
    /// The test that `mvm-ci test` runs.
    #[serde(default)]
    script: ScriptTable,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum MemoryWord {
    /// What machines have in common is shared.
    #[default]
    Shared,
    /// Each has its own: checkpoints are quicker.
    Own,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ImageTable {
    /// What machines are that do not say so themselves.
    kind: KindWord,
    /// Of a Debian image; bookworm.
    suite: Option<String>,
    /// Of the kernel, loaded at boot.
    modules: Vec<String>,
    /// Of this host, by name or path, with their libraries; "mvm-ci" is the one that reads this.
    programs: Vec<String>,
    /// Of this host and whole for minimal machines; of the suite and installed for Debian ones.
    packages: Vec<String>,
    /// Whether there are iptables, ip6tables, nft, tc and the modules behind them.
    firewall: bool,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ScriptTable {
    /// Seen from this file; test.py in a folder, NAME.py beside NAME.toml.
    path: Option<PathBuf>,
    /// Of all of the script, such as "10m"; 1h.
    #[serde(deserialize_with = "duration_or_none")]
    #[schemars(with = "Option<String>")]
    timeout: Option<Duration>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SegmentTable {
    /// Bytes after the Ethernet header, from 1280 to 65535; 1500.
    #[serde(deserialize_with = "mtu")]
    #[schemars(with = "u16", range(min = 1280))]
    mtu: Mtu,
    /// Who is next to whom.
    links: LinksWord,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum LinksWord {
    #[default]
    FullMesh,
    Ring,
    Line,
    Star {
        centre: String,
    },
    Regions(#[schemars(with = "RegionsTable")] KnownRegions),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RegionsTable {
    /// The machines of each region, by its name.
    machines: BTreeMap<String, Vec<String>>,
    /// How far regions are from one another; those not told are next to one another.
    round_trips: Vec<RoundTrip>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RoundTrip {
    /// Two regions.
    between: [String; 2],
    /// There and back, such as "80ms".
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "String")]
    time: Duration,
}

/// A segment's number; TOML's keys are words.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SegmentKey(u8);

impl<'de> Deserialize<'de> for SegmentKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SegmentKey, D::Error> {
        let key = String::deserialize(deserializer)?;
        let number = key.parse().map_err(|_| {
            D::Error::custom(format!("{key:?} is no number of a segment, from 1 to 254"))
        })?;
        Ok(SegmentKey(number))
    }
}

/// Reads a time such as `"30ms"` or `"1m 30s"`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse::<jiff::SignedDuration>();
    let wrong = || {
        D::Error::custom(format!(
            "{text:?} is no time such as \"30ms\" or \"1m 30s\""
        ))
    };
    Duration::try_from(parsed.map_err(|_| wrong())?).map_err(|_| wrong())
}

fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mtu, D::Error> {
    Mtu::new(u64::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn duration_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

impl From<TopologyFile> for Topology {
    fn from(file: TopologyFile) -> Topology {
        let machines = file
            .machines
            .into_iter()
            .map(|(name, machine)| machine.named(name));
        let mut topology = Topology::new(machines.collect());
        let segments = file.segments.into_iter();
        topology.segments = segments
            .map(|(key, segment)| (key.0, segment.into()))
            .collect();
        topology.image = file.image.into();
        topology.memory = match file.memory {
            MemoryWord::Shared => MemoryPlan::Shared,
            MemoryWord::Own => MemoryPlan::Own,
        };
        topology.boot_timeout = file.boot_timeout.unwrap_or(topology.boot_timeout);
        topology.script.path = file.script.path;
        topology.script.timeout = file.script.timeout.unwrap_or(topology.script.timeout);
        topology
    }
}

impl From<ImageTable> for ImageContents {
    fn from(image: ImageTable) -> ImageContents {
        let usual = ImageContents::default();
        ImageContents {
            kind: image.kind.into(),
            suite: image.suite.unwrap_or(usual.suite),
            modules: image.modules,
            programs: image.programs,
            renamed_programs: Vec::new(),
            packages: image.packages,
            firewall: image.firewall,
        }
    }
}

impl From<SegmentTable> for SegmentConfig {
    fn from(segment: SegmentTable) -> SegmentConfig {
        SegmentConfig {
            mtu: segment.mtu,
            links: segment.links.into(),
        }
    }
}

impl From<LinksWord> for LinkPlan {
    fn from(links: LinksWord) -> LinkPlan {
        match links {
            LinksWord::FullMesh => LinkPlan::FullMesh,
            LinksWord::Ring => LinkPlan::Ring,
            LinksWord::Line => LinkPlan::Line,
            LinksWord::Star { centre } => LinkPlan::Star { centre },
            LinksWord::Regions(KnownRegions(regions)) => LinkPlan::Regions(regions),
        }
    }
}

/// Regions whose round trips are between them.
#[derive(Deserialize)]
#[serde(try_from = "RegionsTable")]
struct KnownRegions(Regions);

impl TryFrom<RegionsTable> for KnownRegions {
    type Error = String;

    /// Pairs that nothing is said about are next to one another.
    fn try_from(table: RegionsTable) -> Result<KnownRegions, String> {
        let names: Vec<&String> = table.machines.keys().collect();
        let mut round_trips = vec![vec![Duration::ZERO; names.len()]; names.len()];
        let mut told = BTreeSet::new();
        for RoundTrip { between, time } in &table.round_trips {
            let place = |region: &String| {
                let found = names.iter().position(|name| *name == region);
                found.ok_or_else(|| format!("there is no region {region:?}, there are {names:?}"))
            };
            let (one, other) = (place(&between[0])?, place(&between[1])?);
            if !told.insert((one.min(other), one.max(other))) {
                return Err(format!("a round trip between {between:?} is told twice"));
            }
            round_trips[one][other] = *time;
            round_trips[other][one] = *time;
        }
        let regions = table.machines.into_iter();
        Ok(KnownRegions(Regions {
            regions: regions
                .map(|(name, machines)| Region { name, machines })
                .collect(),
            round_trips,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{ImageKind, MachineConfig},
        *,
    };

    const PATH: &str = "topology.toml";

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let error = Topology::parse(text, Path::new(PATH)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_page_of_the_file_is_true() {
        let page = include_str!("../../../../docs/topology.md");
        let mut blocks = page
            .split("```toml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap());
        let [whole, smallest] = [blocks.next().unwrap(), blocks.next().unwrap()];
        assert_eq!(blocks.next(), None);
        let topology = Topology::parse(whole, Path::new(PATH)).unwrap();
        let members = topology.members().unwrap();
        let told: Vec<String> = members
            .values()
            .map(|member| {
                let cards: Vec<String> = member
                    .cards
                    .iter()
                    .map(|card| card.ipv4.to_string())
                    .collect();
                let services = member.config.services.iter();
                let services: Vec<&str> = services.map(|service| service.name.as_str()).collect();
                format!("{} {cards:?} {services:?}", member.config.name)
            })
            .collect();
        assert_eq!(
            told,
            [
                r#"berlin ["192.168.1.1"] ["web"]"#,
                r#"bonn ["192.168.1.2"] []"#,
                r#"client ["192.168.2.3"] []"#,
                r#"oslo ["192.168.1.4", "192.168.2.4"] ["web"]"#,
                r#"tokyo ["192.168.1.5"] []"#,
            ]
        );
        let bonn = &members["bonn"];
        assert_eq!(bonn.image.kind, ImageKind::Debian);
        assert_eq!(
            bonn.image.packages,
            ["iproute2", "iptables", "nftables", "nginx"]
        );
        let provision = &bonn.config.provision;
        let file = &provision.files["/etc/nginx/conf.d/a.conf"];
        assert_eq!(file.mode, 0o600);
        assert_eq!(
            provision.units["b.service"],
            "[Service]\nExecStart=/bin/sleep 1000\nRestart=always\n[Unit]\nAfter=a.service\nWants=a.service\n"
        );
        assert_eq!(members["oslo"].config.cpus, 2);
        let LinkPlan::Regions(regions) = &topology.segments[&1].links else {
            panic!("{:?}", topology.segments);
        };
        let names: Vec<&str> = regions
            .regions
            .iter()
            .map(|region| region.name.as_str())
            .collect();
        assert_eq!(names, ["asia", "europe"]);
        let trip = Duration::from_millis(230);
        assert_eq!(
            regions.round_trips,
            [[Duration::ZERO, trip], [trip, Duration::ZERO]]
        );
        assert_eq!(topology.segments[&2].mtu.bytes(), 9000);
        assert!(members["oslo"].config.gateway);
        assert_eq!(topology.boot_timeout, Duration::from_secs(90));

        let smallest = Topology::parse(smallest, Path::new(PATH)).unwrap();
        let usual = Topology::new(["node1", "node2"].map(MachineConfig::new).into());
        assert_eq!(format!("{smallest:?}"), format!("{usual:?}"));
    }

    #[test]
    fn the_schema_is_the_one_that_editors_are_given() {
        let schema = serde_json::to_string_pretty(&file_schema()).unwrap();
        expect_test::expect_file!["../../../../docs/topology.schema.json"]
            .assert_eq(&format!("{schema}\n"));
    }

    #[test]
    fn a_slip_is_found_at_its_line_and_key() {
        check_refused(
            "[machines.node1]\nmemory_mb = 1\n",
            "topology.toml:2: machines.node1.memory_mb: unknown field `memory_mb`, expected one of \
             `memory_mib`, `cpus`, `segments`, `gateway`, `data_disk`, `image`, `packages`, `services`, `files`, `units`, \
             `users`, `environment`, `aliases`; did you mean \"memory_mib\"?",
        );
        check_refused(
            "[machines.node1]\n[segments.1]\nlinks = \"rong\"\n",
            "topology.toml:3: segments.1.links: unknown variant `rong`, expected one of \
             `full-mesh`, `ring`, `line`, `star`, `regions`; did you mean \"ring\"?",
        );
        check_refused(
            "[machines.node1]\nzzz = 1\n",
            "topology.toml:2: machines.node1.zzz: unknown field `zzz`, expected one of \
             `memory_mib`, `cpus`, `segments`, `gateway`, `data_disk`, `image`, `packages`, `services`, `files`, `units`, \
             `users`, `environment`, `aliases`",
        );
        check_refused(
            "[machines.node1]\nmemory_mib = \"256\"\n",
            "topology.toml:2: machines.node1.memory_mib: invalid type: string \"256\", expected u32",
        );
        check_refused(
            "[machines.node1]\nsegments = [1, 300]\n",
            "topology.toml:2: machines.node1.segments[1]: invalid value: integer `300`, expected u8",
        );
        check_refused(
            "[machines.node1]\n[segments.one]\n",
            "topology.toml:2: segments.one: \"one\" is no number of a segment, from 1 to 254",
        );
        check_refused("", "topology.toml:1: missing field `machines`");
    }

    #[test]
    fn times_and_regions_are_checked() {
        check_refused(
            "boot_timeout = \"soon\"\n[machines.node1]\n",
            "topology.toml:1: boot_timeout: \"soon\" is no time such as \"30ms\" or \"1m 30s\"",
        );
        check_refused(
            "boot_timeout = \"-1s\"\n[machines.node1]\n",
            "topology.toml:1: boot_timeout: \"-1s\" is no time such as \"30ms\" or \"1m 30s\"",
        );
        check_refused(
            "[machines.n1]\n[segments.1]\nmtu = 68\n",
            "topology.toml:3: segments.1.mtu: could not give a network card an MTU of 68 bytes: 1280 to 65535 is \
             possible, since IPv6 needs the one and the length of a packet is told in 16 bits",
        );
        let regions = |trips: &str| {
            format!(
                "[machines.n1]\n[segments.1.links.regions]\nmachines = {{ a = [\"n1\"] }}\nround_trips = [{trips}]\n"
            )
        };
        check_refused(
            &regions("{ between = [\"a\", \"b\"], time = \"1ms\" }"),
            "topology.toml:2: segments.1.links.regions: there is no region \"b\", there are [\"a\"]",
        );
        let twice = "{ between = [\"a\", \"a\"], time = \"1ms\" }, { between = [\"a\", \"a\"], time = \"2ms\" }";
        check_refused(
            &regions(twice),
            "topology.toml:2: segments.1.links.regions: a round trip between [\"a\", \"a\"] is told twice",
        );
    }

    #[test]
    fn what_is_no_toml_or_no_topology_is_refused() {
        check_refused(
            "[machines.node1\n",
            "topology.toml:1: unclosed table, expected `]`",
        );
        check_refused(
            "[machines.Node1]\n",
            "\"topology.toml\": could not build the topology: \"Node1\" is no host name (1 to 63 of a-z, 0-9 and -, a letter first, no - last)",
        );
        let error = Topology::read(Path::new("/nowhere/topology.toml")).unwrap_err();
        assert!(matches!(error, FileError::Read { .. }), "{error}");
    }
}

//! The network without machines: words, errors, and what is put back.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::{
    event::Event,
    topology::{MachineConfig, Topology},
};

const NAMES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

struct Fixture {
    network: Network,
    events: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new(plan: &LinkPlan, count: usize) -> Fixture {
        Fixture::seeded(plan, count, Seed(1))
    }

    fn seeded(plan: &LinkPlan, count: usize, seed: Seed) -> Fixture {
        let machines = NAMES[..count].iter().copied().map(MachineConfig::new);
        let topology = Topology::new(machines.collect()).linked(plan.clone());
        Fixture::of(&topology, seed)
    }

    /// n1 on segments 1 and 2, n2 to n4 on both, n5 on the second only, and n6 on none.
    fn two_segments() -> Fixture {
        let mut machines: Vec<_> = NAMES.into_iter().map(MachineConfig::new).collect();
        machines.push(MachineConfig::new("n6"));
        for (machine, segments) in
            machines
                .iter_mut()
                .zip([&[1, 2], &[1, 2], &[2, 1], &[1, 2], &[2][..], &[]])
        {
            machine.segments = segments.to_vec();
        }
        Fixture::of(&Topology::new(machines), Seed(1))
    }

    fn of(topology: &Topology, seed: Seed) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let recorder = Recorder::create(
            &folder.path().join("events"),
            vec![Box::new(move |stamped| {
                if let Event::Network { change, effect_ms } = &stamped.event {
                    assert!(*effect_ms <= stamped.at_ms);
                    lock(&heard).push(change.clone());
                }
            })],
            None,
        );
        let members = topology.members().unwrap();
        let network = Network::connect(
            members.values(),
            &topology.segments,
            seed,
            &recorder.unwrap(),
        );
        let network = network.unwrap();
        Fixture {
            network,
            events,
            _folder: folder,
        }
    }

    /// One row per speaker, one column per listener: `+` is heard.
    fn heard(&self) -> Vec<String> {
        Fixture::heard_in(&self.network)
    }

    fn heard_in(network: &Network) -> Vec<String> {
        let cuts = network.cuts().unwrap();
        let names = network.names();
        let cell = |from: &str, to: &str| {
            let cut = cuts.contains(&(from.to_owned(), to.to_owned()));
            match (from == to, cut) {
                (true, _) => '.',
                (false, true) => '-',
                (false, false) => '+',
            }
        };
        let row = |from: &&str| names.iter().map(|to| cell(from, to)).collect();
        names.iter().map(row).collect()
    }

    fn last_event(&self) -> String {
        lock(&self.events).last().cloned().unwrap_or_default()
    }
}

type Change = fn(&Network) -> Result<(), NetworkError>;

/// Makes a change to a whole network of five, and again to the healed one.
#[track_caller]
fn check(change: Change, event: &str, heard: &[&str]) {
    let fixture = Fixture::new(&LinkPlan::FullMesh, 5);
    change(&fixture.network).unwrap();
    assert_eq!(fixture.last_event(), event);
    assert_eq!(fixture.heard(), heard);
    fixture.network.heal_all().unwrap();
    assert_eq!(fixture.heard(), WHOLE);
}

const WHOLE: [&str; 5] = [".++++", "+.+++", "++.++", "+++.+", "++++."];
const N2_ALONE: [&str; 5] = [".-+++", "-.---", "+-.++", "+-+.+", "+-++."];
const HALVES: [&str; 5] = [".+---", "+.---", "--.++", "--+.+", "--++."];

#[test]
fn partitions_mean_what_they_say() {
    check(
        |n| n.cut("n1", "n2"),
        "cut n1 - n2",
        &[".-+++", "-.+++", "++.++", "+++.+", "++++."],
    );
    check(
        |n| n.one_way("n1", "n2"),
        "cut n1 -> n2",
        &[".-+++", "+.+++", "++.++", "+++.+", "++++."],
    );
    check(|n| n.isolate("n2"), "isolate n2", &N2_ALONE);
    check(|n| n.partition(&[&["n2"]]), "partition n2", &N2_ALONE);
    check(|n| n.halves(), "partition n1, n2 | n3, n4, n5", &HALVES);
    check(
        |n| n.partition(&[&["n1"], &["n2"]]),
        "partition n1 | n2",
        &[".----", "-.---", "--.++", "--+.+", "--++."],
    );
    check(
        |n| n.bridge("n1"),
        "bridge n1 between n2, n3 | n4, n5",
        &[".++++", "+.+--", "++.--", "+--.+", "+--+."],
    );
    check(
        |n| n.bridge_between(&["n1"], &["n2", "n3"]),
        "bridge n4, n5 between n1 | n2, n3",
        &[".--++", "-.+++", "-+.++", "+++.+", "++++."],
    );
    check(
        |n| n.bridge_between(&["n1", "n2"], &["n3", "n4", "n5"]),
        "partition n1, n2 | n3, n4, n5",
        &HALVES,
    );
    check(
        |n| n.majorities_ring(),
        "majorities ring n1, n2, n3, n4, n5",
        &[".+--+", "+.+--", "-+.+-", "--+.+", "+--+."],
    );
    check(
        |n| {
            n.halves()?;
            n.heal_one("n1")
        },
        "heal n1",
        &[".++++", "+.---", "+-.++", "+-+.+", "+-++."],
    );
    check(
        |n| {
            n.isolate("n1")?;
            n.isolate("n2")?;
            n.heal("n1", "n2")
        },
        "heal n1 - n2",
        &[".+---", "+.---", "--.++", "--+.+", "--++."],
    );
}

#[test]
fn minorities_are_drawn_from_the_seed() {
    let draws = |seed: u64| {
        let fixture = Fixture::seeded(&LinkPlan::FullMesh, 5, Seed(seed));
        let draw = |_| fixture.network.random_minority().unwrap();
        let draws: Vec<_> = (0..4).map(draw).collect();
        let last = draws[3].join(", ");
        assert_eq!(fixture.last_event(), format!("random minority {last}"));
        draws
    };
    let first = draws(1);
    assert_eq!(first, draws(1));
    assert_ne!(first, draws(2));
    assert!(first.iter().all(|names| names.len() == 2), "{first:?}");
    assert!(first.iter().any(|names| *names != first[0]), "{first:?}");
}

#[test]
fn a_restored_switch_draws_from_the_seed_of_the_run() {
    let fixture = Fixture::seeded(&LinkPlan::FullMesh, 2, Seed(7));
    assert_eq!(fixture.network.switch().seed(), Ok(7));
    let restored = Switch::start().unwrap();
    fixture.network.replace_switch(restored).unwrap();
    assert_eq!(fixture.network.switch().seed(), Ok(7));
}

#[test]
fn nothing_heals_what_the_topology_does_not_link() {
    const LINE: [&str; 5] = [".+---", "+.+--", "-+.+-", "--+.+", "---+."];
    let fixture = Fixture::new(&LinkPlan::Line, 5);
    let network = &fixture.network;
    assert_eq!(fixture.last_event(), "a line");
    assert_eq!(fixture.heard(), LINE);
    network.heal_all().unwrap();
    assert_eq!(fixture.heard(), LINE);
    network.halves().unwrap();
    let halves = [".+---", "+.---", "---+-", "--+.+", "---+."];
    assert_eq!(fixture.heard()[..2], halves[..2]);
    network.heal_one("n3").unwrap();
    assert_eq!(fixture.heard(), LINE);
    let guard = network.disturb(|n| n.bridge("n3")).unwrap();
    assert_eq!(fixture.heard(), LINE);
    drop(guard);
    assert_eq!(fixture.heard(), LINE);
    network.all().loss(0.5).unwrap();
    let impaired = network.switch().links().unwrap().impairments().count();
    assert_eq!(impaired, 8, "only links that there are");
    for error in [
        network.heal("n1", "n3").unwrap_err(),
        network.cut("n1", "n3").unwrap_err(),
        network.direction("n1", "n3").map(drop).unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "could not change the network: there is no link between \"n1\" and \"n3\", the topology is a line"
        );
    }
}

#[track_caller]
fn check_refused(change: Change, expected: &str) {
    let fixture = Fixture::new(&LinkPlan::FullMesh, 3);
    let error = change(&fixture.network).unwrap_err();
    assert_eq!(error.to_string(), format!("could not {expected}"));
    assert_eq!(fixture.last_event(), "", "nothing happened");
    assert_eq!(fixture.network.cuts().unwrap(), []);
}

#[test]
fn names_that_make_no_sense_are_refused() {
    let unknown =
        "change the network: there is no machine \"n9\", there are [\"n1\", \"n2\", \"n3\"]";
    let changes: [Change; 12] = [
        |n| n.cut("n1", "n9"),
        |n| n.heal("n9", "n1"),
        |n| n.one_way("n1", "n9"),
        |n| n.isolate("n9"),
        |n| n.heal_one("n9"),
        |n| n.bridge("n9"),
        |n| n.bridge_between(&["n1"], &["n9"]),
        |n| n.partition(&[&["n1", "n9"]]),
        |n| n.link("n1", "n9").map(drop),
        |n| n.of("n9").map(drop),
        |n| n.sent_by("n9").map(drop),
        |n| n.sent_to("n9").map(drop),
    ];
    for change in changes {
        check_refused(change, unknown);
    }
    check_refused(
        |n| n.cut("n1", "n1"),
        "change the network: machine \"n1\" has no link to itself",
    );
    check_refused(
        |n| n.partition(&[&["n1", "n2"], &["n2"]]),
        "partition the network: machine \"n2\" stands in two groups",
    );
    check_refused(
        |n| n.bridge_between(&["n1", "n1"], &["n2"]),
        "partition the network: machine \"n1\" stands in two groups",
    );
    check_refused(
        |n| n.partition(&[&["n1", "n2", "n3"], &[]]),
        "partition the network: n1, n2, n3 |  would part no machine from another",
    );
    check_refused(
        |n| n.bridge_between(&["n1"], &[]),
        "partition the network: n1 |  would part no machine from another",
    );
    let two = Fixture::new(&LinkPlan::FullMesh, 2);
    assert_eq!(
        two.network.majorities_ring().unwrap_err().to_string(),
        "could not change the network: 2 nodes are too few for this partition, which takes 3"
    );
}

#[test]
fn values_that_cannot_be_are_refused() {
    let hour = "a delay of 3601 s is longer than 3600 s";
    check_refused(
        |n| n.all().delay(Duration::from_secs(3601)),
        &format!("set the delay: {hour}"),
    );
    check_refused(
        |n| n.all().reorder(0.5, Duration::from_secs(3601)),
        &format!("set the reordering: {hour}"),
    );
    let number = "is no probability, which is a number from 0 to 1";
    check_refused(
        |n| n.all().loss(1.5),
        &format!("set the loss: 1.5 {number}"),
    );
    check_refused(
        |n| n.all().duplicate(-0.1),
        &format!("set the duplication: -0.1 {number}"),
    );
    check_refused(
        |n| n.all().corrupt(f64::NAN),
        &format!("set the corruption: NaN {number}"),
    );
    check_refused(
        |n| n.all().reorder(2.0, Duration::ZERO),
        &format!("set the reordering: 2 {number}"),
    );
    check_refused(
        |n| n.all().rate(0, 1),
        "set the rate: a rate of 0 bits per second passes nothing; cut the link instead",
    );
    let mtu = "set the MTU: 0 bytes were given, 68 to 65535 can be";
    check_refused(|n| n.all().mtu(0), mtu);
    check_refused(
        |n| {
            n.all().impair(Impairment {
                mtu_bytes: Some(0),
                ..Impairment::NONE
            })
        },
        mtu,
    );
}

const TEN: Duration = Duration::from_millis(10);

#[test]
fn each_aspect_is_changed_by_itself_and_the_last_change_counts() {
    let fixture = Fixture::new(&LinkPlan::FullMesh, 3);
    let network = &fixture.network;
    let told = |from: &str, to: &str| words::impairment(&network.impairment(from, to).unwrap());
    network.link("n1", "n2").unwrap().delay(TEN).unwrap();
    assert_eq!(fixture.last_event(), "delay 10 ms n1 - n2");
    network.direction("n1", "n2").unwrap().loss(0.1).unwrap();
    assert_eq!(fixture.last_event(), "loss 10 % n1 -> n2");
    assert_eq!(told("n1", "n2"), "loss 10 %, delay 10 ms");
    assert_eq!(told("n2", "n1"), "delay 10 ms");
    network.all().duplicate(0.5).unwrap();
    network.sent_to("n2").unwrap().corrupt(0.25).unwrap();
    assert_eq!(
        told("n1", "n2"),
        "loss 10 %, corrupt 25 %, duplicate 50 %, delay 10 ms"
    );
    assert_eq!(told("n3", "n2"), "corrupt 25 %, duplicate 50 %");
    assert_eq!(told("n2", "n3"), "duplicate 50 %");
    network.of("n2").unwrap().reorder(0.5, TEN).unwrap();
    assert_eq!(fixture.last_event(), "reorder 50 % by 10 ms from and to n2");
    network.sent_by("n2").unwrap().rate(8000, 1500).unwrap();
    network.direction("n2", "n1").unwrap().mtu(500).unwrap();
    assert_eq!(
        told("n2", "n1"),
        "MTU 500 bytes, duplicate 50 %, rate 8000 bit/s with a queue of 1500 bytes, \
         delay 10 ms, reorder 50 % by 10 ms"
    );
    network.all().loss(0.0).unwrap();
    network.all().reorder(0.0, TEN).unwrap();
    network.all().duplicate(0.0).unwrap();
    assert_eq!(told("n1", "n2"), "corrupt 25 %, delay 10 ms");
    assert_eq!(told("n1", "n3"), "nothing wrong");
    network.of("n2").unwrap().clear().unwrap();
    assert_eq!(fixture.last_event(), "clear from and to n2");
    assert_eq!(told("n2", "n1"), "nothing wrong");
    let links = network.switch().links().unwrap();
    assert_eq!(
        links.impairments().count(),
        0,
        "what is in order costs nothing"
    );
}

#[test]
fn clearing_goes_back_to_the_distance_of_regions() {
    let regions = Regions::example(&["n1"], &["n2"], &["n3"]);
    let fixture = Fixture::new(&LinkPlan::Regions(regions), 3);
    let network = &fixture.network;
    assert_eq!(
        fixture.last_event(),
        "a mesh of regions west (n1), centre (n2), east (n3)"
    );
    let told = |from: &str, to: &str| words::impairment(&network.impairment(from, to).unwrap());
    network.all().loss(0.1).unwrap();
    assert_eq!(told("n1", "n2"), "loss 10 %, delay 15 ms");
    assert_eq!(told("n3", "n1"), "loss 10 %, delay 60 ms");
    network.all().delay(Duration::ZERO).unwrap();
    assert_eq!(told("n1", "n2"), "loss 10 %");
    network.all().clear().unwrap();
    assert_eq!(told("n2", "n1"), "delay 15 ms");
    assert_eq!(told("n2", "n3"), "delay 40 ms");
}

#[test]
fn a_guard_puts_back_what_it_changed_and_nothing_else() {
    let fixture = Fixture::new(&LinkPlan::FullMesh, 5);
    let network = &fixture.network;
    network.isolate("n2").unwrap();
    network.all().delay(TEN).unwrap();
    let guard = network.disturb(|network| {
        network.halves()?;
        network.of("n1")?.loss(0.5)?;
        network.direction("n1", "n3")?.delay(Duration::ZERO)?;
        network.link("n3", "n4")?.corrupt(0.5)
    });
    let guard = guard.unwrap();
    assert_eq!(fixture.heard(), HALVES);
    // Changed by others in the meantime, and not by the guard.
    network.one_way("n4", "n5").unwrap();
    drop(guard);
    assert_eq!(
        fixture.last_event(),
        "put back: partition n1, n2 | n3, n4, n5; loss 50 % from and to n1; delay 0 ms n1 -> n3; \
         corrupt 50 % n3 - n4"
    );
    let told = |from: &str, to: &str| words::impairment(&network.impairment(from, to).unwrap());
    assert_eq!(told("n1", "n3"), "delay 10 ms");
    assert_eq!(told("n5", "n1"), "delay 10 ms");
    assert_eq!(told("n4", "n3"), "delay 10 ms", "neither cut nor healed");
    assert_eq!(
        fixture.heard(),
        [".-+++", "-.---", "+-.++", "+-+.-", "+-++."]
    );

    network.heal_all().unwrap();
    network.disturb(|n| n.isolate("n2")).unwrap().keep();
    assert_eq!(fixture.heard(), N2_ALONE);
    let guard = network.disturb(|n| n.heal_all()).unwrap();
    assert_eq!(fixture.heard(), WHOLE);
    guard.put_back().unwrap();
    assert_eq!(fixture.heard(), N2_ALONE);
}

#[test]
fn a_disturbance_that_fails_halfway_is_put_back() {
    let fixture = Fixture::new(&LinkPlan::FullMesh, 5);
    let failed = fixture.network.disturb(|network| {
        network.isolate("n2")?;
        network.isolate("n9")
    });
    assert!(matches!(
        failed.map(drop),
        Err(NetworkError::UnknownMachine { .. })
    ));
    assert_eq!(fixture.heard(), WHOLE);
    assert_eq!(fixture.last_event(), "put back: isolate n2");
}

#[tokio::test(start_paused = true)]
async fn a_link_flaps_and_is_left_whole() {
    let fixture = Fixture::new(&LinkPlan::FullMesh, 5);
    let network = &fixture.network;
    let (up, down) = (TEN, 2 * TEN);
    let total = Duration::from_millis(75);
    network.flap_for("n1", "n2", up, down, total).await.unwrap();
    let (cut, heal) = ("flap: cut n1 - n2", "flap: heal n1 - n2");
    assert_eq!(*lock(&fixture.events), [cut, heal, cut, heal, cut, heal]);
    assert_eq!(fixture.heard(), WHOLE);

    let flap = network.flap("n1", "n2", up, down).unwrap();
    tokio::time::sleep(Duration::from_millis(15)).await;
    assert_ne!(fixture.heard(), WHOLE);
    flap.stop().await.unwrap();
    assert_eq!(fixture.heard(), WHOLE);

    let flap = network.flap("n1", "n2", up, down).unwrap();
    tokio::time::sleep(Duration::from_millis(15)).await;
    assert_ne!(fixture.heard(), WHOLE);
    drop(flap);
    assert_eq!(fixture.heard(), WHOLE);
    let events = lock(&fixture.events).len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lock(&fixture.events).len(), events, "it still flaps");

    let bounded = network.flap_for("n1", "n2", up, down, total);
    let dropped = timeout(Duration::from_millis(15), bounded).await;
    assert!(dropped.is_err());
    assert_eq!(fixture.last_event(), heal);
    assert_eq!(fixture.heard(), WHOLE);
    check_refused(
        |n| n.flap("n1", "n2", TEN, Duration::ZERO).map(drop),
        "let a link flap: it is to be up for 10ms and down for 0ns, 1ms is the least",
    );
}

#[test]
fn counters_go_by_name() {
    let fixture = Fixture::new(&LinkPlan::FullMesh, 2);
    let counters = fixture.network.counters().unwrap();
    assert_eq!(counters.keys().collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!(counters["n1"][0].dropped_from.frames(Cause::Lost), 0);
    let two = Fixture::two_segments();
    let cards = |network: &Network| -> Vec<usize> {
        let counters = network.counters().unwrap();
        counters.values().map(Vec::len).collect()
    };
    assert_eq!(cards(&two.network), [2, 2, 2, 2, 1, 0]);
    assert_eq!(cards(&two.network.on(1).unwrap()), [1, 1, 1, 1, 0, 0]);
}

/// Makes a change to two segments; tells who is heard on the first and on the second one.
#[track_caller]
fn check_segments(change: Change, event: &str, first: &[&str], second: &[&str]) {
    let fixture = Fixture::two_segments();
    change(&fixture.network).unwrap();
    assert_eq!(fixture.last_event(), event);
    let heard = |segment| Fixture::heard_in(&fixture.network.on(segment).unwrap());
    assert_eq!(heard(1), first, "on segment 1");
    assert_eq!(heard(2), second, "on segment 2");
}

#[test]
fn verbs_concern_every_segment_or_the_one_in_view() {
    const FIRST: [&str; 4] = [".+++", "+.++", "++.+", "+++."];
    check_segments(
        |n| n.isolate("n1"),
        "isolate n1",
        &[".---", "-.++", "-+.+", "-++."],
        &[".----", "-.+++", "-+.++", "-++.+", "-+++."],
    );
    check_segments(
        |n| n.on(2)?.isolate("n1"),
        "isolate n1 on segment 2",
        &FIRST,
        &[".----", "-.+++", "-+.++", "-++.+", "-+++."],
    );
    check_segments(
        |n| n.halves(),
        "partition n1, n2 | n3, n4, n5",
        &[".+--", "+.--", "--.+", "--+."],
        &[".+---", "+.---", "--.++", "--+.+", "--++."],
    );
    check_segments(
        |n| {
            n.on(1)?.halves()?;
            n.on(2)?.partition(&[&["n5"]])
        },
        "partition n5 on segment 2",
        &[".+--", "+.--", "--.+", "--+."],
        &[".+++-", "+.++-", "++.+-", "+++.-", "----."],
    );
    check_segments(
        |n| {
            n.halves()?;
            n.on(1)?.heal_all()
        },
        "heal all on segment 1",
        &FIRST,
        &[".+---", "+.---", "--.++", "--+.+", "--++."],
    );
    check_segments(
        |n| n.majorities_ring(),
        "majorities ring n1, n2, n3, n4, n5",
        &[".+--", "+.+-", "-+.+", "--+."],
        &[".+--+", "+.+--", "-+.+-", "--+.+", "+--+."],
    );
    check_segments(
        |n| n.one_way("n4", "n5"),
        "cut n4 -> n5",
        &FIRST,
        &[".++++", "+.+++", "++.++", "+++.-", "++++."],
    );
}

#[test]
fn impairments_concern_every_segment_or_the_one_in_view() {
    let fixture = Fixture::two_segments();
    let network = &fixture.network;
    let (first, second) = (network.on(1).unwrap(), network.on(2).unwrap());
    let delays = || {
        [&first, &second].map(|segment| segment.impairment("n1", "n2").unwrap().delay.base.get())
    };
    network.link("n1", "n2").unwrap().delay(TEN).unwrap();
    assert_eq!(delays(), [TEN, TEN]);
    let guard = network.disturb(|network| network.on(2)?.all().delay(TEN * 2));
    assert_eq!(delays(), [TEN, TEN * 2]);
    drop(guard.unwrap());
    assert_eq!(delays(), [TEN, TEN]);
    first.of("n2").unwrap().clear().unwrap();
    assert_eq!(delays(), [Duration::ZERO, TEN]);
}

#[test]
fn segments_that_make_no_sense_are_refused() {
    let fixture = Fixture::two_segments();
    let network = &fixture.network;
    let refused = |result: Result<(), NetworkError>, expected: &str| {
        assert_eq!(
            result.unwrap_err().to_string(),
            format!("could not change the network: {expected}")
        );
    };
    refused(
        network.on(3).map(drop),
        "there is no segment 3, there are [1, 2]",
    );
    let first = network.on(1).unwrap();
    refused(first.isolate("n5"), "machine \"n5\" is not on segment 1");
    refused(network.isolate("n6"), "machine \"n6\" is on no segment");
    refused(
        network.partition(&[&["n6"]]),
        "machine \"n6\" is on no segment",
    );
    let second = network.on(2).unwrap();
    second.cut("n1", "n5").unwrap();
    assert_eq!(network.cuts().unwrap().len(), 2);
    assert_eq!(first.cuts().unwrap(), []);
}

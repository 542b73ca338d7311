//! The network of real machines, bent: who hears whom, how long it takes, and what is lost.
//!
//! What a green run does not prove: that delays are kept to the millisecond on a loaded host (only that nothing
//! comes early), and how any one protocol copes.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    lab::Lab,
    network::{Cause, LinkPlan, Network, Regions},
    scenario::{Failure, Outcome, Run, ScenarioFuture},
    topology::{MachineConfig, Topology},
};
use support::ALLOWED;

const NAMES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
/// A greeting takes a millisecond; this long it is awaited where it must not come.
const LISTEN: Duration = Duration::from_millis(1500);
/// How often machines greet before one that is not heard counts as such.
const ROUNDS_MAX: usize = 3;
/// A neighbour whose card is known for good is not asked for, so that to be heard takes one direction only.
const LEARN: &str = "arp -i eth1 -s";

#[track_caller]
fn check(
    name: &'static str,
    links: LinkPlan,
    machines: usize,
    run: for<'a> fn(&'a Run) -> ScenarioFuture<'a>,
) {
    let mut machines: Vec<_> = NAMES[..machines]
        .iter()
        .copied()
        .map(MachineConfig::new)
        .collect();
    for machine in &mut machines {
        machine.memory_mib = 128;
    }
    support::check(name, Topology::new(machines).linked(links), run);
}

/// Starts all machines and tells each the others' card addresses.
async fn start(lab: &Lab) -> Outcome {
    lab.start_all().await?;
    for node in lab.nodes() {
        let others = lab.nodes().filter(|other| other.name() != node.name());
        let learn = others.map(|other| {
            let card = &other.member().cards[0];
            format!("{LEARN} {} {}", card.ipv4, card.mac)
        });
        node.succeed(&learn.collect::<Vec<_>>().join(" && "))
            .await?;
    }
    Ok(())
}

/// Ensures who hears whom: one row per speaker, one column per listener, `+` is heard.
///
/// A loaded host may lose a greeting, so that it may be repeated; what must not be heard never may.
async fn ensure_heard(lab: &Lab, when: &str, expected: &[&str]) -> Outcome {
    let names: Vec<&str> = lab.nodes().map(|node| node.name()).collect();
    let mut rounds = Vec::new();
    loop {
        rounds.push(lab.greet(LISTEN).await?);
        let hears = |from: &str, to: &str| rounds.iter().any(|round| round.hears(to, from));
        let cell = |from: &str, to: &str| match (from == to, hears(from, to)) {
            (true, _) => '.',
            (false, true) => '+',
            (false, false) => '-',
        };
        let row = |from: &&str| names.iter().map(|to| cell(from, to)).collect();
        let heard: Vec<String> = names.iter().map(row).collect();
        if heard == expected {
            return Ok(());
        }
        ensure!(
            rounds.len() < ROUNDS_MAX,
            "{when}: {heard:?}, not {expected:?}"
        );
    }
}

const WHOLE: [&str; 5] = [".++++", "+.+++", "++.++", "+++.+", "++++."];
const N3_ALONE: [&str; 5] = [".+-++", "+.-++", "--.--", "++-.+", "++-+."];

async fn machines_hear_whom_they_should(run: &Run) -> Outcome {
    let (lab, network) = (&run.lab, run.lab.network());
    start(lab).await?;
    ensure_heard(lab, "at first", &WHOLE).await?;
    network.isolate("n3")?;
    ensure_heard(lab, "isolated", &N3_ALONE).await?;
    network.heal_one("n3")?;
    ensure_heard(lab, "healed", &WHOLE).await?;
    network.one_way("n1", "n2")?;
    let one_way = [".-+++", "+.+++", "++.++", "+++.+", "++++."];
    ensure_heard(lab, "one-way", &one_way).await?;
    network.bridge("n3")?;
    let bridge = [".++--", "+.+--", "++.++", "--+.+", "--++."];
    ensure_heard(lab, "bridge", &bridge).await?;
    network.majorities_ring()?;
    let ring = [".+--+", "+.+--", "-+.+-", "--+.+", "+--+."];
    ensure_heard(lab, "majorities ring", &ring).await?;
    network.halves()?;
    let halves = [".+---", "+.---", "--.++", "--+.+", "--++."];
    ensure_heard(lab, "halves", &halves).await?;
    let minority = network.random_minority()?;
    let alone = |name: &str| minority.iter().any(|one| one == name);
    let parted: Vec<String> = NAMES
        .iter()
        .map(|from| {
            let cell = |to: &&str| match (from == to, alone(from) == alone(to)) {
                (true, _) => '.',
                (false, true) => '+',
                (false, false) => '-',
            };
            NAMES.iter().map(cell).collect()
        })
        .collect();
    let parted: Vec<&str> = parted.iter().map(String::as_str).collect();
    ensure_heard(lab, "random minority", &parted).await?;
    network.heal_all()?;
    let guard = network.disturb(|network| network.isolate("n3"))?;
    ensure_heard(lab, "guarded", &N3_ALONE).await?;
    drop(guard);
    ensure_heard(lab, "guard dropped", &WHOLE).await
}

#[test]
fn partitions() {
    check("network-partitions", LinkPlan::FullMesh, 5, |run| {
        Box::pin(machines_hear_whom_they_should(run))
    });
}

/// Pings over IPv4, waits for the last answer at most so many seconds, and returns each round trip in milliseconds.
async fn ping(lab: &Lab, [from, to]: [&str; 2], count: u32, seconds: u32) -> Outcome<Vec<f64>> {
    let command = format!("ping -4 -c {count} -W {seconds} {to} || true");
    let told = lab.node(from).succeed(&command).await?;
    let times = told.lines().filter_map(|line| line.split_once("time="));
    let times = times.map(|(_, time)| time.split(' ').next()?.parse().ok());
    let times: Option<Vec<f64>> = times.collect();
    times.ok_or_else(|| Failure::broken(format!("{told:?} has no times")))
}

/// Ensures that every ping is answered, and none before `least` milliseconds; notes what it took.
async fn ensure_takes(run: &Run, pair: [&str; 2], least: u32) -> Outcome {
    const COUNT: u32 = 3;
    let times = ping(&run.lab, pair, COUNT, 10).await?;
    run.note(format!("{pair:?}: at least {least} ms, took {times:?} ms"));
    ensure!(times.len() == COUNT as usize, "{pair:?}: only {times:?}");
    let early = times.iter().any(|time| *time < f64::from(least));
    ensure!(!early, "{pair:?}: {times:?} is less than {least} ms");
    Ok(())
}

/// Waits until one ping takes less than `most` milliseconds: a loaded host may need several, a delay lets none.
async fn ensure_quick(run: &Run, pair: [&str; 2], most: u32) -> Outcome {
    let began = Instant::now();
    loop {
        let times = ping(&run.lab, pair, 1, 1).await?;
        if times.iter().any(|time| *time < f64::from(most)) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < ALLOWED,
            "{pair:?}: {times:?} is still more than {most} ms"
        );
    }
}

fn dropped(network: &Network, machine: &str, cause: Cause) -> Outcome<u64> {
    let counters = network.counters()?;
    Ok(counters[machine][0].dropped_to.frames(cause))
}

async fn links_are_bent(run: &Run) -> Outcome {
    let (lab, network) = (&run.lab, run.lab.network());
    start(lab).await?;
    let hundred = Duration::from_millis(100);
    ensure_quick(run, ["n1", "n2"], 100).await?;

    network.link("n1", "n2")?.delay(hundred)?;
    ensure_takes(run, ["n1", "n2"], 200).await?;
    ensure_quick(run, ["n1", "n3"], 100).await?;
    network.direction("n1", "n2")?.clear()?;
    ensure_takes(run, ["n1", "n2"], 100).await?;
    ensure_takes(run, ["n2", "n1"], 100).await?;
    ensure_quick(run, ["n1", "n2"], 200).await?;
    network.all().clear()?;
    ensure_quick(run, ["n2", "n1"], 100).await?;

    let lost = dropped(network, "n2", Cause::Lost)?;
    let guard = network.disturb(|network| network.direction("n1", "n2")?.loss(1.0))?;
    let times = ping(lab, ["n1", "n2"], 2, 1).await?;
    ensure!(
        times.is_empty(),
        "all is lost, and answered after {times:?} ms"
    );
    let lost = dropped(network, "n2", Cause::Lost)? - lost;
    ensure!(
        lost >= 2,
        "2 pings vanished, {lost} frames are said to be lost"
    );
    let cut = dropped(network, "n2", Cause::Cut)?;
    ensure!(cut == 0, "nothing was cut, {cut} frames are said to be");
    guard.put_back()?;
    ensure_takes(run, ["n1", "n2"], 0).await?;

    network.sent_to("n2")?.mtu(500)?;
    let (n1, large) = (lab.node("n1"), "ping -4 -c 1 -s 600");
    n1.fail(&format!("{large} -W 1 n2")).await?;
    n1.succeed(&format!("{large} -W 10 n3")).await?;
    let large = dropped(network, "n2", Cause::TooLarge)?;
    ensure!(large >= 1, "no frame is said to be too large");
    network.all().clear()?;

    let (up, down) = (Duration::from_millis(50), Duration::from_millis(50));
    let flap = network.flap("n1", "n2", up, down)?;
    n1.wait_until_succeeds("! ping -4 -c 1 -W 1 n2 > /dev/null", ALLOWED)
        .await?;
    flap.stop().await?;
    ensure!(network.cuts()?.is_empty(), "the flap left a cut");
    let total = Duration::from_millis(330);
    network.flap_for("n1", "n2", up, down, total).await?;
    ensure_takes(run, ["n1", "n2"], 0).await
}

#[test]
fn impairments() {
    check("network-impairments", LinkPlan::FullMesh, 3, |run| {
        Box::pin(links_are_bent(run))
    });
}

async fn only_the_star_is_linked(run: &Run) -> Outcome {
    const STAR: [&str; 5] = [".+---", "+.+++", "-+.--", "-+-.-", "-+--."];
    let (lab, network) = (&run.lab, run.lab.network());
    start(lab).await?;
    ensure_heard(lab, "a star", &STAR).await?;
    network.isolate("n2")?;
    let alone = [".----", "-.---", "--.--", "---.-", "----."];
    ensure_heard(lab, "without its centre", &alone).await?;
    network.heal_all()?;
    ensure_heard(lab, "healed", &STAR).await
}

#[test]
fn a_star() {
    let star = LinkPlan::Star {
        centre: "n2".to_owned(),
    };
    check("network-star", star, 5, |run| {
        Box::pin(only_the_star_is_linked(run))
    });
}

async fn only_the_line_is_linked(run: &Run) -> Outcome {
    let lab = &run.lab;
    start(lab).await?;
    let line = [".+---", "+.+--", "-+.+-", "--+.+", "---+."];
    ensure_heard(lab, "a line", &line).await?;
    lab.network().cut("n1", "n2")?;
    lab.network().link("n3", "n4")?.loss(1.0)?;
    let bent = [".----", "-.+--", "-+.--", "---.+", "---+."];
    ensure_heard(lab, "bent", &bent).await?;
    lab.checkpoint("bent").await?;
    lab.network().heal_all()?;
    lab.network().all().clear()?;
    ensure_heard(lab, "put in order", &line).await?;
    lab.restore("bent", WallClock::Now).await?;
    ensure_heard(lab, "restored", &bent).await?;
    lab.network().heal_all()?;
    lab.network().all().clear()?;
    ensure_heard(lab, "restored and put in order", &line).await
}

#[test]
fn a_line() {
    check("network-line", LinkPlan::Line, 5, |run| {
        Box::pin(only_the_line_is_linked(run))
    });
}

async fn regions_are_far_apart(run: &Run) -> Outcome {
    start(&run.lab).await?;
    ensure_quick(run, ["n1", "n2"], 30).await?;
    ensure_takes(run, ["n1", "n3"], 30).await?;
    ensure_quick(run, ["n2", "n3"], 80).await?;
    ensure_takes(run, ["n3", "n4"], 80).await?;
    ensure_quick(run, ["n4", "n3"], 120).await?;
    ensure_takes(run, ["n4", "n2"], 120).await
}

#[test]
fn regions() {
    let regions = Regions::example(&["n1", "n2"], &["n3"], &["n4"]);
    check("network-regions", LinkPlan::Regions(regions), 4, |run| {
        Box::pin(regions_are_far_apart(run))
    });
}

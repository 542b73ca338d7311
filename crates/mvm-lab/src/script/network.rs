//! The network as scripts bend it: each verb is one of `crate::network`'s.

use std::collections::BTreeMap;

use mvm_fabric::{
    Delay, GilbertElliott, Jitter, Latency, LatencyError, Loss, Probability, ProbabilityError,
};
use serde_json::{Value, json};

use super::{
    session::Session,
    wire::{
        Aspect, CardCounted, Change, Done, Limit, NetworkStatus, NetworkVerb, Refusal, Shape, Which,
    },
};
use crate::{
    network::{Directions, Network, NetworkError},
    node::lock,
};

impl Session<'_> {
    pub(super) async fn network_verb(&self, verb: NetworkVerb) -> Done {
        let network = self.run.lab.network();
        match verb {
            NetworkVerb::Impair {
                of,
                machines,
                aspect,
            } => impair(&directions(network, of, &machines)?, &aspect)?,
            NetworkVerb::Cut { how, machines } => cut(network, how, &machines)?,
            NetworkVerb::Partition { groups } => {
                let groups: Vec<Vec<&str>> = groups
                    .iter()
                    .map(|group| group.iter().map(String::as_str).collect())
                    .collect();
                let groups: Vec<&[&str]> = groups.iter().map(Vec::as_slice).collect();
                network.partition(&groups)?;
            }
            NetworkVerb::RandomMinority => return Ok(json!(network.random_minority()?)),
            NetworkVerb::Flap {
                one,
                other,
                up,
                down,
                total,
            } => {
                network
                    .flap_for(&one, &other, up.get(), down.get(), total.get())
                    .await?;
            }
            NetworkVerb::Status => return Ok(json!(status(network)?)),
            NetworkVerb::Capture { file } => {
                let path = self.capture_path(&file)?;
                let capture = network.capture(&path)?;
                lock(&self.captures).insert(file, capture);
            }
            NetworkVerb::StopCapture { file } => {
                let capture = lock(&self.captures).remove(&file);
                let capture = capture
                    .ok_or_else(|| Refusal::value(format!("nothing is captured to {file:?}")))?;
                capture.finish()?;
            }
        }
        Ok(Value::Null)
    }

    fn capture_path(&self, file: &str) -> Result<std::path::PathBuf, Refusal> {
        match file.is_empty() || file.contains('/') || file.starts_with('.') {
            true => Err(Refusal::value(format!("{file:?} is no file name"))),
            false => Ok(self.run.folder.path().join(file)),
        }
    }
}

/// As many machines as a verb is about.
fn names<const COUNT: usize>(machines: &[String]) -> Result<[&str; COUNT], Refusal> {
    let names: Vec<&str> = machines.iter().map(String::as_str).collect();
    <[&str; COUNT]>::try_from(names).map_err(|names| {
        Refusal::value(format!(
            "{COUNT} machines are needed, {} given",
            names.len()
        ))
    })
}

fn directions<'n>(
    network: &'n Network,
    which: Which,
    machines: &[String],
) -> Result<Directions<'n>, Refusal> {
    let directions = match which {
        Which::Link => {
            let [one, other] = names(machines)?;
            network.link(one, other)
        }
        Which::Direction => {
            let [from, to] = names(machines)?;
            network.direction(from, to)
        }
        Which::Of => network.of(names::<1>(machines)?[0]),
        Which::SentBy => network.sent_by(names::<1>(machines)?[0]),
        Which::SentTo => network.sent_to(names::<1>(machines)?[0]),
        Which::All => Ok(network.all()),
    };
    Ok(directions?)
}

fn cut(network: &Network, how: Change, machines: &[String]) -> Result<(), Refusal> {
    let done = match how {
        Change::Cut => {
            let [one, other] = names(machines)?;
            network.cut(one, other)
        }
        Change::OneWay => {
            let [from, to] = names(machines)?;
            network.one_way(from, to)
        }
        Change::Isolate => network.isolate(names::<1>(machines)?[0]),
        Change::Halves => network.halves(),
        Change::Bridge => network.bridge(names::<1>(machines)?[0]),
        Change::MajoritiesRing => network.majorities_ring(),
        Change::Heal => {
            let [one, other] = names(machines)?;
            network.heal(one, other)
        }
        Change::HealOne => network.heal_one(names::<1>(machines)?[0]),
        Change::HealAll => network.heal_all(),
    };
    Ok(done?)
}

fn impair(directions: &Directions<'_>, aspect: &Aspect) -> Result<(), NetworkError> {
    match *aspect {
        Aspect::Delay {
            delay,
            jitter,
            shape,
        } => directions.delay_with(Delay {
            base: latency("delay", delay)?,
            jitter: shaped(shape, latency("jitter", jitter)?),
        }),
        Aspect::Loss { probability } => directions.loss(probability),
        Aspect::BurstLoss {
            enter,
            leave,
            good,
            bad,
        } => directions.loss_with(Loss::GilbertElliott(GilbertElliott {
            good_to_bad: likely("loss", enter)?,
            bad_to_good: likely("loss", leave)?,
            loss_when_good: likely("loss", good)?,
            loss_when_bad: likely("loss", bad)?,
        })),
        Aspect::Duplicate { probability } => directions.duplicate(probability),
        Aspect::Corrupt { probability } => directions.corrupt(probability),
        Aspect::Reorder { probability, extra } => directions.reorder(probability, extra.get()),
        Aspect::Rate {
            bits_per_second,
            queue_bytes,
        } => directions.rate(bits_per_second, queue_bytes),
        Aspect::Mtu { size } => directions.mtu(size),
        Aspect::Clear => directions.clear(),
    }
}

fn shaped(shape: Shape, spread: Latency) -> Jitter {
    match (shape, spread == Latency::ZERO) {
        (_, true) => Jitter::None,
        (Shape::Uniform, false) => Jitter::Uniform { spread },
        (Shape::Normal, false) => Jitter::Normal { deviation: spread },
        (Shape::Pareto, false) => Jitter::Pareto { mean: spread },
    }
}

fn latency(aspect: &'static str, given: Limit) -> Result<Latency, NetworkError> {
    Latency::new(given.get()).map_err(|source: LatencyError| NetworkError::Delay { aspect, source })
}

fn likely(aspect: &'static str, value: f64) -> Result<Probability, NetworkError> {
    Probability::new(value)
        .map_err(|source: ProbabilityError| NetworkError::Probability { aspect, source })
}

fn status(network: &Network) -> Result<NetworkStatus, NetworkError> {
    let cards: BTreeMap<String, Vec<CardCounted>> = network
        .counters()?
        .into_iter()
        .map(|(machine, cards)| {
            let cards = cards.iter().map(|card| CardCounted {
                sent_frames: card.received.frames,
                received_frames: card.sent.frames,
                dropped_frames: card.dropped_from.total() + card.dropped_to.total(),
            });
            (machine, cards.collect())
        })
        .collect();
    Ok(NetworkStatus {
        cuts: network.cuts()?,
        cards,
    })
}

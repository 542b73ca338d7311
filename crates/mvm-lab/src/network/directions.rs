//! How well machines hear each other: impairments of chosen directions.
//!
//! What each does to frames, and in which order, is told by [`Impairment`].

use std::time::Duration;

use mvm_fabric::{Delay, Impairment, Latency, Link, Loss, Probability, Rate, Reorder};

use super::{Network, NetworkError, set_impairment, words};

/// Every host must take as much (RFC 791, section 3.2), and an answer for an address is smaller.
const MTU_BYTES_MIN: u32 = 68;
/// What an IPv4 packet can have; no frame of a machine's is larger.
const MTU_BYTES_MAX: u32 = 65_535;

/// Choosing directions. Only those that the topology has are ever meant.
impl Network {
    /// Both directions between two machines.
    ///
    /// # Errors
    ///
    /// Here and below: if there is no such machine or link.
    pub fn link(&self, one: &str, other: &str) -> Result<Directions<'_>, NetworkError> {
        let links = self.directions_of(one, other)?.into_iter();
        let links = links.flat_map(|link| [link, link.reverse()]);
        Ok(self.directions(links.collect(), format!("{one} - {other}")))
    }

    /// The one direction in which `to` hears `from`.
    pub fn direction(&self, from: &str, to: &str) -> Result<Directions<'_>, NetworkError> {
        let links = self.directions_of(from, to)?;
        Ok(self.directions(links, format!("{from} -> {to}")))
    }

    /// Every direction from and to one machine.
    pub fn of(&self, name: &str) -> Result<Directions<'_>, NetworkError> {
        let machine = self.machine(name)?;
        let links = self.planned(|way| way.from == machine || way.to == machine);
        Ok(self.directions(links, format!("from and to {name}")))
    }

    /// Every direction in which others hear one machine.
    pub fn sent_by(&self, name: &str) -> Result<Directions<'_>, NetworkError> {
        let machine = self.machine(name)?;
        let links = self.planned(|way| way.from == machine);
        Ok(self.directions(links, format!("from {name}")))
    }

    /// Every direction in which one machine hears others.
    pub fn sent_to(&self, name: &str) -> Result<Directions<'_>, NetworkError> {
        let machine = self.machine(name)?;
        let links = self.planned(|way| way.to == machine);
        Ok(self.directions(links, format!("to {name}")))
    }

    /// Every direction.
    pub fn all(&self) -> Directions<'_> {
        self.directions(self.planned(|_| true), "everywhere".to_owned())
    }

    fn directions(&self, links: Vec<Link>, words: String) -> Directions<'_> {
        Directions {
            network: self,
            links,
            words,
        }
    }
}

/// Some directions of a network, to be impaired.
///
/// Each method changes one aspect of every one of the directions, and leaves their other aspects, and other
/// directions, as they are; whatever was changed last counts, be it for one direction or for all. Aspects that the
/// topology sets, such as the delay between regions, are changed likewise, and come back with
/// [`clear`](Directions::clear). Cuts are apart from all this.
///
/// All is for each direction by itself: a round trip meets a delay of both directions, and the chance to be lost
/// twice; a rate is not shared between directions. In which order aspects meet a frame is told by [`Impairment`].
///
/// # Errors
///
/// If a value cannot be, or the switch has stopped; nothing is changed then.
#[must_use = "directions are there to be impaired"]
pub struct Directions<'a> {
    network: &'a Network,
    links: Vec<Link>,
    words: String,
}

impl Directions<'_> {
    /// Sets all aspects at once.
    pub fn impair(&self, impairment: Impairment) -> Result<(), NetworkError> {
        if let Some(bytes) = impairment.mtu_bytes {
            check_mtu(bytes)?;
        }
        self.change(words::impairment(&impairment), move |now| *now = impairment)
    }

    /// Sets how long each frame takes, one way; at most an hour.
    pub fn delay(&self, delay: Duration) -> Result<(), NetworkError> {
        self.delay_with(Delay::constant(latency("delay", delay)?))
    }

    /// Sets how long each frame takes, one way, with jitter.
    ///
    /// Frames keep their order, whatever the jitter; that is changed by [`reorder`](Directions::reorder).
    pub fn delay_with(&self, delay: Delay) -> Result<(), NetworkError> {
        self.change(words::delay(delay), move |now| now.delay = delay)
    }

    /// Sets how likely each frame vanishes, from 0 to 1.
    pub fn loss(&self, likely: f64) -> Result<(), NetworkError> {
        let probability = probability("loss", likely)?;
        self.loss_with(match probability == Probability::NEVER {
            true => Loss::None,
            false => Loss::Independent(probability),
        })
    }

    /// Sets which frames vanish, such as in bursts.
    pub fn loss_with(&self, loss: Loss) -> Result<(), NetworkError> {
        self.change(words::loss(loss), move |now| now.loss = loss)
    }

    /// Sets how likely each frame comes twice, from 0 to 1.
    pub fn duplicate(&self, likely: f64) -> Result<(), NetworkError> {
        let probability = probability("duplication", likely)?;
        self.change(words::chance("duplicate", probability), move |now| {
            now.duplicate = probability;
        })
    }

    /// Sets how likely one random bit of each frame's payload is flipped, from 0 to 1.
    pub fn corrupt(&self, likely: f64) -> Result<(), NetworkError> {
        let probability = probability("corruption", likely)?;
        self.change(words::chance("corrupt", probability), move |now| {
            now.corrupt = probability;
        })
    }

    /// Sets how likely each frame, from 0 to 1, is held back for `extra` on top of its delay, so that those due in
    /// the meantime overtake it.
    pub fn reorder(&self, likely: f64, extra: Duration) -> Result<(), NetworkError> {
        let reorder = Reorder {
            probability: probability("reordering", likely)?,
            extra: latency("reordering", extra)?,
        };
        let wanted = (reorder.probability != Probability::NEVER).then_some(reorder);
        self.change(words::reorder(reorder), move |now| now.reorder = wanted)
    }

    /// Sets how many bits of whole frames pass per second, and how many bytes may wait for that; more are dropped.
    pub fn rate(&self, bits_per_second: u64, queue_bytes_max: u32) -> Result<(), NetworkError> {
        let rate = Rate::new(bits_per_second, queue_bytes_max)?;
        self.change(words::rate(rate), move |now| now.rate = Some(rate))
    }

    /// Sets the largest payload of a frame, after its Ethernet header, that passes: from 68 to 65,535 bytes.
    ///
    /// Guests are not told: theirs vanish as in a tunnel that is too narrow.
    pub fn mtu(&self, bytes: u32) -> Result<(), NetworkError> {
        check_mtu(bytes)?;
        self.change(words::mtu(bytes), move |now| now.mtu_bytes = Some(bytes))
    }

    /// Removes all that was set, so that what the topology says counts again.
    pub fn clear(&self) -> Result<(), NetworkError> {
        let wiring = std::sync::Arc::clone(&self.network.shared.wiring);
        let directions = self.links.clone();
        self.network
            .change(format!("clear {}", self.words), move |links| {
                directions
                    .iter()
                    .try_for_each(|link| set_impairment(links, *link, wiring.impairment(*link)))
            })
    }

    fn change<S>(&self, words: String, set: S) -> Result<(), NetworkError>
    where
        S: Fn(&mut Impairment) + Send + 'static,
    {
        let directions = self.links.clone();
        self.network
            .change(format!("{words} {}", self.words), move |links| {
                for link in directions {
                    let mut impairment = links.impairment(link)?;
                    set(&mut impairment);
                    set_impairment(links, link, impairment)?;
                }
                Ok(())
            })
    }
}

fn probability(aspect: &'static str, value: f64) -> Result<Probability, NetworkError> {
    Probability::new(value).map_err(|source| NetworkError::Probability { aspect, source })
}

fn latency(aspect: &'static str, value: Duration) -> Result<Latency, NetworkError> {
    Latency::new(value).map_err(|source| NetworkError::Delay { aspect, source })
}

fn check_mtu(bytes: u32) -> Result<(), NetworkError> {
    if (MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&bytes) {
        return Ok(());
    }
    Err(NetworkError::Mtu {
        given: bytes,
        min: MTU_BYTES_MIN,
        max: MTU_BYTES_MAX,
    })
}

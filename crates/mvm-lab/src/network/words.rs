//! What is wrong with a link, in words for the events.

use std::time::Duration;

use mvm_fabric::{Delay, Impairment, Jitter, Loss, Probability, Rate, Reorder};

/// Says all that is wrong.
pub(super) fn impairment(of: &Impairment) -> String {
    let said = [
        of.mtu_bytes.map(mtu),
        (of.loss != Loss::None).then(|| loss(of.loss)),
        (of.corrupt != Probability::NEVER).then(|| chance("corrupt", of.corrupt)),
        (of.duplicate != Probability::NEVER).then(|| chance("duplicate", of.duplicate)),
        of.rate.map(rate),
        (of.delay != Delay::NONE).then(|| delay(of.delay)),
        of.reorder.map(reorder),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    match said.is_empty() {
        true => "nothing wrong".to_owned(),
        false => said.join(", "),
    }
}

pub(super) fn delay(delay: Delay) -> String {
    let base = time(delay.base.get());
    match delay.jitter {
        Jitter::None => format!("delay {base}"),
        Jitter::Uniform { spread } => format!("delay {base} ± {}", time(spread.get())),
        Jitter::Normal { deviation } => {
            format!("delay {base}, deviation {}", time(deviation.get()))
        }
        Jitter::Pareto { mean } => format!("delay {base} + Pareto {}", time(mean.get())),
    }
}

pub(super) fn loss(loss: Loss) -> String {
    match loss {
        Loss::None => "loss 0 %".to_owned(),
        Loss::Independent(probability) => chance("loss", probability),
        Loss::GilbertElliott(model) => format!(
            "loss in bursts ({} good to bad, {} bad to good, {} when good, {} when bad)",
            percent(model.good_to_bad),
            percent(model.bad_to_good),
            percent(model.loss_when_good),
            percent(model.loss_when_bad)
        ),
    }
}

pub(super) fn rate(rate: Rate) -> String {
    let (bits, queue) = (rate.bits_per_second, rate.queue_bytes_max);
    format!("rate {bits} bit/s with a queue of {queue} bytes")
}

pub(super) fn reorder(reorder: Reorder) -> String {
    let chance = chance("reorder", reorder.probability);
    format!("{chance} by {}", time(reorder.extra.get()))
}

pub(super) fn mtu(bytes: u32) -> String {
    format!("MTU {bytes} bytes")
}

pub(super) fn chance(what: &str, probability: Probability) -> String {
    format!("{what} {}", percent(probability))
}

fn percent(probability: Probability) -> String {
    // Rounded to what people read; the products of numbers like 0.07 have a long tail.
    let millionths = (probability.value() * 1e8).round() / 1e6;
    format!("{millionths} %")
}

pub(super) fn time(time: Duration) -> String {
    format!("{} ms", crate::event::precise_ms(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvm_fabric::Latency;

    #[test]
    fn numbers_are_said_as_people_write_them() {
        assert_eq!(time(Duration::from_millis(50)), "50 ms");
        assert_eq!(time(Duration::from_micros(1100)), "1.1 ms");
        let seven = Probability::new(0.07).unwrap();
        assert_eq!(chance("loss", seven), "loss 7 %");
        assert_eq!(impairment(&Impairment::NONE), "nothing wrong");
        let spread = Latency::from_millis(5).unwrap();
        let several = Impairment {
            loss: Loss::Independent(seven),
            delay: Delay {
                base: Latency::from_millis(50).unwrap(),
                jitter: Jitter::Uniform { spread },
            },
            rate: Some(Rate::new(1_000_000, 3000).unwrap()),
            ..Impairment::NONE
        };
        assert_eq!(
            impairment(&several),
            "loss 7 %, rate 1000000 bit/s with a queue of 3000 bytes, delay 50 ms ± 5 ms"
        );
    }
}

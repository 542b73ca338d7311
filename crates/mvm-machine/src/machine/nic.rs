//! A network card on a switch, as far as the host decides about it.
//!
//! Its addresses come with the machine's identity ([`mvm_agent::client::Identity`]); what is at its other end is the
//! caller's. The card to the host's network is [`super::Gateway`].

/// A network card, the other end of which is a socket that the caller holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The size of its frames. The guest's driver takes it from the card.
    pub mtu: Mtu,
}

/// How many bytes a frame has at most, after its Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u16);

/// A card cannot have such an MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "could not give a network card an MTU of {bytes} bytes: {} to {} is possible, since IPv6 needs the one and the length of \
     a packet is told in 16 bits",
    Mtu::BYTES_MIN,
    Mtu::BYTES_MAX
)]
pub struct MtuError {
    /// What was asked for.
    pub bytes: u64,
}

impl Mtu {
    /// What every Ethernet has.
    pub const STANDARD: Mtu = Mtu(1500);
    /// With less, guests have no IPv6 (RFC 8200, section 5).
    pub const BYTES_MIN: u16 = 1280;
    /// The longest packet of IPv4, and what virtio can tell. The switch takes such a frame with its header and a tag.
    pub const BYTES_MAX: u16 = u16::MAX;

    /// Checks that a card can have it.
    ///
    /// # Errors
    ///
    /// [`MtuError`] outside [`Mtu::BYTES_MIN`] to [`Mtu::BYTES_MAX`].
    pub fn new(bytes: u64) -> Result<Mtu, MtuError> {
        match u16::try_from(bytes) {
            Ok(mtu) if mtu >= Mtu::BYTES_MIN => Ok(Mtu(mtu)),
            _ => Err(MtuError { bytes }),
        }
    }

    /// Returns the number.
    pub fn bytes(self) -> u16 {
        self.0
    }
}

impl Default for Mtu {
    fn default() -> Mtu {
        Mtu::STANDARD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_sizes_are_refused() {
        for bytes in [1280, 1400, 1500, 9000, 65_535] {
            assert_eq!(Mtu::new(bytes).map(Mtu::bytes), Ok(bytes as u16));
        }
        for bytes in [0, 1, 68, 1279, 65_536, u64::MAX] {
            assert_eq!(Mtu::new(bytes), Err(MtuError { bytes }));
        }
        let text = Mtu::new(68).unwrap_err().to_string();
        assert!(text.contains("68 bytes: 1280 to 65535"), "{text}");
    }
}

//! QUIC connection IDs that name their server (draft-ietf-quic-load-balancers): the first three bits of the connection ID say which
//! configuration it is of, and behind its first octet stands the server ID as it is (plaintext). What is behind that is the server's own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Codepoints of configurations are 0 to 6; 7 marks connection IDs that name nobody.
pub const CODEPOINTS: u8 = 7;
/// Longest server ID, in octets: of a connection ID of 20, the first is not the server ID's, nor are 4 at least of a nonce.
pub const SERVER_ID_MAX: u8 = 15;
/// Configurations of a service at a time: the one in use, and the one before or after it.
pub const CONFIGURATIONS_MAX: usize = 2;

/// Which server a connection ID is of, 1 to 15 octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId {
    len: u8,
    /// Zero behind its length.
    octets: [u8; 16],
}

impl ServerId {
    /// `None` where it is empty or too long.
    pub fn new(octets: &[u8]) -> Option<Self> {
        let len = u8::try_from(octets.len()).ok().filter(|len| (1..=SERVER_ID_MAX).contains(len))?;
        let mut id = Self { len, octets: [0; 16] };
        id.octets.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
        Some(id)
    }

    /// How many octets it has.
    pub fn length(self) -> u8 {
        self.len
    }

    /// Its octets, zero behind the last.
    pub fn padded(self) -> [u8; 16] {
        self.octets
    }
}

/// In hexadecimal.
impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.octets.iter().take(self.len.into()).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Octets of server IDs by the codepoint of the configuration, 0 for none.
pub type Lengths = [u8; 8];

/// How packets of a service are balanced by their connection IDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quic {
    /// Of its configurations.
    pub lengths: Lengths,
    /// The backends by their server IDs, of each configuration with IDs of this length.
    pub servers: BTreeMap<ServerId, IpAddr>,
}

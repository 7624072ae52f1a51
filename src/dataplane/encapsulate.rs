//! What packets for a backend get in front, put there without a packet of the wire: for health checks that go as clients' packets do.
//!
//! It is the program's own code, in an instance that counts nothing and remembers nothing, over the tables in force.

use std::net::IpAddr;

use model::network::IfIndex;
use model::tables::BackendId;
use model::verdict::{PuntReason, Verdict};

use super::abi::{self, types};
use super::encode::address;
use super::error::Error;
use super::explain::{self, Explanation};
use super::object::Instance;

/// Where the test run comes in where it comes in by no port: the kernel takes the loopback device then.
const NOWHERE: IfIndex = IfIndex(0);
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// What becomes of a packet for a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encapsulated {
    /// It leaves as this frame.
    Frame {
        /// The interface that it leaves by.
        ifindex: IfIndex,
        /// From the Ethernet header on.
        frame: Vec<u8>,
    },
    /// The neighbour that it would leave to is not resolved.
    Unresolved {
        /// The neighbour's interface.
        ifindex: IfIndex,
        /// Its address.
        address: IpAddr,
    },
    /// It does not leave.
    Refused {
        /// What a packet of a client would end in.
        verdict: Verdict,
        /// Largest packet that would have fit, where that is why.
        mtu: Option<u32>,
    },
}

/// The program that puts in front of a packet what packets for a backend get.
#[derive(Debug)]
pub struct Encapsulator(Instance);

impl Encapsulator {
    pub(super) fn new(instance: Instance) -> Self {
        Self(instance)
    }

    /// What becomes of an IP packet for a backend in the tables in force, whether it serves or not.
    ///
    /// # Errors
    /// [`Error::TestRun`] where the kernel refuses the run.
    pub fn encapsulate(&self, backend: BackendId, packet: &[u8]) -> Result<Encapsulated, Error> {
        let [b0, b1, b2, b3] = backend.0.to_be_bytes();
        let is_ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let ethertype = if is_ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        let frame = [[0, 0, b0, b1, b2, b3, 0, 0, 0, 0, 0, 0].as_slice(), &ethertype, packet].concat();
        let Explanation { verdict, frame, meta, .. } = explain::explain(&self.0, &frame, NOWHERE)?;
        let meta: Option<types::punt_meta> = abi::from_bytes(&meta);
        Ok(match (verdict, meta) {
            (Verdict::Redirect(ifindex), _) => Encapsulated::Frame { ifindex, frame },
            (Verdict::Punt(PuntReason::Neighbor | PuntReason::NeighborEncap), Some(meta)) => {
                Encapsulated::Unresolved { ifindex: IfIndex(meta.egress_ifindex), address: address(meta.address.word) }
            }
            (verdict, meta) => {
                Encapsulated::Refused { verdict, mtu: meta.map(|meta| meta.mtu).filter(|mtu| *mtu != 0) }
            }
        })
    }
}

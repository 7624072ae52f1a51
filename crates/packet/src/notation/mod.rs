//! The one-line notation of frames: what a packet test, a log line and a person write.
//!
//! Layers are separated by ` / `; each is a word, what it must say, then fields `name=value` and flags in any order:
//! ```text
//! eth 02::1 > 02::2 / vlan 100 / ip4 192.0.2.1 > 10.200.1.1 ttl=64 df / tcp 31337 > 80 S seq=1 / data 16
//! ```
//! What is left out is computed (lengths, checksums, the number of the next header) or a default (see [`USAGE`]).
//! What is said is written as said, so malformed packets are made by `len=`, `csum=`, `proto=`, `ihl=`, `ver=`, `type=`.
//!
//! [`decode`] prints the canonical text: only fields that differ from what would be written without them, so a wrong
//! checksum shows as `csum=0x....`. It never loses a byte: `encode(decode(frame)) == frame` for every frame.

mod parse;
mod print;

use crate::build::{self, BuildError};
use crate::dissect::dissect;
use crate::layer::Layer;

pub use parse::parse;
pub use print::print;

/// Every layer with its fields. Those in brackets may be left out; `[ttl=64]` shows the default, `[csum=]` is computed.
pub const USAGE: [&str; 23] = [
    "eth SRC > DST [type=]",
    "vlan ID [pcp=0] [dei] [tpid=0x8100] [type=]",
    "arp who-has TARGET tell SENDER [sha=MAC] [tha=MAC] | arp reply SENDER to TARGET [sha=MAC] [tha=MAC]",
    "ip4 SRC > DST [ttl=64] [tos=0] [id=0] [rf] [df] [mf] [frag=BYTES] [opts=HEX] [proto=] [len=] [csum=] [ihl=] [ver=]",
    "ip6 SRC > DST [hlim=64] [tc=0] [flow=0] [proto=] [len=] [ver=]",
    "hbh [body=HEX] [proto=] [len=]",
    "dstopts [body=HEX] [proto=] [len=]",
    "routing [body=HEX] [proto=] [len=]",
    "frag [id=0] [off=BYTES] [more] [proto=]",
    "ah [spi=0] [seq=0] [icv=HEX] [proto=] [len=]",
    "tcp SPORT > DPORT [FLAGS of FSRPAUEC] [seq=0] [ack=0] [win=65535] [urg=0] [opts=HEX] [bits=] [off=] [csum=]",
    "udp SPORT > DPORT [len=] [csum=]",
    "sctp SPORT > DPORT [tag=0] [csum=]",
    "sctp-data [flags=3] [tsn=0] [sid=0] [ssn=0] [ppid=0] [len=]",
    "icmp echo|echo-reply [id=0] [seq=0] | unreachable [code=0] [mtu=0] | ttl-exceeded [code=0] | \
     type=N [code=0] [rest=0]; all: [csum=]",
    "icmp6 echo|echo-reply [id=0] [seq=0] | packet-too-big mtu=N | unreachable [code=0] | ttl-exceeded [code=0] | \
     neighbor-solicit TARGET [sll=MAC] [tll=MAC] | neighbor-advert TARGET [FLAGS of RSO] [sll=MAC] [tll=MAC] | \
     type=N [code=0] [rest=0]; all: [csum=]",
    "vxlan vni=N [flags=0x08] [res1=0] [res2=0]",
    "geneve vni=N [flags=0] [opts=HEX] [type=] [res=0]",
    "gre [key=N] [seq=N] [sum] [type=] [csum=]",
    "gue [control] [flags=0] [opts=HEX] [proto=]",
    "quic long [bits=0] [version=1] [dcid=HEX] [scid=HEX] | quic short [bits=0] [dcid=HEX]",
    "data BYTES | hex BYTES_IN_HEX",
    "pad BYTES | pad hex BYTES_IN_HEX",
];

/// Text that is no frame. Says the layer, the token and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotationError {
    /// Nothing between two separators.
    #[error("layer {layer} is empty (write layers as 'eth 02::1 > 02::2 / ip4 192.0.2.1 > 192.0.2.2')")]
    Empty {
        /// Its place, from 1.
        layer: usize,
    },
    /// The first word is not the name of a layer.
    #[error(
        "layer {layer}: '{name}' is no layer (use eth, vlan, arp, ip4, ip6, hbh, dstopts, routing, frag, ah, tcp, udp, \
         sctp, sctp-data, icmp, icmp6, vxlan, geneve, gre, gue, quic, data, hex or pad)"
    )]
    UnknownLayer {
        /// Its place, from 1.
        layer: usize,
        /// The word.
        name: String,
    },
    /// A token that the layer does not have, or has already had.
    #[error("layer {layer} ({name}): '{token}' is no field of it or said twice (write {usage})")]
    UnknownField {
        /// Its place, from 1.
        layer: usize,
        /// Its name.
        name: String,
        /// The token.
        token: String,
        /// What could be written.
        usage: &'static str,
    },
    /// A value that the field cannot have.
    #[error("layer {layer} ({name}): '{token}' should have {expected}")]
    BadValue {
        /// Its place, from 1.
        layer: usize,
        /// Its name.
        name: String,
        /// The token.
        token: String,
        /// What the field takes.
        expected: String,
    },
    /// Something without a default is not there.
    #[error("layer {layer} ({name}): {what} is missing (write {usage})")]
    Missing {
        /// Its place, from 1.
        layer: usize,
        /// Its name.
        name: String,
        /// What is missing.
        what: &'static str,
        /// What could be written.
        usage: &'static str,
    },
    /// The layers make no frame together.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The frame that `text` describes.
///
/// ```
/// let frame = margay_packet::notation::encode("eth 02::1 > 02::2 / ip4 192.0.2.1 > 198.51.100.1 / udp 1 > 2 / data 4")?;
/// assert_eq!(frame.len(), 14 + 20 + 8 + 4);
/// # Ok::<(), margay_packet::notation::NotationError>(())
/// ```
///
/// # Errors
/// [`NotationError`]: the layer, the token and what to write instead.
pub fn encode(text: &str) -> Result<Vec<u8>, NotationError> {
    Ok(build::frame(&parse(text)?)?)
}

/// The canonical text of an Ethernet frame. Whatever the bytes are, [`encode`] gives them back.
pub fn decode(frame: &[u8]) -> String {
    let text = print(&dissect(frame));
    // The dissector is exact by construction; this keeps the promise even where the printer or parser is not.
    match encode(&text) {
        Ok(bytes) if bytes == frame => text,
        _ => print(&[Layer::Raw(frame.to_vec())]),
    }
}

#[cfg(test)]
mod tests;

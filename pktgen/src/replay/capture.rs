//! A capture file in memory: the frames of a pcap or pcapng file with the times at which they were captured.
//!
//! The whole file is read before anything is sent, so a file that is cut off, of another link type or otherwise not to be
//! replayed as it was seen is refused with the packet and the place in the file, and none of it goes out.
//!
//! pcap: draft-ietf-opsawg-pcap, both byte orders, micro- and nanoseconds. pcapng: draft-ietf-opsawg-pcapng, sections of
//! both byte orders, any number of interfaces, `if_tsresol` and `if_tsoffset`.

use std::fmt;
use std::path::Path;

use pcap_file::pcap::{PcapParser, RawPcapPacket};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, PcapError, TsResolution};

/// First four bytes of a pcapng file, the same in both byte orders.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Shortest frame without FCS (IEEE 802.3): shorter ones were captured before the driver padded them.
const FRAME_MIN: usize = 60;
/// Longest original length that a padded frame may claim.
const ORIGINAL_MAX: usize = 65_535;
const NS_PER_SECOND: u128 = 1_000_000_000;

/// Why a file cannot be replayed. Packets count from 1, as in Wireshark.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {kind}")]
pub struct CaptureError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub kind: CaptureErrorKind,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureErrorKind {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is something else.
    #[error("neither pcap nor pcapng: it starts with {0:02x?}")]
    Magic(Vec<u8>),
    /// It ends inside a packet or block.
    #[error(
        "cut off inside packet {packet}, which starts at byte {offset}: nothing is sent (`editcap -r FILE OUT 1-{whole}` keeps the {whole} whole packets)"
    )]
    Truncated {
        /// The packet that is not whole.
        packet: usize,
        /// Where it starts.
        offset: usize,
        /// Packets before it.
        whole: usize,
    },
    /// A header or block contradicts the format.
    #[error("damaged at byte {offset}, behind packet {packet}: {reason}")]
    Damaged {
        /// Packets before it.
        packet: usize,
        /// Where the record starts.
        offset: usize,
        /// What the parser says.
        reason: String,
    },
    /// Frames of another link layer.
    #[error(
        "packet {packet} has link type {link}: only Ethernet can be replayed (capture on the Ethernet interface, not on `any`)"
    )]
    LinkType {
        /// First packet of it.
        packet: usize,
        /// Its name or number.
        link: LinkType,
    },
    /// Packets were captured in part.
    #[error(
        "packet {packet} has {captured} of its {original} bytes, and {others} others are cut short, too: capture with `-s 0`, or give --pad to fill them up with zeros"
    )]
    Snapped {
        /// First of them.
        packet: usize,
        /// Bytes in the file.
        captured: usize,
        /// Bytes on the wire.
        original: usize,
        /// How many more there are.
        others: usize,
    },
    /// Not an Ethernet header.
    #[error("packet {packet} has {bytes} bytes, less than an Ethernet header")]
    Runt {
        /// The packet.
        packet: usize,
        /// Its bytes.
        bytes: usize,
    },
    /// Longer than frames can be here.
    #[error(
        "packet {packet} has {bytes} bytes, but frames of at most {limit} can be sent (was it captured before segmentation offload? `ethtool -K IF tso off gso off gro off`)"
    )]
    TooLong {
        /// The packet.
        packet: usize,
        /// Its bytes.
        bytes: usize,
        /// What the back end takes.
        limit: usize,
    },
    /// There is nothing to send.
    #[error("no packet in it")]
    Empty,
}

/// A link type by its name in the registry of tcpdump.org, where it has one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkType(DataLink);

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DataLink::Unknown(number) => write!(f, "{number}"),
            link => write!(f, "{link:?} ({})", u32::from(link)),
        }
    }
}

/// What to do with packets of which only a part was captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snapped {
    /// Refuse the file.
    #[default]
    Refuse,
    /// Fill up with zeros to the original length; checksums over the payload will be wrong.
    Pad,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds since the first packet; never less than that of the frame before.
    pub offset_ns: u64,
    /// From the Ethernet destination on, without FCS, at least 60 bytes.
    pub frame: &'a [u8],
}

/// The frames of a file in their order.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// For messages.
    file: String,
    bytes: Vec<u8>,
    /// Where each frame ends in `bytes`, and its time.
    records: Vec<(usize, u64)>,
    longest: usize,
    backwards: usize,
}

impl Capture {
    /// Reads a file; see [`CaptureErrorKind`] for what is refused.
    ///
    /// # Errors
    /// [`CaptureError`] with the file's name.
    pub fn load(path: &Path, snapped: Snapped) -> Result<Self, CaptureError> {
        let file = path.display().to_string();
        let read = std::fs::read(path).map_err(CaptureErrorKind::Read);
        match read.and_then(|bytes| Self::parse(&bytes, snapped)) {
            Ok(capture) => Ok(Self { file, ..capture }),
            Err(kind) => Err(CaptureError { file, kind }),
        }
    }

    /// Without frames, but with the name of this one.
    pub(super) fn empty(&self) -> Self {
        Self { file: self.file.clone(), ..Self::default() }
    }

    /// The frames of a file's bytes.
    ///
    /// # Errors
    /// [`CaptureErrorKind`].
    pub fn parse(file: &[u8], snapped: Snapped) -> Result<Self, CaptureErrorKind> {
        let mut loader = Loader { snapped, ..Loader::default() };
        match file.first_chunk::<4>() {
            Some(&PCAPNG_MAGIC) => loader.pcapng(file)?,
            Some(
                [0xa1, 0xb2, 0xc3, 0xd4]
                | [0xa1, 0xb2, 0x3c, 0x4d]
                | [0xd4, 0xc3, 0xb2, 0xa1]
                | [0x4d, 0x3c, 0xb2, 0xa1],
            ) => {
                loader.pcap(file)?;
            }
            _ if file.is_empty() => return Err(CaptureErrorKind::Empty),
            _ => return Err(CaptureErrorKind::Magic(file.iter().copied().take(4).collect())),
        }
        loader.finish()
    }

    /// Frames.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Never: an empty file is refused.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of the longest frame.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Frames whose time is before that of the frame in front of them, as merged captures have them: they are sent right
    /// behind it.
    pub fn backwards(&self) -> usize {
        self.backwards
    }

    /// Nanoseconds from the first frame to the last.
    pub fn duration_ns(&self) -> u64 {
        self.records.last().map_or(0, |(_, offset_ns)| *offset_ns)
    }

    /// Frame `index`, counted from 0.
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        let (end, offset_ns) = *self.records.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.records.get(before)).map_or(0, |(end, _)| *end);
        Some(Record { offset_ns, frame: self.bytes.get(start..end)? })
    }

    /// Every frame in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Whether an interface with this MTU takes every frame; VLAN tags are extra.
    ///
    /// # Errors
    /// [`CaptureErrorKind::TooLong`] for the first that is longer.
    pub fn fits(&self, mtu: usize) -> Result<(), CaptureError> {
        for (record, packet) in self.iter().zip(1..) {
            let (bytes, limit) = (record.frame.len(), mtu + super::rewrite::link_len(record.frame));
            if bytes > limit {
                let kind = CaptureErrorKind::TooLong { packet, bytes, limit };
                return Err(CaptureError { file: self.file.clone(), kind });
            }
        }
        Ok(())
    }

    /// Adds a frame behind the last one, padded to the shortest that Ethernet knows.
    pub(super) fn push(&mut self, offset_ns: u64, frame: &[u8], len: usize) {
        let before = self.duration_ns();
        self.backwards += usize::from(offset_ns < before);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.bytes.resize(start + len.max(FRAME_MIN), 0);
        self.longest = self.longest.max(self.bytes.len() - start);
        self.records.push((self.bytes.len(), offset_ns.max(before)));
    }
}

/// Time units of a pcapng interface.
#[derive(Clone, Copy)]
struct Clock {
    units_per_second: u128,
    /// Seconds to add.
    offset: i64,
}

impl Clock {
    /// `if_tsresol` (microseconds where it is missing) and `if_tsoffset`; `None` where a second has more units than 64 bits.
    fn of(interface: &InterfaceDescriptionBlock<'_>) -> Option<Self> {
        let mut clock = Self { units_per_second: 1_000_000, offset: 0 };
        for option in &interface.options {
            match option {
                InterfaceDescriptionOption::IfTsResol(resolution) => {
                    let exponent = u32::from(resolution & 0x7f);
                    let base = if resolution & 0x80 == 0 { 10u128 } else { 2 };
                    clock.units_per_second = base.checked_pow(exponent).filter(|units| *units <= u64::MAX.into())?;
                }
                InterfaceDescriptionOption::IfTsOffset(seconds) => clock.offset = seconds.cast_signed(),
                _ => {}
            }
        }
        Some(clock)
    }

    /// Nanoseconds since 1970; may be negative.
    fn ns(self, units: u128) -> i128 {
        // Both factors have 64 bits at most.
        let since = (units.min(u64::MAX.into()) * NS_PER_SECOND) / self.units_per_second;
        since.cast_signed() + i128::from(self.offset) * NS_PER_SECOND.cast_signed()
    }
}

#[derive(Default)]
struct Loader {
    snapped: Snapped,
    capture: Capture,
    first_ns: Option<i128>,
    /// The first packet that is cut short, and how many there are.
    cut: Option<(usize, usize, usize)>,
    cut_count: usize,
}

impl Loader {
    fn pcap(&mut self, file: &[u8]) -> Result<(), CaptureErrorKind> {
        let (mut rest, parser) = PcapParser::new(file).map_err(|error| self.refused(0, error))?;
        let header = parser.header();
        // The upper bits of the field may hold the length of the FCS; the parser keeps the whole number.
        let link = DataLink::from(u32::from(header.datalink) & 0xffff);
        while !rest.is_empty() {
            let offset = file.len() - rest.len();
            let (behind, packet) = parser.next_raw_packet(rest).map_err(|error| self.refused(offset, error))?;
            rest = behind;
            let RawPcapPacket { ts_sec, ts_frac, orig_len, data, .. } = packet;
            let fraction = match header.ts_resolution {
                TsResolution::MicroSecond => i128::from(ts_frac) * 1000,
                TsResolution::NanoSecond => i128::from(ts_frac),
            };
            let time_ns = i128::from(ts_sec) * NS_PER_SECOND.cast_signed() + fraction;
            self.packet(link, time_ns, &data, orig_len)?;
        }
        // A file without packets still says what it would hold.
        if self.capture.is_empty() { Err(CaptureErrorKind::Empty) } else { Ok(()) }
    }

    fn pcapng(&mut self, file: &[u8]) -> Result<(), CaptureErrorKind> {
        let (mut rest, mut parser) = PcapNgParser::new(file).map_err(|error| self.refused(0, error))?;
        while !rest.is_empty() {
            let offset = file.len() - rest.len();
            let damaged = |loader: &Self, reason: &str| CaptureErrorKind::Damaged {
                packet: loader.capture.len(),
                offset,
                reason: reason.to_owned(),
            };
            let (behind, block) = match parser.next_block(rest) {
                Ok(answer) => answer,
                // An option that is too short for its type says the same as a file that ends here.
                Err(PcapError::IncompleteBuffer) if parser.next_raw_block(rest).is_ok() => {
                    return Err(damaged(self, "an option is shorter than its type"));
                }
                Err(error) => return Err(self.refused(offset, error)),
            };
            rest = behind;
            let (interface, units, data, original) = match &block {
                Block::EnhancedPacket(packet) => {
                    // The parser takes every time for nanoseconds.
                    (packet.interface_id, Some(packet.timestamp.as_nanos()), &packet.data, packet.original_len)
                }
                Block::Packet(packet) => {
                    (packet.interface_id.into(), Some(packet.timestamp.into()), &packet.data, packet.original_len)
                }
                Block::SimplePacket(packet) => (0, None, &packet.data, packet.original_len),
                _ => continue,
            };
            let description = usize::try_from(interface).ok().and_then(|index| parser.interfaces().get(index));
            let description =
                description.ok_or_else(|| damaged(self, "a packet of an interface that is not described"))?;
            let clock = Clock::of(description).ok_or_else(|| damaged(self, "impossible if_tsresol"))?;
            // Simple packets have no time: they follow the packet in front at once.
            let last_ns = self.first_ns.unwrap_or(0) + i128::from(self.capture.duration_ns());
            let time_ns = units.map_or(last_ns, |units| clock.ns(units));
            let data: &[u8] = match units {
                Some(_) => data,
                // Their data is padded, and their length is the smaller of snaplen and original length.
                None => {
                    let snaplen = if description.snaplen == 0 { u32::MAX } else { description.snaplen };
                    let len = usize::try_from(original.min(snaplen)).unwrap_or(usize::MAX);
                    data.get(..len).ok_or_else(|| damaged(self, "a simple packet longer than its block"))?
                }
            };
            self.packet(description.linktype, time_ns, data, original)?;
        }
        Ok(())
    }

    fn packet(&mut self, link: DataLink, time_ns: i128, data: &[u8], original: u32) -> Result<(), CaptureErrorKind> {
        let packet = self.capture.len() + 1;
        if link != DataLink::ETHERNET {
            return Err(CaptureErrorKind::LinkType { packet, link: LinkType(link) });
        }
        let original = usize::try_from(original).unwrap_or(usize::MAX);
        if data.len() < original {
            self.cut.get_or_insert((packet, data.len(), original));
            self.cut_count += 1;
        }
        if data.len() < packet::proto::ETHERNET_LEN {
            return Err(CaptureErrorKind::Runt { packet, bytes: data.len() });
        }
        if original > ORIGINAL_MAX {
            return Err(CaptureErrorKind::TooLong { packet, bytes: original, limit: ORIGINAL_MAX });
        }
        let first_ns = *self.first_ns.get_or_insert(time_ns);
        let offset_ns = u64::try_from((time_ns - first_ns).max(0)).unwrap_or(u64::MAX);
        let len = if self.snapped == Snapped::Pad { data.len().max(original) } else { data.len() };
        self.capture.push(offset_ns, data, len);
        Ok(())
    }

    fn refused(&self, offset: usize, error: PcapError) -> CaptureErrorKind {
        let whole = self.capture.len();
        match error {
            PcapError::IncompleteBuffer => CaptureErrorKind::Truncated { packet: whole + 1, offset, whole },
            error => CaptureErrorKind::Damaged { packet: whole, offset, reason: error.to_string() },
        }
    }

    fn finish(self) -> Result<Capture, CaptureErrorKind> {
        match self.cut {
            Some((packet, captured, original)) if self.snapped == Snapped::Refuse => {
                Err(CaptureErrorKind::Snapped { packet, captured, original, others: self.cut_count - 1 })
            }
            _ if self.capture.is_empty() => Err(CaptureErrorKind::Empty),
            _ => Ok(self.capture),
        }
    }
}

//! `margay explain`: a five-tuple or the packets of a capture, through the loaded program.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::client::Client;
use super::output::{self, Format};
use super::{AgentArgs, Error, OutputArgs};
use crate::control::api::types::{ExplainRequest, Explanation, Packet, Tuple};

/// Ends of a packet, or a capture.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// tcp, udp, sctp or icmp.
    #[arg(required_unless_present = "pcap", value_parser = ["tcp", "udp", "sctp", "icmp"])]
    protocol: Option<String>,
    /// Source as ADDRESS:PORT, `[ADDRESS]:PORT` for IPv6; ADDRESS alone for icmp.
    #[arg(required_unless_present = "pcap")]
    source: Option<String>,
    /// Destination, likewise.
    #[arg(required_unless_present = "pcap")]
    destination: Option<String>,
    /// Interface that the packet comes in by.
    #[arg(short, long)]
    interface: String,
    /// TCP flags, letters of FSRPAU.
    #[arg(long, default_value = "S")]
    flags: String,
    /// Explain the packets of a capture (pcap or pcapng, Ethernet) instead, as they are.
    #[arg(long, conflicts_with_all = ["protocol", "source", "destination", "flags"])]
    pcap: Option<PathBuf>,
    /// Only the packet with this number, from 1.
    #[arg(short = 'n', long, requires = "pcap")]
    number: Option<usize>,
    #[command(flatten)]
    agent: AgentArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn explain(args: ExplainArgs) -> Result<ExitCode, Error> {
    let packets = match &args.pcap {
        Some(path) => capture(path, args.number)?,
        None => vec![Packet::Tuple(tuple(&args)?)],
    };
    let client = Client::new(&args.agent.socket);
    let mut explanations = Vec::new();
    for packet in packets {
        let request = ExplainRequest { interface: args.interface.clone(), packet };
        let explanation: Explanation = client.post("/v1/explain", &request)?;
        match args.output.output {
            Format::Table => output::text(&path(&explanation))?,
            Format::Json => explanations.push(explanation),
        }
    }
    match (args.output.output, explanations.as_slice()) {
        (Format::Table, _) => {}
        (Format::Json, [only]) if args.pcap.is_none() => output::json(only)?,
        (Format::Json, all) => output::json(&all)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tuple(args: &ExplainArgs) -> Result<Tuple, Error> {
    let protocol = args.protocol.clone().unwrap_or_default();
    let end = |text: &Option<String>| parse_endpoint(text.as_deref().unwrap_or_default(), &protocol);
    let ((source, source_port), (destination, destination_port)) = (end(&args.source)?, end(&args.destination)?);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(Error::Usage(format!("{source} and {destination} are of different families")));
    }
    let flags = if protocol == "tcp" { args.flags.to_uppercase() } else { String::new() };
    Ok(Tuple { protocol, source, source_port, destination, destination_port, flags })
}

fn parse_endpoint(text: &str, protocol: &str) -> Result<(IpAddr, u16), Error> {
    let parsed = match protocol {
        "icmp" => text.parse().ok().map(|address| (address, 0)),
        _ => text.parse().ok().map(|end: SocketAddr| (end.ip(), end.port())),
    };
    parsed.ok_or_else(|| {
        Error::Usage(match protocol {
            "icmp" => format!("'{text}' is not an address"),
            _ => format!("'{text}' is not ADDRESS:PORT (for IPv6 [ADDRESS]:PORT)"),
        })
    })
}

/// The frames of a capture, or one of them.
fn capture(path: &Path, number: Option<usize>) -> Result<Vec<Packet>, Error> {
    let unreadable = |source| Error::File { path: path.to_owned(), source };
    let malformed =
        |error: pcap_file::PcapError| Error::Usage(format!("{}: no valid capture: {error}", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    let file = BufReader::new(file);
    let mut frames = Vec::new();
    if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
        let mut reader = PcapNgReader::new(file).map_err(malformed)?;
        while let Some(block) = reader.next_block() {
            match block.map_err(malformed)? {
                Block::EnhancedPacket(packet) => frames.push(hex(&packet.data)),
                Block::SimplePacket(packet) => frames.push(hex(&packet.data)),
                _ => {}
            }
        }
    } else {
        let mut reader = PcapReader::new(file).map_err(malformed)?;
        while let Some(packet) = reader.next_packet() {
            frames.push(hex(&packet.map_err(malformed)?.data));
        }
    }
    let count = frames.len();
    let frames: Vec<Packet> = match number {
        None => frames.into_iter().map(Packet::Frame).collect(),
        Some(number) => frames.into_iter().nth(number.wrapping_sub(1)).map(Packet::Frame).into_iter().collect(),
    };
    if frames.is_empty() {
        let wanted = number.map_or_else(|| "a packet".to_owned(), |number| format!("packet {number}"));
        return Err(Error::Usage(format!("{}: no {wanted}, the capture holds {count}", path.display())));
    }
    Ok(frames)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// One line a stage, the verdict last.
fn path(explanation: &Explanation) -> String {
    let mut out = String::new();
    for step in &explanation.steps {
        let _ = writeln!(out, "{:<10} {}", step.stage, step.text);
    }
    let detail = explanation.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let _ = writeln!(out, "{:<10} {}{detail}\n", "=>", explanation.verdict);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_they_are_shown() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:443"] {
            let (address, port) = parse_endpoint(text, "tcp").unwrap();
            assert_eq!(SocketAddr::new(address, port).to_string(), text);
        }
        assert!(parse_endpoint("10.0.0.1", "tcp").is_err(), "a port is missing");
        assert!(parse_endpoint("10.0.0.1:80", "icmp").is_err(), "there are no ports");
    }

    #[test]
    fn a_capture_is_read_packet_by_packet() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = pcap_file::pcap::PcapWriter::new(file.reopen().unwrap()).unwrap();
        for byte in [1u8, 2] {
            let data = vec![byte; 3];
            let packet = pcap_file::pcap::PcapPacket::new(std::time::Duration::ZERO, 3, &data);
            writer.write_packet(&packet).unwrap();
        }
        drop(writer);
        let all = capture(file.path(), None).unwrap();
        assert_eq!(all, [Packet::Frame("010101".into()), Packet::Frame("020202".into())]);
        assert_eq!(capture(file.path(), Some(2)).unwrap(), all[1..]);
        let error = capture(file.path(), Some(3)).unwrap_err().to_string();
        assert!(error.contains("no packet 3, the capture holds 2"), "{error}");
        std::fs::write(file.path(), b"no capture at all, whatever it is").unwrap();
        assert!(capture(file.path(), None).is_err());
    }
}

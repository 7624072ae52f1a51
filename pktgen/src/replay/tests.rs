use std::borrow::Cow;
use std::time::Duration;

use packet::notation::encode;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
use pcap_file::{DataLink, Endianness, TsResolution};
use proptest::prelude::*;

use super::*;

fn frame(client: u8, port: u16) -> Vec<u8> {
    encode(&format!("eth 02::1 > 02::2 / ip4 10.0.0.{client} > 192.0.2.1 / tcp {port} > 80 S / data {port}")).unwrap()
}

/// Three frames at 0, 1 and 3 ms.
fn frames() -> Vec<(u64, Vec<u8>)> {
    vec![(0, frame(1, 100)), (1_000_000, frame(2, 200)), (3_000_000, frame(1, 100))]
}

fn pcap(header: PcapHeader, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for (ns, frame) in frames {
        let time = Duration::from_secs(1_700_000_000) + Duration::from_nanos(*ns);
        writer.write_packet(&PcapPacket::new(time, frame.len() as u32, frame)).unwrap();
    }
    writer.into_writer()
}

fn little(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    pcap(PcapHeader { endianness: Endianness::Little, ..PcapHeader::default() }, frames)
}

/// `units`: what a time of 1 ns is multiplied with before it is written as if it were nanoseconds.
fn pcapng(endianness: Endianness, resolution: Option<u8>, unit_ns: u64, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), endianness).unwrap();
    let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
    interface.options.extend(resolution.map(InterfaceDescriptionOption::IfTsResol));
    writer.write_pcapng_block(interface).unwrap();
    for (ns, frame) in frames {
        let units = (1_700_000_000_000_000_000 + ns) / unit_ns;
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(units),
            original_len: frame.len() as u32,
            data: Cow::Borrowed(frame),
            options: Vec::new(),
        };
        writer.write_pcapng_block(block).unwrap();
    }
    writer.into_inner()
}

#[track_caller]
fn parse(file: &[u8]) -> Capture {
    Capture::parse(file, Snapped::Refuse).unwrap()
}

#[track_caller]
fn refused(file: &[u8]) -> String {
    Capture::parse(file, Snapped::Refuse).unwrap_err().to_string()
}

#[test]
fn every_flavour_of_file_gives_the_same_frames() {
    let expected = parse(&little(&frames()));
    assert_eq!((expected.len(), expected.duration_ns(), expected.longest()), (3, 3_000_000, 254));
    let all: Vec<_> = expected.iter().map(|record| (record.offset_ns, record.frame.to_vec())).collect();
    assert_eq!(all, frames());
    for endianness in [Endianness::Little, Endianness::Big] {
        for ts_resolution in [TsResolution::MicroSecond, TsResolution::NanoSecond] {
            let file = pcap(PcapHeader { endianness, ts_resolution, ..PcapHeader::default() }, &frames());
            assert!(parse(&file).iter().eq(expected.iter()), "{endianness:?} {ts_resolution:?}");
        }
        // Microseconds unless said otherwise; 10^-9; 2^-20 is not exact to the nanosecond, so only roughly.
        for (resolution, unit_ns) in [(None, 1000), (Some(6), 1000), (Some(9), 1), (Some(3), 1_000_000)] {
            let file = pcapng(endianness, resolution, unit_ns, &frames());
            assert!(parse(&file).iter().eq(expected.iter()), "{endianness:?} {resolution:?}");
        }
        let mut seconds = pcapng(endianness, Some(0x80), 1_000_000_000, &frames());
        assert_eq!(parse(&seconds).duration_ns(), 0);
        // A second section, of whatever byte order, is part of the file.
        seconds.extend(pcapng(Endianness::Big, Some(9), 1, &frames()));
        assert_eq!(parse(&seconds).len(), 6);
    }
}

#[test]
fn simple_packets_have_no_time_and_no_padding() {
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Big).unwrap();
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)).unwrap();
    let data = frame(1, 33);
    for _ in 0..2 {
        let block = SimplePacketBlock { original_len: data.len() as u32, data: Cow::Borrowed(&data) };
        writer.write_pcapng_block(block).unwrap();
    }
    let capture = parse(&writer.into_inner());
    assert!(capture.iter().eq([Record { offset_ns: 0, frame: &data }; 2]));
}

#[test]
fn a_truncated_file_is_refused_with_packet_and_place() {
    let whole = little(&frames());
    let third = 24 + 2 * 16 + frame(1, 100).len() + frame(2, 200).len();
    for end in [third + 1, third + 15, whole.len() - 1] {
        let error = refused(&whole[..end]);
        assert!(
            error.contains("cut off inside packet 3") && error.contains(&format!("byte {third}:")),
            "{end}: {error}"
        );
        assert!(error.contains("1-2` keeps"), "{error}");
    }
    assert!(refused(&whole[..20]).contains("cut off"));
    let whole = pcapng(Endianness::Little, None, 1000, &frames());
    let error = refused(&whole[..whole.len() - 3]);
    assert!(error.contains("cut off inside packet 3"), "{error}");
}

#[test]
fn other_link_types_are_named() {
    let file = pcap(PcapHeader { datalink: DataLink::LINUX_SLL, ..PcapHeader::default() }, &frames());
    let error = refused(&file);
    assert!(error.contains("LINUX_SLL (113)") && error.contains("only Ethernet"), "{error}");
    let file = pcap(PcapHeader { datalink: DataLink::Unknown(9999), ..PcapHeader::default() }, &frames());
    assert!(refused(&file).contains("link type 9999"));
}

#[test]
fn packets_cut_short_are_refused_or_padded() {
    let mut file = little(&frames());
    // The original length of the first packet, 8 bytes behind its times, and 4 behind the captured one.
    let original = 254u32;
    file[24 + 12..24 + 16].copy_from_slice(&original.to_le_bytes());
    let error = refused(&file);
    assert!(error.contains("packet 1 has 154 of its 254 bytes, and 0 others"), "{error}");
    let padded = Capture::parse(&file, Snapped::Pad).unwrap();
    let first = padded.get(0).unwrap().frame;
    assert!(first[..154] == frame(1, 100) && first[154..] == [0; 100]);
}

#[test]
fn what_is_no_capture_is_refused() {
    assert!(refused(b"").contains("no packet"));
    assert!(refused(&little(&[])).contains("no packet"));
    assert!(refused(&pcapng(Endianness::Big, None, 1000, &[])).contains("no packet"));
    assert!(refused(b"GIF89a, a picture").contains("neither pcap nor pcapng"));
    assert!(refused(&little(&[(0, vec![0; 13])])).contains("packet 1 has 13 bytes"));
    let error = parse(&little(&frames())).fits(200).unwrap_err().to_string();
    assert!(error.contains("packet 2 has 254 bytes, but frames of at most 214"), "{error}");
    let missing = Capture::load(std::path::Path::new("/nonexistent.pcap"), Snapped::Refuse).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent.pcap: cannot be read"), "{missing}");
    // A packet of an interface that no block describes.
    let mut file = pcapng(Endianness::Little, None, 1000, &frames()[..1]);
    let packet = 28 + 20;
    file[packet + 8] = 7;
    assert!(refused(&file).contains("not described"), "{}", refused(&file));
}

#[test]
fn times_that_go_back_are_sent_at_once() {
    let mut wild = frames();
    wild[2].0 = 500_000;
    let capture = parse(&little(&wild));
    assert_eq!(capture.backwards(), 1);
    assert_eq!(capture.get(2).unwrap().offset_ns, 1_000_000);
}

fn drain(source: &mut ReplaySource) -> Vec<(Option<u64>, Vec<u8>)> {
    let mut out = [0; 2000];
    let mut all = Vec::new();
    loop {
        let due = source.due_ns();
        let Some(written) = source.next(0, &mut out) else { return all };
        all.push((due, out[..written.len].to_vec()));
    }
}

#[test]
fn loops_keep_the_mean_gap_and_counts_are_exact() {
    let capture = parse(&little(&frames()));
    let options = Options { loops: Some(2), ..Options::default() };
    let replay = Replay::new(&capture, options);
    assert_eq!(replay.packets(), Some(6));
    let due: Vec<_> = drain(&mut replay.source(0, 1)).into_iter().map(|(due, _)| due.unwrap()).collect();
    // The mean gap, 1.5 ms, lies between two loops.
    assert_eq!(due, [0, 1_000_000, 3_000_000, 4_500_000, 5_500_000, 7_500_000]);
    let shares: Vec<_> = (0..3).map(|thread| drain(&mut replay.source(thread, 3).limited(5)).len()).collect();
    assert_eq!(shares.iter().sum::<usize>(), 5);
    let endless = Replay::new(&capture, Options { loops: None, ..Options::default() });
    assert_eq!(endless.packets(), None);
}

#[test]
fn every_loop_can_be_new_flows() {
    let capture = parse(&little(&frames()));
    let options = Options {
        loops: Some(3),
        rewrite: "ip.src=198.18.0.0/16".parse().unwrap(),
        per_loop: "ip.src=256".parse().unwrap(),
    };
    let all = drain(&mut Replay::new(&capture, options).source(0, 1));
    let sources: Vec<_> = all.iter().map(|(_, frame)| frame[26..30].to_vec()).collect();
    let expected = [(0, 1), (0, 2), (0, 1), (1, 1), (1, 2), (1, 1), (2, 1), (2, 2), (2, 1)];
    assert_eq!(sources, expected.map(|(net, host)| vec![198, 18, net, host]));
}

proptest! {
    /// Threads share the frames out, each once, and those of a connection stay together and in order.
    #[test]
    fn threads_share_connections(clients in proptest::collection::vec((0..20u8, 10..14u16), 1..60), threads in 1..5u32) {
        let frames: Vec<_> = clients.iter().enumerate().map(|(i, (client, port))| (i as u64, frame(*client, *port))).collect();
        let replay = Replay::new(&parse(&pcapng(Endianness::Little, Some(9), 1, &frames)), Options::default());
        let shares: Vec<_> = (0..threads).map(|thread| drain(&mut replay.source(thread, threads))).collect();
        prop_assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), frames.len());
        for share in &shares {
            prop_assert!(share.is_sorted_by_key(|(due, _)| *due));
        }
        for (_, frame) in &frames {
            prop_assert_eq!(shares.iter().filter(|share| share.iter().any(|(_, other)| other == frame)).count(), 1);
        }
    }

    /// Whatever is in a file, it is read or refused.
    #[test]
    fn garbage_is_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in 0..6usize) {
        let start = [&[0xa1u8, 0xb2, 0xc3, 0xd4][..], &[0x4d, 0x3c, 0xb2, 0xa1], &[0x0a, 0x0d, 0x0d, 0x0a], &[], &[0xa1, 0xb2, 0x3c, 0x4d], &[0]][magic];
        bytes.splice(..0, start.iter().copied());
        let _ = Capture::parse(&bytes, Snapped::Pad);
    }

    /// Damage anywhere in a good file is survived.
    #[test]
    fn damage_is_survived(at in 0..400usize, value: u8, ng: bool) {
        let mut file = if ng { pcapng(Endianness::Little, Some(9), 1, &frames()) } else { little(&frames()) };
        if let Some(place) = file.get_mut(at) {
            *place = value;
        }
        let _ = Capture::parse(&file, Snapped::Pad);
    }
}

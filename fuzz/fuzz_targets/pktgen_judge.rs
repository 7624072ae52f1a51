//! A frame of a run that anything may have happened to: judged without a panic, and intact only where its innermost packet is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pktgen::receive::judge::{Arrival, Judge, Reference, Shape, take_note};
use pktgen::stamp::{self, STAMP_LEN, Stamp};

const MAGIC: u32 = 0x6d61_7267;
const LEN: usize = 100;

/// UDP over IPv4 in 100 bytes without checksums.
struct Plain;

impl Reference for Plain {
    fn flows(&self) -> u32 {
        16
    }

    fn streams(&self) -> usize {
        1
    }

    fn stream_of(&self, _flow: u32) -> usize {
        0
    }

    fn longest(&self) -> usize {
        LEN
    }

    fn write(&self, flow: u32, seq: u32, sent_ns: u32, out: &mut [u8]) -> usize {
        let Some(out) = out.get_mut(..LEN) else { return 0 };
        out.fill(7);
        out[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 86, 0, 0, 0, 0, 64, 17]);
        out[38..42].copy_from_slice(&[0, 66, 0, 0]);
        stamp::write(&mut out[LEN - STAMP_LEN..], MAGIC, Stamp { flow, seq, sent_ns });
        LEN
    }

    fn shape(&self, _flow: u32, _seq: u32) -> Option<Shape> {
        Some(Shape { end: LEN, l3: 14, v6: false, protocol: 17, l4: 34, payload: 42 })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut judge = Judge::new(&Plain, MAGIC);
    judge.judge(take_note(bytes).1);
    // Bytes of the input are written over a good frame, pairwise: where and what.
    let mut frame = [0; LEN];
    Plain.write(3, 9, 1, &mut frame);
    let good = frame;
    for pair in bytes.chunks_exact(2) {
        if let Some(place) = frame.get_mut(usize::from(pair[0])) {
            *place = pair[1];
        }
    }
    if let Arrival::Ours(verdict) = judge.judge(&frame)
        && !verdict.corrupt
        && verdict.changed.is_empty()
        && verdict.hops == Some(0)
        && verdict.stamp == (Stamp { flow: 3, seq: 9, sent_ns: 1 })
    {
        // What is in front of it may have become tags or a tunnel.
        let (_, end) = stamp::outermost(&frame).expect("judged");
        assert_eq!(frame[end - (LEN - 14)..end], good[14..]);
    }
});

//! A box between two wires that does to packets what a test tells it: a forwarder over AF_PACKET with a fault in it.
#![expect(unsafe_code, reason = "a link-layer address is raw memory")]

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use packet::checksum;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use testkit::netns::{End, Error, Netns, veth};

/// Frames for the far wire; what it is given is one frame of the run, and its number in the flow.
pub(crate) type Fault = dyn FnMut(&mut Packet, &mut Vec<Packet>) + Send;

/// A frame of the run on its way through the box.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    /// Leave so long after it came.
    pub(crate) delay: Duration,
}

/// The generator's namespace with interfaces `out` and `back`; what leaves by one comes back by the other, faults included.
pub(crate) struct FaultBox {
    pub(crate) generator: Netns,
    _boxed: Netns,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl FaultBox {
    pub(crate) fn new(mut fault: impl FnMut(&mut Packet, &mut Vec<Packet>) + Send + 'static) -> Self {
        let (generator, boxed) = (Netns::new("rx-gen").unwrap(), Netns::new("rx-box").unwrap());
        for (near, far) in [("out", "in"), ("back", "exit")] {
            let near = End { netns: &generator, name: near, addresses: &[] };
            veth(near, End { netns: &boxed, name: far, addresses: &[] }).unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = boxed.thread(move || {
            let (input, exit) = (packet_socket("in"), packet_socket("exit"));
            ready.send(()).unwrap();
            forward(&input, &exit, &mut fault, &stopped);
        });
        is_ready.recv().unwrap();
        Self { generator, _boxed: boxed, stop, thread: Some(thread) }
    }
}

impl Drop for FaultBox {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Receives every frame of an interface, and sends on it.
fn packet_socket(interface: &str) -> Socket {
    let every = (libc::ETH_P_ALL as u16).to_be();
    // No protocol before it is bound: it would receive from all interfaces.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).unwrap();
    let index = rustix::net::netdevice::name_to_index(&socket, interface).unwrap();
    // SAFETY: the storage is large enough for a sockaddr_ll, which is plain data, and its length is said.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = every;
            (*address).sll_ifindex = index as i32;
            *len = size_of::<libc::sockaddr_ll>() as u32;
            Ok(())
        })
    }
    .unwrap();
    // The receive buffer must take what comes while the machine does something else.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 256 << 20).unwrap();
    socket.bind(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    socket
}

fn forward(input: &Socket, exit: &Socket, fault: &mut Fault, stop: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut out = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut reader: &Socket = input;
        let received = reader.read(&mut buffer).ok();
        let now = Instant::now();
        if let Some(len) = received {
            let mut packet = Packet { bytes: buffer[..len].to_vec(), delay: Duration::ZERO };
            if packet.is_ours() {
                fault(&mut packet, &mut out);
            }
            for packet in out.drain(..) {
                let due = now + packet.delay;
                let at = waiting.partition_point(|(earlier, _)| *earlier <= due);
                waiting.insert(at, (due, packet.bytes));
            }
        }
        while waiting.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            exit.send(&waiting.pop_front().unwrap().1).unwrap();
        }
    }
}

/// Offsets of what pktgen sends here: UDP over IPv4 without options or tags.
const L3: usize = 14;
const L4: usize = L3 + 20;

impl Packet {
    fn is_ours(&self) -> bool {
        self.bytes.len() >= 60 && self.bytes[12..14] == [8, 0] && self.bytes[L3 + 9] == 17
    }

    fn end(&self) -> usize {
        L3 + usize::from(u16::from_be_bytes([self.bytes[L3 + 2], self.bytes[L3 + 3]]))
    }

    /// First byte of the stamp.
    pub(crate) fn stamp(&self) -> usize {
        self.end() - 18
    }

    pub(crate) fn seq(&self) -> u32 {
        u32::from_be_bytes(self.bytes[self.stamp() + 8..][..4].try_into().unwrap())
    }

    pub(crate) fn flow(&self) -> u32 {
        u32::from_be_bytes(self.bytes[self.stamp() + 4..][..4].try_into().unwrap()) & 0xff_ffff
    }

    /// Stores a byte of the IP header, counted from its start, and adjusts the checksums.
    pub(crate) fn set_ip(&mut self, at: usize, value: u8) {
        let address = (12..20).contains(&at);
        self.set(L3 + at, value, &[Some(L3 + 10), address.then_some(L4 + 6)]);
    }

    /// Stores a byte of the UDP header, counted from its start, and adjusts the checksum.
    pub(crate) fn set_udp(&mut self, at: usize, value: u8) {
        self.set(L4 + at, value, &[Some(L4 + 6)]);
    }

    fn set(&mut self, at: usize, value: u8, checksums: &[Option<usize>]) {
        let word = at & !1;
        let old = u16::from_be_bytes([self.bytes[word], self.bytes[word + 1]]);
        self.bytes[at] = value;
        let new = u16::from_be_bytes([self.bytes[word], self.bytes[word + 1]]);
        for csum in checksums.iter().flatten() {
            let stored = u16::from_be_bytes([self.bytes[*csum], self.bytes[csum + 1]]);
            let updated = checksum::update(stored, old, new);
            self.bytes[*csum..csum + 2].copy_from_slice(&updated.to_be_bytes());
        }
    }
}

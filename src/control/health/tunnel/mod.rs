//! Checks via tunnel: ordinary sockets to the VIP, whose packets are sent as clients' packets to the backend are.
//!
//! The sockets' mark has the kernel hand their packets to a TUN device of ours ([`routing`]). Each is looked up by its socket, so that several
//! backends can be asked as one VIP at a time, run through the program's own encapsulation, and sent by the interface that the program
//! says. Answers come straight from the VIP to the socket's address, like those to clients.

mod raw;
mod routing;
mod sent;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::health::Target;
use model::network::IfIndex;
use rtnetlink::{Handle, IpVersion};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::ways::Ways;
use crate::control::health::probe::words;
use crate::control::netlink::Resolver;
use crate::dataplane::Encapsulator;
pub(super) use passage::Passage;
use sent::Sent;

mod passage;

/// The device.
const DEVICE: &str = "margay-check";
/// Pause before what could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Largest packet that the device hands over.
const PACKET_BYTES: usize = 2048;

/// What the kernel tells the packets of checks by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) mark: u32,
    pub(super) table: u32,
}

/// What checks via tunnel need, there while any is wanted.
pub(super) struct Tunnel {
    settings: Settings,
    ways: Ways,
    program: Option<Arc<Encapsulator>>,
    device: Option<Result<Device, String>>,
    /// When the device was last asked for.
    tried: Instant,
    /// Whatever a process that was killed has left has been used or taken away.
    tidy: bool,
}

impl Tunnel {
    /// Nothing is checked via tunnel, as far as is known.
    pub(super) fn new(now: Instant) -> Self {
        let settings = Settings { mark: 0, table: 0 };
        Self { settings, ways: Ways::new(), program: None, device: None, tried: now, tidy: false }
    }

    /// Packets go by this program from now on.
    pub(super) fn take_program(&mut self, program: Arc<Encapsulator>) {
        if let Some(Ok(device)) = &self.device {
            device.sent.take_program(Arc::clone(&program));
        }
        self.program = Some(program);
    }

    /// These are the ways of the generation in force. What is needed is there, or is gone, when this returns.
    pub(super) async fn follow(&mut self, settings: Settings, ways: Ways, now: Instant) {
        if settings != self.settings || ways.is_empty() {
            self.close().await;
        }
        (self.settings, self.ways) = (settings, ways);
        self.keep_open(now).await;
        if !std::mem::replace(&mut self.tidy, true) && self.device.is_none() {
            tidy_up().await;
        }
    }

    /// Opens what is needed and is not open.
    pub(super) async fn keep_open(&mut self, now: Instant) {
        let due = match &self.device {
            _ if self.ways.is_empty() => false,
            None => true,
            Some(Ok(device)) => device.reader.is_finished(),
            Some(Err(_)) => now >= self.tried + RETRY,
        };
        if !due {
            return;
        }
        self.close().await;
        self.tried = now;
        let device = Device::open(self.settings, self.program.clone()).await;
        match &device {
            Ok(_) => {
                info!(device = DEVICE, mark = self.settings.mark, table = self.settings.table, "checks via tunnel")
            }
            Err(error) => warn!(error, "no backend can be checked via tunnel"),
        }
        self.device = Some(device);
    }

    /// Takes everything back from the kernel.
    pub(super) async fn close(&mut self) {
        if let Some(Ok(device)) = self.device.take() {
            device.close().await;
        }
    }

    /// True where a generation is in force that says how the target is reached, or why not. Before that nothing is known of it.
    pub(super) fn knows(&self, target: &Target) -> bool {
        target.vip.is_none_or(|vip| self.ways.contains_key(&(vip, target.address)))
    }

    /// The way of a check; `None` where it goes by the kernel's routes.
    ///
    /// # Errors
    /// Why there is none, in the words that the operator gets.
    pub(super) fn passage(&self, target: &Target) -> Result<Option<Passage>, String> {
        let Some(vip) = target.vip else { return Ok(None) };
        let way = self.ways.get(&(vip, target.address)).cloned();
        let way = way.unwrap_or_else(|| Err("no generation with it is in force".to_owned()))?;
        let device = self
            .device
            .as_ref()
            .map_or(Err("there is no device for it"), |device| device.as_ref().map_err(String::as_str));
        let device = device.map_err(|error| format!("via tunnel: {error}"))?;
        let family = if vip.prefix.addr().is_ipv4() { &device.ipv4 } else { &device.ipv6 };
        family.clone().map_err(|error| format!("via tunnel: {error}"))?;
        Ok(Some(Passage::new(Arc::clone(&device.sent), self.settings.mark, target.address, way)))
    }
}

/// The TUN device, and the rules and routes that lead to it.
struct Device {
    sent: Arc<Sent>,
    reader: JoinHandle<()>,
    netlink: Handle,
    /// Why a family cannot be used.
    ipv4: Result<(), String>,
    ipv6: Result<(), String>,
}

impl Device {
    async fn open(settings: Settings, program: Option<Arc<Encapsulator>>) -> Result<Self, String> {
        let said = |what: &str, error: &io::Error| format!("{what}: {}", words(error));
        let netlink = connect().map_err(|error| said("no netlink socket", &error))?;
        let resolver = Resolver::new().map_err(|error| error.to_string())?;
        let tun = raw::open_tun(DEVICE).map_err(|error| said(&format!("no TUN device {DEVICE}"), &error))?;
        let frames = raw::Frames::open().map_err(|error| said("no packet socket", &error))?;
        let ifindex = index_of(DEVICE).map_err(|error| said(DEVICE, &error))?;
        routing::set_up(&netlink, ifindex).await.map_err(|error| format!("{DEVICE} does not come up: {error}"))?;
        let lead = async |family: IpVersion| {
            let led = lead(&netlink, family, settings, ifindex).await;
            led.map_err(|error| format!("no rule or no route to {DEVICE} in table {}: {error}", settings.table))
        };
        let (ipv4, ipv6) = (lead(IpVersion::V4).await, lead(IpVersion::V6).await);
        let sent = Arc::new(Sent::new(frames, resolver, program));
        let reader = tokio::spawn(read(tun, Arc::clone(&sent)));
        Ok(Self { sent, reader, netlink, ipv4, ipv6 })
    }

    async fn close(self) {
        take_rules_away(&self.netlink).await;
        self.reader.abort();
        // The device is gone with its descriptor, its routes with it.
        let _ = self.reader.await;
    }
}

/// Takes the rules away that a process which was killed has left.
async fn tidy_up() {
    match connect() {
        Ok(netlink) => take_rules_away(&netlink).await,
        Err(error) => debug!(%error, "rules of a former process, if any, stay"),
    }
}

fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn take_rules_away(netlink: &Handle) {
    for family in [IpVersion::V4, IpVersion::V6] {
        if let Err(error) = routing::settle_rules(netlink, family, None).await {
            debug!(%error, "rules for checks via tunnel stay");
        }
    }
}

async fn lead(
    netlink: &Handle,
    family: IpVersion,
    settings: Settings,
    device: IfIndex,
) -> Result<(), rtnetlink::Error> {
    // The route first: without it the rule leads on to other tables.
    routing::add_route(netlink, family.clone(), settings, device).await?;
    routing::settle_rules(netlink, family, Some(settings)).await
}

fn index_of(name: &str) -> io::Result<IfIndex> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(IfIndex(rustix::net::netdevice::name_to_index(socket, name)?))
}

/// Sends on what the device hands over, until it is gone.
async fn read(device: AsyncFd<OwnedFd>, sent: Arc<Sent>) {
    let mut packet = [0; PACKET_BYTES];
    loop {
        let Ok(mut ready) = device.ready(raw::INTEREST).await else { return };
        match ready.try_io(|device| Ok(rustix::io::read(device, &mut packet)?)) {
            Ok(Ok(length)) => sent.take(packet.get(..length).unwrap_or_default()),
            Ok(Err(error)) => return warn!(device = DEVICE, %error, "the device is gone, another is made"),
            Err(_would_block) => {}
        }
    }
}

/// The family of an address, in words.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

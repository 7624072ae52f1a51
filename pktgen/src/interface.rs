//! What the kernel says about an interface, by ioctl: the answer is that of the caller's network namespace, which /sys's
//! need not be.
#![expect(unsafe_code, reason = "ioctl takes raw memory")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use packet::layer::Mac;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// ETHTOOL_GDRVINFO and ETHTOOL_GCHANNELS of linux/ethtool.h.
const GDRVINFO: u32 = 0x0000_0003;
const GCHANNELS: u32 = 0x0000_003c;

/// Why an interface cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask {interface} for its {what}: {source} (is it in this network namespace? see `ip link`)")]
pub struct InterfaceError {
    interface: String,
    what: &'static str,
    source: io::Error,
}

/// One interface of the caller's network namespace.
#[derive(Debug)]
pub struct Interface {
    name: String,
    c_name: CString,
    socket: OwnedFd,
    index: u32,
}

/// struct ethtool_drvinfo, of which only the name is read.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// struct ethtool_channels.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl AsFd for Interface {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What an interface has counted on the sending side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct TxCounts {
    /// Frames sent.
    pub packets: u64,
    /// Frames that it could not take or send: its queue or its peer's was full, or it was down.
    pub dropped: u64,
}

impl TxCounts {
    /// Reads them from the text of /proc/net/dev: eight columns for receiving, then bytes, packets, errors, drops, ...
    fn find(table: &str, interface: &str) -> Option<Self> {
        let columns = table.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
        let mut counts = columns.split_ascii_whitespace().skip(9).map(|column| column.parse().ok());
        let packets = counts.next()??;
        Some(Self { packets, dropped: counts.nth(1)?? })
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            dropped: self.dropped.saturating_sub(earlier.dropped),
        }
    }
}

impl Interface {
    /// The interface called `name`.
    ///
    /// # Errors
    /// There is none in this network namespace.
    pub fn new(name: &str) -> Result<Self, InterfaceError> {
        let failed = |source| InterfaceError { interface: name.to_owned(), what: "index", source };
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(|e| failed(e.into()))?;
        let index = netdevice::name_to_index(&socket, name).map_err(|e| failed(e.into()))?;
        let c_name = CString::new(name).map_err(|e| failed(e.into()))?;
        Ok(Self { name: name.to_owned(), c_name, socket, index })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its Ethernet address.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn mac(&self) -> Result<Mac, InterfaceError> {
        let mut request = self.request();
        self.ioctl("Ethernet address", libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: SIOCGIFHWADDR has written the hardware address member.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut octets = address.sa_data.into_iter().map(i8::cast_unsigned);
        Ok(std::array::from_fn(|_| octets.next().unwrap_or(0)))
    }

    /// Bytes of the longest IP packet that it sends.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn mtu(&self) -> Result<usize, InterfaceError> {
        let mut request = self.request();
        self.ioctl("MTU", libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: SIOCGIFMTU has written the MTU member.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(usize::try_from(mtu).unwrap_or(0))
    }

    /// Waits until it is up and has carrier: attaching a program makes some drivers restart the link.
    ///
    /// # Errors
    /// It is not after `patience`.
    pub fn wait_running(&self, patience: Duration) -> Result<(), InterfaceError> {
        let deadline = Instant::now() + patience;
        let wanted = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
        loop {
            if self.flags()? & wanted == wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let source = io::Error::new(io::ErrorKind::TimedOut, "it is down or has no carrier");
                return Err(InterfaceError { interface: self.name.clone(), what: "state", source });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it is up and has carrier.
    ///
    /// # Errors
    /// `ENODEV`: it is gone, even if another one has its name now.
    pub fn is_running(&self) -> io::Result<bool> {
        if netdevice::name_to_index(&self.socket, &self.name)? != self.index {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let wanted = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
        Ok(self.flags().map_err(|error| error.source)? & wanted == wanted)
    }

    fn flags(&self) -> Result<i16, InterfaceError> {
        let mut request = self.request();
        self.ioctl("flags", libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS has written the flags member.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    /// What it has counted: frames sent, and frames to be sent that it dropped. `None`: /proc does not tell.
    pub fn tx_counts(&self) -> Option<TxCounts> {
        // /proc/net is that of the process, which a thread may have left.
        let table = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
        TxCounts::find(&table, &self.name)
    }

    /// Name of its driver; `None` where it does not say.
    pub fn driver(&self) -> Option<String> {
        let mut info = DriverInfo { cmd: GDRVINFO, driver: [0; 32], rest: [0; 160] };
        self.ethtool(&raw mut info).ok()?;
        CStr::from_bytes_until_nul(&info.driver).ok().map(|name| name.to_string_lossy().into_owned())
    }

    /// Receive queues in use; 1 where the driver does not say.
    pub fn rx_queues(&self) -> u32 {
        self.channels().map_or(1, |channels| channels.rx + channels.combined).max(1)
    }

    /// Transmit queues in use; 1 where the driver does not say.
    pub fn tx_queues(&self) -> u32 {
        self.channels().map_or(1, |channels| channels.tx + channels.combined).max(1)
    }

    fn channels(&self) -> Option<Channels> {
        let mut channels = Channels { cmd: GCHANNELS, ..Channels::default() };
        self.ethtool(&raw mut channels).ok()?;
        Some(channels)
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: ifreq is plain data, for which zero is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // A name that is too long has been refused by name_to_index.
        for (place, byte) in request.ifr_name.iter_mut().zip(self.c_name.as_bytes()) {
            *place = byte.cast_signed();
        }
        request
    }

    /// `command` points to a structure that starts with the command's number and is as long as that command says.
    fn ethtool<T>(&self, command: *mut T) -> Result<(), InterfaceError> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = command.cast();
        self.ioctl("driver", libc::SIOCETHTOOL, &mut request)
    }

    fn ioctl(&self, what: &'static str, number: libc::Ioctl, request: &mut libc::ifreq) -> Result<(), InterfaceError> {
        // SAFETY: the request names an interface and, for SIOCETHTOOL, points to the structure of its command; all of it
        // outlives the call.
        let answer = unsafe { libc::ioctl(self.socket.as_raw_fd(), number, std::ptr::from_mut(request)) };
        if answer == 0 {
            return Ok(());
        }
        Err(InterfaceError { interface: self.name.clone(), what, source: io::Error::last_os_error() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_by_the_whole_name() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
                     face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo\n\
                     w10: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  w1: 9 8 7 6 5 4 3 2 1 100 0 7 0 0 0 0\n";
        assert_eq!(TxCounts::find(table, "w1"), Some(TxCounts { packets: 100, dropped: 7 }));
        assert_eq!(TxCounts::find(table, "w"), None);
        let later = TxCounts { packets: 110, dropped: 7 };
        assert_eq!(later.since(TxCounts { packets: 100, dropped: 7 }), TxCounts { packets: 10, dropped: 0 });
    }
}

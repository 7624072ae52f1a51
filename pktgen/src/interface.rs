//! What the kernel says about an interface, by ioctl: the answer is that of the caller's network namespace, which /sys's
//! need not be.
#![expect(unsafe_code, reason = "ioctl takes raw memory")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
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

    /// Waits until it is up and has carrier: attaching a program makes some drivers restart the link.
    ///
    /// # Errors
    /// It is not after `patience`.
    pub fn wait_running(&self, patience: Duration) -> Result<(), InterfaceError> {
        let deadline = Instant::now() + patience;
        let wanted = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
        loop {
            let mut request = self.request();
            self.ioctl("flags", libc::SIOCGIFFLAGS, &mut request)?;
            // SAFETY: SIOCGIFFLAGS has written the flags member.
            if unsafe { request.ifr_ifru.ifru_flags } & wanted == wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let source = io::Error::new(io::ErrorKind::TimedOut, "it is down or has no carrier");
                return Err(InterfaceError { interface: self.name.clone(), what: "state", source });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Name of its driver; `None` where it does not say.
    pub fn driver(&self) -> Option<String> {
        let mut info = DriverInfo { cmd: GDRVINFO, driver: [0; 32], rest: [0; 160] };
        self.ethtool(&raw mut info).ok()?;
        CStr::from_bytes_until_nul(&info.driver).ok().map(|name| name.to_string_lossy().into_owned())
    }

    /// Receive queues in use; 1 where the driver does not say.
    pub fn rx_queues(&self) -> u32 {
        let mut channels = Channels { cmd: GCHANNELS, ..Channels::default() };
        match self.ethtool(&raw mut channels) {
            Ok(()) => (channels.rx + channels.combined).max(1),
            Err(_) => 1,
        }
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

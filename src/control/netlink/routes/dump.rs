//! Dumps of the kernel's tables.

use std::collections::BTreeMap;
use std::io;

use ipnet::IpNet;
use model::rib::Way;

use super::Error;
use super::socket::{Heard, Netlink};
use super::tables::Tables;
use super::wire::{Dumped, Message, messages};

/// Dumps that are tried for one that nothing has interrupted.
const ATTEMPTS: u32 = 5;

/// One dump under way.
pub(super) struct Dump {
    socket: Netlink,
    parts: Vec<(Dumped, u32)>,
    /// Index of what is asked for, also the number of the request.
    at: usize,
}

impl Dump {
    /// Asks for the first part.
    pub(super) fn start(tables: Vec<u32>) -> Result<Self, Error> {
        let of_table = |table: u32| Dumped::OF_TABLE.map(|what| (what, table));
        let parts = Dumped::BEFORE.map(|what| (what, 0)).into_iter().chain(tables.into_iter().flat_map(of_table));
        let dump = Self { socket: Netlink::asking()?, parts: parts.collect(), at: 0 };
        dump.ask()?;
        Ok(dump)
    }

    fn what(&self) -> Option<(Dumped, u32)> {
        self.parts.get(self.at).copied()
    }

    fn ask(&self) -> Result<(), Error> {
        match self.what() {
            Some((what, table)) => Ok(self.socket.ask(what, table, self.at as u32)?),
            None => Ok(()),
        }
    }

    /// Waits until there is more.
    pub(super) async fn readable(&mut self) {
        self.socket.readable().await;
    }

    /// Takes one datagram in; true when the dump is complete.
    pub(super) fn read(&mut self, routes: &mut Tables) -> Result<bool, Error> {
        let datagram = match self.socket.hear()? {
            Heard::Datagram(datagram) => datagram,
            Heard::Nothing => return Ok(false),
            Heard::Overrun => return Err(io::Error::from_raw_os_error(libc::ENOBUFS).into()),
        };
        let (mut done, mut refused) = (false, None);
        messages(datagram, |received| {
            if received.sequence as usize != self.at {
                return;
            }
            if received.interrupted {
                routes.interrupted();
            }
            match received.message {
                Message::Done => done = true,
                Message::Refused(errno) => refused = Some(errno),
                message => routes.dumped(message),
            }
        })?;
        match refused {
            None => {}
            // No such table, or a kernel without this family, or without nexthop objects: nothing is there.
            Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => done = true,
            Some(errno) => return Err(Error::Refused(io::Error::from_raw_os_error(errno))),
        }
        if done {
            self.at += 1;
            self.ask()?;
        }
        Ok(self.what().is_none())
    }
}

/// The way out of every prefix of a table of the kernel, as it is now.
///
/// # Errors
/// Where it cannot be dumped, or changes too much for a dump to be of one state.
pub async fn dump(table: u32) -> Result<BTreeMap<IpNet, Way>, Error> {
    for _ in 0..ATTEMPTS {
        let mut routes = Tables::new(table);
        routes.begin();
        let mut dump = Dump::start(routes.numbers())?;
        while !dump.read(&mut routes)? {
            dump.readable().await;
            // A table of a million routes is always readable: others have their turn.
            tokio::task::yield_now().await;
        }
        if !routes.finish().undecided {
            return Ok(routes.ways());
        }
    }
    Err(Error::Unsteady)
}

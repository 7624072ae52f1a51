//! The receiving end of a run: an interface here, or one on the far side of a command.

use std::sync::atomic::AtomicBool;

use packet::layer::Mac;

use super::Options;
use super::judge::Reference;
use super::side::{Outcome, Side, SideError};
use crate::interface::{Interface, InterfaceError};
use crate::progress::Progress;
use crate::remote::{Far, RemoteError};
use crate::report::Endpoint;
use crate::scenario::Scenario;
use crate::traffic::Plan;

/// Why nothing can be received, or receiving broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndError {
    /// The interface does not answer.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// It cannot receive.
    #[error(transparent)]
    Side(#[from] SideError),
    /// The far end cannot.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// An interface that has been found.
#[derive(Debug)]
pub enum Found {
    /// In this network namespace.
    Here(Interface),
    /// Elsewhere.
    There(Box<Far>),
}

impl Found {
    /// Finds `interface`, through the command `via` where it is elsewhere.
    ///
    /// # Errors
    /// [`EndError`].
    pub fn new(interface: &str, via: Option<&str>, options: &Options) -> Result<Self, EndError> {
        Ok(match via {
            None => Self::Here(Interface::new(interface)?),
            Some(via) => Self::There(Box::new(Far::open(via, interface, options.latency)?)),
        })
    }

    /// Its Ethernet address.
    ///
    /// # Errors
    /// [`EndError`].
    pub fn mac(&self) -> Result<Mac, EndError> {
        Ok(match self {
            Self::Here(interface) => interface.mac()?,
            Self::There(far) => far.mac(),
        })
    }

    /// Attaches the receiving program for a run with this magic. `plan` is that of `scenario`; none: a capture is sent.
    ///
    /// # Errors
    /// [`EndError`].
    pub fn attach(
        self,
        scenario: &Scenario,
        plan: Option<&Plan>,
        magic: u32,
        options: &Options,
    ) -> Result<End, EndError> {
        Ok(match self {
            Self::Here(interface) => End::Here(Box::new(Side::attach(interface, magic, options)?)),
            Self::There(mut far) => {
                far.prepare(scenario, plan.ok_or(RemoteError::Capture)?, options)?;
                End::There(far)
            }
        })
    }
}

/// An end with its program attached.
#[derive(Debug)]
pub enum End {
    /// In this process.
    Here(Box<Side>),
    /// Elsewhere.
    There(Box<Far>),
}

impl End {
    /// The side in this process, where that is.
    pub fn here(&mut self) -> Option<&mut Side> {
        match self {
            Self::Here(side) => Some(side),
            Self::There(_) => None,
        }
    }

    /// What it is, for the report.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Here(side) => side.endpoint(),
            Self::There(far) => far.endpoint(),
        }
    }

    /// Receives until `sent_all` is set and silence has followed. `cores` and `threads` are as for [`Side::run`]; a far end
    /// chooses its own. Where receiving breaks off, the run is stopped.
    ///
    /// # Errors
    /// [`EndError`].
    pub fn run(
        &mut self,
        reference: &dyn Reference,
        magic: u32,
        sent_all: &AtomicBool,
        progress: &Progress,
        cores: &[usize],
        threads: usize,
    ) -> Result<Outcome, EndError> {
        let outcome = match self {
            Self::Here(side) => side.run(reference, magic, sent_all, progress, cores, threads).map_err(EndError::from),
            Self::There(far) => {
                far.run(reference.flows(), reference.streams(), sent_all, progress).map_err(EndError::from)
            }
        };
        if outcome.is_err() {
            progress.stop();
        }
        outcome
    }
}

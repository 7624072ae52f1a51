//! NOTIFICATION: why a session ends (RFC 4271 §4.5, §6).

use bytes::Bytes;

/// Error codes (IANA "BGP Error (Notification) Codes").
pub mod code {
    /// Message Header Error.
    pub const MESSAGE_HEADER: u8 = 1;
    /// OPEN Message Error.
    pub const OPEN_MESSAGE: u8 = 2;
    /// UPDATE Message Error.
    pub const UPDATE_MESSAGE: u8 = 3;
    /// Hold Timer Expired.
    pub const HOLD_TIMER_EXPIRED: u8 = 4;
    /// Finite State Machine Error.
    pub const FSM: u8 = 5;
    /// Cease.
    pub const CEASE: u8 = 6;
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER_EXPIRED: u8 = 8;
}

/// Subcodes of [`code::MESSAGE_HEADER`].
pub mod header {
    /// The marker is not all ones.
    pub const CONNECTION_NOT_SYNCHRONIZED: u8 = 1;
    /// The length does not fit the message type.
    pub const BAD_MESSAGE_LENGTH: u8 = 2;
    /// The type is unknown.
    pub const BAD_MESSAGE_TYPE: u8 = 3;
}

/// Subcodes of [`code::CEASE`] (RFC 4486).
pub mod cease {
    /// Administrative Shutdown.
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    /// Peer De-configured.
    pub const PEER_DECONFIGURED: u8 = 3;
    /// Other Configuration Change.
    pub const OTHER_CONFIGURATION_CHANGE: u8 = 6;
    /// Connection Collision Resolution.
    pub const CONNECTION_COLLISION: u8 = 7;
}

/// Subcodes of [`code::FSM`] (RFC 6608).
pub mod fsm {
    /// Unexpected message in OpenSent.
    pub const OPEN_SENT: u8 = 1;
    /// Unexpected message in OpenConfirm.
    pub const OPEN_CONFIRM: u8 = 2;
    /// Unexpected message in Established.
    pub const ESTABLISHED: u8 = 3;
}

/// The contents of a NOTIFICATION message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code, [`code`].
    pub code: u8,
    /// Error subcode; 0 is "unspecific".
    pub subcode: u8,
    /// What the error is about, as its subcode defines.
    pub data: Bytes,
}

impl Notification {
    /// A NOTIFICATION without data.
    #[must_use]
    pub fn new(code: u8, subcode: u8) -> Self {
        Self { code, subcode, data: Bytes::new() }
    }

    /// Cease with a subcode of [`cease`].
    #[must_use]
    pub fn cease(subcode: u8) -> Self {
        Self::new(code::CEASE, subcode)
    }

    /// The words of RFC 4271 and its companions for this code and subcode.
    fn words(&self) -> (&'static str, Option<&'static str>) {
        let of = |names: &[&'static str]| {
            usize::from(self.subcode).checked_sub(1).and_then(|i| names.get(i).copied()).filter(|n| !n.is_empty())
        };
        match self.code {
            1 => {
                ("message header error", of(&["connection not synchronized", "bad message length", "bad message type"]))
            }
            2 => (
                "OPEN message error",
                of(&[
                    "unsupported version number",
                    "bad peer AS",
                    "bad BGP identifier",
                    "unsupported optional parameter",
                    "",
                    "unacceptable hold time",
                    "unsupported capability",
                    "",
                    "",
                    "",
                    "role mismatch",
                ]),
            ),
            3 => (
                "UPDATE message error",
                of(&[
                    "malformed attribute list",
                    "unrecognized well-known attribute",
                    "missing well-known attribute",
                    "attribute flags error",
                    "attribute length error",
                    "invalid ORIGIN attribute",
                    "",
                    "invalid NEXT_HOP attribute",
                    "optional attribute error",
                    "invalid network field",
                    "malformed AS_PATH",
                ]),
            ),
            4 => ("hold timer expired", None),
            5 => (
                "finite state machine error",
                of(&[
                    "unexpected message in OpenSent",
                    "unexpected message in OpenConfirm",
                    "unexpected message in Established",
                ]),
            ),
            6 => (
                "cease",
                of(&[
                    "maximum number of prefixes reached",
                    "administrative shutdown",
                    "peer de-configured",
                    "administrative reset",
                    "connection rejected",
                    "other configuration change",
                    "connection collision resolution",
                    "out of resources",
                    "hard reset",
                    "BFD down",
                ]),
            ),
            7 => ("ROUTE-REFRESH message error", of(&["invalid message length"])),
            8 => ("send hold timer expired", None),
            _ => ("unknown error", None),
        }
    }
}

impl std::fmt::Display for Notification {
    /// `cease: administrative shutdown (6/2)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (code, subcode) = self.words();
        f.write_str(code)?;
        if let Some(subcode) = subcode {
            write!(f, ": {subcode}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_registry() {
        assert_eq!(Notification::cease(2).to_string(), "cease: administrative shutdown (6/2)");
        assert_eq!(Notification::new(2, 6).to_string(), "OPEN message error: unacceptable hold time (2/6)");
        assert_eq!(Notification::new(2, 5).to_string(), "OPEN message error (2/5)");
        assert_eq!(Notification::new(4, 0).to_string(), "hold timer expired (4/0)");
        assert_eq!(Notification::new(255, 255).to_string(), "unknown error (255/255)");
    }
}

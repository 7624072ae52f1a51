//! One TCP connection: its framing and its state machine (RFC 4271 §8), which another crate provides.
//!
//! Connecting, retrying and choosing between two connections are not its business but the [`Session`](crate::Session)'s: a
//! connection begins when TCP is up and is thrown away when it ends.

use bytes::Bytes;
use rustbgpd_fsm as fsm;
use rustbgpd_wire as codec;

use crate::notification::{Notification, code, fsm as fsm_subcode};
use crate::session::{Config, ConnectionId, Direction};
use crate::update::Context;
use crate::wire::{self, Framer, Message};
use crate::{Family, session};

/// What both sides agreed on in their OPENs.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) router_id: std::net::Ipv4Addr,
    pub(crate) hold_seconds: u16,
    pub(crate) update: Context,
    /// Graceful restart of the peer; `None` where it or we do not offer it.
    pub(crate) restart: Option<PeerRestart>,
}

/// The peer's graceful restart capability (RFC 4724 §3).
#[derive(Clone, Debug)]
pub(crate) struct PeerRestart {
    pub(crate) seconds: u16,
    /// Families whose routes we keep while it restarts, with its Forwarding State bit.
    pub(crate) families: Vec<(Family, bool)>,
}

/// What a step of the state machine asks for.
#[derive(Debug)]
pub(crate) enum Step {
    Send(Bytes),
    /// Hold timer: restart it with these seconds.
    Hold(u32),
    Keepalive(u32),
    StopHold,
    /// The session is up.
    Established,
    /// The connection is finished; the NOTIFICATION has been sent where there is one.
    Finished(Option<Notification>),
}

/// A connection between OPEN and the end of the session.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) direction: Direction,
    /// It was accepted or made while another one was already established.
    pub(crate) late: bool,
    pub(crate) framer: Framer,
    /// The peer's OPEN while it waits to be taken in.
    pub(crate) waiting: Option<codec::OpenMessage>,
    machine: fsm::Session,
    restarting: bool,
    forwarding_preserved: bool,
}

impl Connection {
    /// Sends our OPEN on a fresh connection.
    pub(crate) fn open(
        id: ConnectionId,
        direction: Direction,
        late: bool,
        restarting: bool,
        config: &Config,
    ) -> (Self, Vec<Step>) {
        let mut settings = fsm::PeerConfig::new(config.local_asn, config.peer_asn, config.router_id);
        settings.hold_time = config.hold_seconds;
        settings.send_hold_time = session::send_hold_seconds(config.hold_seconds);
        settings.families = Family::ALL.map(wire::to_afi).to_vec();
        settings.graceful_restart = config.restart_seconds > 0;
        settings.gr_restart_time = config.restart_seconds.min(session::MAX_RESTART_SECONDS);
        let mut connection = Self {
            id,
            direction,
            late,
            framer: Framer::default(),
            waiting: None,
            machine: fsm::Session::new(settings),
            restarting,
            forwarding_preserved: config.forwarding_preserved,
        };
        // TCP is up already: the machine's own wish to connect is met before it is asked.
        connection.machine.handle_event(fsm::Event::ManualStart);
        let steps = connection.drive(fsm::Event::TcpConnectionConfirmed);
        (connection, steps)
    }

    /// Where the machine stands.
    pub(crate) fn state(&self) -> session::State {
        match self.machine.state() {
            fsm::SessionState::Idle => session::State::Idle,
            fsm::SessionState::Connect => session::State::Connect,
            fsm::SessionState::Active => session::State::Active,
            fsm::SessionState::OpenSent => session::State::OpenSent,
            fsm::SessionState::OpenConfirm => session::State::OpenConfirm,
            fsm::SessionState::Established => session::State::Established,
        }
    }

    pub(crate) fn hold_timer_expired(&mut self) -> Vec<Step> {
        self.drive(fsm::Event::HoldTimerExpires)
    }

    pub(crate) fn keepalive_timer_expired(&mut self) -> Vec<Step> {
        self.drive(fsm::Event::KeepaliveTimerExpires)
    }

    /// Tells the machine of a message; its contents are the session's business once established.
    pub(crate) fn received(&mut self, message: &Message) -> Vec<Step> {
        self.drive(match message {
            Message::Open(open) => fsm::Event::OpenReceived(open.clone()),
            Message::Keepalive => fsm::Event::KeepaliveReceived,
            Message::Update(_) => fsm::Event::UpdateReceived,
            Message::Refresh(_) => {
                fsm::Event::RouteRefreshReceived { afi: codec::Afi::Ipv4, safi: codec::Safi::Unicast }
            }
            Message::Notification(n) => fsm::Event::NotificationReceived(codec::NotificationMessage::new(
                codec::NotificationCode::from_u8(n.code),
                n.subcode,
                n.data.clone(),
            )),
        })
    }

    /// What was agreed on; `None` before the peer's OPEN.
    pub(crate) fn agreed(&self, config: &Config) -> Option<Agreed> {
        let negotiated = self.machine.negotiated()?;
        let family = |&(afi, safi): &_| wire::from_afi(afi, safi);
        let restart = (config.restart_seconds > 0 && negotiated.peer_gr_capable).then(|| PeerRestart {
            seconds: negotiated.peer_restart_time,
            families: negotiated
                .peer_gr_families
                .iter()
                .filter_map(|f| Some((wire::from_afi(f.afi, f.safi)?, f.forwarding_preserved)))
                .collect(),
        });
        Some(Agreed {
            router_id: negotiated.peer_router_id,
            hold_seconds: negotiated.hold_time,
            update: Context {
                four_octet_as: negotiated.four_octet_as,
                internal: config.local_asn == config.peer_asn,
                families: negotiated.negotiated_families.iter().filter_map(family).collect(),
                extended_next_hop: negotiated
                    .extended_nexthop_families
                    .get(&wire::to_afi(Family::Ipv4))
                    .is_some_and(|next_hop| *next_hop == codec::Afi::Ipv6),
            },
            restart,
        })
    }

    fn drive(&mut self, event: fsm::Event) -> Vec<Step> {
        let before = self.state();
        let mut steps = Vec::new();
        let mut sent = None;
        for action in self.machine.handle_event(event) {
            match action {
                fsm::Action::SendOpen(open) => {
                    steps.push(Step::Send(wire::encode(&codec::Message::Open(self.tailored(open)))));
                }
                fsm::Action::SendKeepalive => steps.push(Step::Send(wire::encode(&codec::Message::Keepalive))),
                fsm::Action::SendNotification(n) => {
                    let mut notification = wire::from_codec(&n);
                    if notification.code == code::FSM {
                        notification.subcode = unexpected_message_subcode(before);
                    }
                    steps.push(Step::Send(wire::encode_notification(&notification)));
                    sent = Some(notification);
                }
                fsm::Action::StartTimer(fsm::TimerType::Hold, seconds) => steps.push(Step::Hold(seconds)),
                fsm::Action::StartTimer(fsm::TimerType::Keepalive, seconds) => steps.push(Step::Keepalive(seconds)),
                fsm::Action::StopTimer(fsm::TimerType::Hold) => steps.push(Step::StopHold),
                fsm::Action::SessionEstablished(_) => steps.push(Step::Established),
                // Connections are made and closed by the session; the rest is for observers.
                _ => {}
            }
        }
        if matches!(self.state(), session::State::Idle | session::State::Active) {
            steps.push(Step::Finished(sent));
        }
        steps
    }

    /// Our OPEN with what the machine cannot know: the restart bits (RFC 4724 §3). What this crate does not do is taken out.
    fn tailored(&self, mut open: codec::OpenMessage) -> codec::OpenMessage {
        open.capabilities.retain_mut(|capability| match capability {
            codec::Capability::GracefulRestart { restart_state, notification, families, .. } => {
                *restart_state = self.restarting;
                // A NOTIFICATION ends the session for good (RFC 4724); RFC 8538 is not spoken.
                *notification = false;
                for family in families {
                    family.forwarding_preserved = self.forwarding_preserved;
                }
                true
            }
            codec::Capability::EnhancedRouteRefresh | codec::Capability::ExtendedMessage => false,
            _ => true,
        });
        open
    }
}

/// RFC 6608 §3.
fn unexpected_message_subcode(state: session::State) -> u8 {
    match state {
        session::State::OpenSent => fsm_subcode::OPEN_SENT,
        session::State::OpenConfirm => fsm_subcode::OPEN_CONFIRM,
        session::State::Established => fsm_subcode::ESTABLISHED,
        session::State::Idle | session::State::Connect | session::State::Active => 0,
    }
}

//! Lowering of `quic` and `quicServerIDs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Item;
use super::check::Checker;
use super::health::hexadecimal;
use crate::desired::protocol;
use crate::document::Path;
use crate::quic::{CODEPOINTS, CONFIGURATIONS_MAX, Quic, SERVER_ID_MAX, ServerId};
use crate::resources::margay::VirtualServiceSpec;

/// What a service says of QUIC; `None` where it says nothing. `protocol` is that of the service, where it can be read.
pub(super) fn quic(
    item: &Item<VirtualServiceSpec>,
    protocol: Option<Option<u8>>,
    check: &mut Checker<'_>,
) -> Option<Quic> {
    let spec = &item.spec;
    let at = Path::spec().key("quic");
    if spec.quic.is_empty() {
        if let Some(i) = spec.backends.iter().position(|backend| !backend.quic_server_ids.is_empty()) {
            let path = Path::spec().key("backends").index(i).key("quicServerIDs");
            check.error_help(&path, "needs 'quic' of the service", "say there how its connection IDs are made");
        }
        return None;
    }
    if protocol.is_some_and(|protocol| protocol != Some(protocol::UDP)) {
        check.error_help(&at, "only UDP services have it", "write protocol: UDP");
    }
    check.at_most(&at, spec.quic.len(), CONFIGURATIONS_MAX, "configurations");
    let mut quic = Quic::default();
    for (i, configuration) in spec.quic.iter().enumerate() {
        let path = at.index(i);
        let rotation = check.range(&path.key("configRotation"), configuration.config_rotation, 0, CODEPOINTS - 1);
        let length = check.range(&path.key("serverIDLength"), configuration.server_id_length, 1, SERVER_ID_MAX);
        if let Some(of_rotation) = quic.lengths.get_mut(usize::from(rotation)) {
            if *of_rotation != 0 {
                let message = format!("{rotation} is another configuration's");
                check.error_help(&path.key("configRotation"), message, "connection IDs tell them apart by this number");
            }
            *of_rotation = length;
        }
    }
    quic.servers = servers(item, &quic, check);
    Some(quic)
}

/// The server IDs of the backends.
fn servers(item: &Item<VirtualServiceSpec>, quic: &Quic, check: &mut Checker<'_>) -> BTreeMap<ServerId, IpAddr> {
    let mut servers: BTreeMap<ServerId, (usize, IpAddr)> = BTreeMap::new();
    let mut lengths: Vec<u8> = quic.lengths.into_iter().filter(|length| *length != 0).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let wanted = lengths.iter().map(u8::to_string).collect::<Vec<_>>().join(" or ");
    for (i, backend) in item.spec.backends.iter().enumerate() {
        let at = Path::spec().key("backends").index(i);
        let (mut has, mut told) = (Vec::new(), false);
        for (n, text) in backend.quic_server_ids.iter().enumerate() {
            let path = at.key("quicServerIDs").index(n);
            let Some(octets) = hexadecimal(text) else {
                check.error_help(&path, "is not hexadecimal", "write two digits an octet: 0a1b");
                told = true;
                continue;
            };
            let length = u8::try_from(octets.len()).unwrap_or(u8::MAX);
            let Some(id) = ServerId::new(&octets).filter(|_| lengths.contains(&length)) else {
                check.error(&path, format!("must have {wanted} octets, as 'quic' says, has {}", octets.len()));
                told = true;
                continue;
            };
            has.push(length);
            if let Some((other, _)) = servers.get(&id) {
                let message = format!("{id} is already a server ID of backends[{other}]");
                check.error_help(&path, message, "a server ID is of one backend");
            } else {
                servers.insert(id, (i, backend.address.0));
            }
        }
        if let Some(length) = lengths.iter().find(|length| !told && !has.contains(length)) {
            let message = format!("the backend has no server ID of {length} octets");
            let help = "its connections are lost when a client's address changes: give it one in 'quicServerIDs'";
            check.warning(&at, message, Some(help.to_owned()));
        }
    }
    servers.into_iter().map(|(id, (_, address))| (id, address)).collect()
}

//! A frame in the packet notation, where the outermost Ethernet addresses may be left out.

use packet::Layer;
use packet::layer::Eth;
use packet::notation::{self, NotationError};

/// The layers of `text`, and whether its Ethernet addresses are to be filled in: where it starts with a bare `eth`, or with
/// what follows Ethernet.
///
/// # Errors
/// What the notation says. Layers are counted as they are written.
pub fn parse(text: &str) -> Result<(Vec<Layer>, bool), NotationError> {
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    if first.trim() == "eth" {
        let layers = notation::parse(&format!(
            "eth :: > :: {}",
            if rest.is_empty() { String::new() } else { format!("/{rest}") }
        ))?;
        return Ok((layers, true));
    }
    let mut layers = notation::parse(text)?;
    let fill = !matches!(layers.first(), Some(Layer::Eth(_)));
    if fill {
        layers.insert(0, Layer::Eth(Eth::default()));
    }
    Ok((layers, fill))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_may_be_left_out() {
        let (full, fill) = parse("eth 02::1 > 02::2 / ip4 1.1.1.1 > 2.2.2.2 / udp 1 > 2").unwrap();
        assert!(!fill && full.len() == 3);
        for text in ["eth / ip4 1.1.1.1 > 2.2.2.2 / udp 1 > 2", "ip4 1.1.1.1 > 2.2.2.2 / udp 1 > 2"] {
            let (layers, fill) = parse(text).unwrap();
            assert!(fill);
            assert_eq!((layers[0].clone(), &layers[1..]), (Layer::Eth(Eth::default()), &full[1..]));
        }
        assert_eq!(parse("eth").unwrap(), (vec![Layer::Eth(Eth::default())], true));
        let error = parse("eth / ip5 1 > 2").unwrap_err().to_string();
        assert!(error.starts_with("layer 2: 'ip5'"), "{error}");
        let error = parse("ip5 1 > 2").unwrap_err().to_string();
        assert!(error.starts_with("layer 1: 'ip5'"), "{error}");
    }
}

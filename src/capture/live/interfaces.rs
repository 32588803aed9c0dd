//! What can be captured on: nothing in, a row for each interface out, as `flowtap interfaces` shows them.

use std::net::IpAddr;

use pcap::{Capture, Device};

use super::link::{Link, LinkWatch};
use super::{ANY, COOKED_V2, LiveError};

/// An interface that can be captured on.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its link type in libpcap's words; none where it cannot be told without opening it, and that is not allowed.
    pub link_type: Option<String>,
    /// Its link; none for `any`.
    pub link: Option<Link>,
    /// Its addresses with the lengths of their prefixes.
    pub addresses: Vec<String>,
}

/// The interfaces of this machine, `any` last. What libpcap lists besides (Bluetooth, USB, netfilter queues) carries no
/// packets that could be metered.
///
/// # Errors
/// When they cannot be listed.
pub fn list() -> Result<Vec<Interface>, LiveError> {
    let failed = |reason: String| LiveError::Open { interface: ANY.to_string(), reason };
    let watch = LinkWatch::new().map_err(|error| failed(error.to_string()))?;
    let devices = Device::list().map_err(|error| failed(error.to_string()))?;
    let mut interfaces: Vec<(u32, Interface)> = devices
        .into_iter()
        .filter_map(|device| {
            let is_any = device.name == ANY;
            let index = watch.index(&device.name).ok();
            let number = if is_any { u32::MAX } else { index? };
            let link = if is_any { None } else { watch.link(&device.name).ok() };
            let addresses = device.addresses.iter().map(|one| prefix(one.addr, one.netmask)).collect();
            let link_type = link_type(&device.name).or_else(|| by_hardware(&watch, &device.name));
            Some((number, Interface { link_type, name: device.name, link, addresses }))
        })
        .collect();
    interfaces.sort_by_key(|(number, _)| *number);
    Ok(interfaces.into_iter().map(|(_, interface)| interface).collect())
}

/// The interfaces as an aligned table.
pub fn table(interfaces: &[Interface]) -> String {
    let mut rows = vec![["Interface", "Link type", "State", "Addresses"].map(str::to_string)];
    for one in interfaces {
        rows.push([
            one.name.clone(),
            one.link_type.clone().unwrap_or_else(|| "not known".to_string()),
            one.link.map_or("", Link::describe).to_string(),
            if one.name == ANY { "all interfaces".to_string() } else { one.addresses.join(", ") },
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name, link_type, state) = (width(0), width(1), width(2));
    let mut text = String::new();
    for row in &rows {
        let line = format!("{:<name$}  {:<link_type$}  {:<state$}  {}", row[0], row[1], row[2], row[3]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn link_type(interface: &str) -> Option<String> {
    // A small ring, and nothing that others would notice.
    let capture = Capture::from_device(interface).ok()?.snaplen(64).buffer_size(1 << 16).open();
    let Ok(mut capture) = capture else { return None };
    if interface == ANY {
        // As it is captured on.
        let _ = capture.set_datalink(COOKED_V2);
    }
    let link_type = capture.get_datalink();
    link_type.get_description().or_else(|_| link_type.get_name()).ok()
}

/// The link type of an interface that is down, or that may not be opened.
fn by_hardware(watch: &LinkWatch, interface: &str) -> Option<String> {
    let link_type = match watch.hardware(interface).ok()? {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => "Ethernet",
        libc::ARPHRD_NONE => "Raw IP",
        _ => return None,
    };
    Some(link_type.to_string())
}

fn prefix(address: IpAddr, mask: Option<IpAddr>) -> String {
    let length = match mask {
        Some(IpAddr::V4(mask)) => mask.to_bits().count_ones(),
        Some(IpAddr::V6(mask)) => mask.to_bits().count_ones(),
        None => return address.to_string(),
    };
    format!("{address}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_says_what_is_not_known() {
        let interfaces = [
            Interface {
                name: "eth0".to_string(),
                link_type: Some("Ethernet".to_string()),
                link: Some(Link::NoCarrier),
                addresses: vec![
                    prefix("192.0.2.1".parse().unwrap(), Some("255.255.255.0".parse().unwrap())),
                    prefix("2001:db8::1".parse().unwrap(), None),
                ],
            },
            Interface { name: ANY.to_string(), link_type: None, link: None, addresses: Vec::new() },
        ];
        assert_eq!(
            table(&interfaces),
            "Interface  Link type  State           Addresses\n\
             eth0       Ethernet   up, no carrier  192.0.2.1/24, 2001:db8::1\n\
             any        not known                  all interfaces\n"
        );
    }
}

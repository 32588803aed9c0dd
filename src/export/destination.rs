//! Where records go, as a user writes it (`ipfix+udp://192.0.2.1:4739`) in; a [`Destination`] out.
//!
//! The scheme names the format and the transport. An IPv6 address stands in brackets (RFC 3986 §3.2.2). The default
//! ports are IPFIX's registered one (RFC 7011 §10.1) and the one NetFlow collectors listen on.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use crate::export::text::TextFormat;

/// The port IANA registered for IPFIX (RFC 7011 §10.1).
pub const IPFIX_PORT: u16 = 4739;

/// The port NetFlow collectors listen on by custom (NetFlow has no registered one).
pub const NETFLOW_PORT: u16 = 2055;

/// The path that means standard output.
pub const STANDARD_OUTPUT: &str = "-";

/// One place records go to, in one format.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// `ipfix+udp://HOST:PORT`
    IpfixUdp(Endpoint),
    /// `ipfix+tcp://HOST:PORT`
    IpfixTcp(Endpoint),
    /// `ipfix+file:PATH`
    IpfixFile(PathBuf),
    /// `netflow9+udp://HOST:PORT`
    NetFlow9Udp(Endpoint),
    /// `netflow5+udp://HOST:PORT`
    NetFlow5Udp(Endpoint),
    /// `table:PATH`
    Table(PathBuf),
    /// `csv:PATH`
    Csv(PathBuf),
    /// `json:PATH`
    Json(PathBuf),
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Host name, IPv4 address, or IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What a scheme is followed by, and what it makes of that.
enum Scheme {
    Network(&'static str, u16, fn(Endpoint) -> Destination),
    Path(&'static str, fn(PathBuf) -> Destination),
}

/// Every scheme: the only place where one is spelled.
const SCHEMES: [Scheme; 8] = [
    Scheme::Network("ipfix+udp", IPFIX_PORT, Destination::IpfixUdp),
    Scheme::Network("ipfix+tcp", IPFIX_PORT, Destination::IpfixTcp),
    Scheme::Path("ipfix+file", Destination::IpfixFile),
    Scheme::Network("netflow9+udp", NETFLOW_PORT, Destination::NetFlow9Udp),
    Scheme::Network("netflow5+udp", NETFLOW_PORT, Destination::NetFlow5Udp),
    Scheme::Path("table", Destination::Table),
    Scheme::Path("csv", Destination::Csv),
    Scheme::Path("json", Destination::Json),
];

/// Why a text is no [`Destination`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DestinationError {
    /// No scheme, or one that is not known.
    #[error("{found:?} has no known scheme, allowed are {}", allowed())]
    Scheme {
        /// The whole text.
        found: String,
    },
    /// A network scheme not followed by `//`.
    #[error("{found:?} lacks the // after its scheme, the form is {scheme}://HOST:PORT")]
    Slashes {
        /// The whole text.
        found: String,
        /// Its scheme.
        scheme: &'static str,
    },
    /// An empty host, or characters no host has.
    #[error(
        "{found:?} has no usable host, allowed are a name, an IPv4 address or an IPv6 address in brackets"
    )]
    Host {
        /// The whole text.
        found: String,
    },
    /// An IPv6 address without brackets.
    #[error(
        "{found:?} has more than one colon in its host, an IPv6 address stands in brackets: {scheme}://[ADDRESS]:PORT"
    )]
    Brackets {
        /// The whole text.
        found: String,
        /// Its scheme.
        scheme: &'static str,
    },
    /// A port that is no number from 1 to 65535.
    #[error("{found:?} has the port {port:?}, allowed are 1 to 65535")]
    Port {
        /// The whole text.
        found: String,
        /// What stands where the port should.
        port: String,
    },
    /// A path scheme without a path.
    #[error("{found:?} has no path, the form is {scheme}:PATH, with - for standard output")]
    Path {
        /// The whole text.
        found: String,
        /// Its scheme.
        scheme: &'static str,
    },
}

fn allowed() -> String {
    let forms: Vec<String> = SCHEMES
        .iter()
        .map(|scheme| match scheme {
            Scheme::Network(name, ..) => format!("{name}://HOST:PORT"),
            Scheme::Path(name, ..) => format!("{name}:PATH"),
        })
        .collect();
    forms.join(" ")
}

impl Destination {
    /// The form and the path of a text destination.
    pub fn text(&self) -> Option<(TextFormat, &Path)> {
        match self {
            Destination::Table(path) => Some((TextFormat::Table, path)),
            Destination::Csv(path) => Some((TextFormat::Csv, path)),
            Destination::Json(path) => Some((TextFormat::Json, path)),
            _ => None,
        }
    }

    /// Whether it is IPFIX over a network, whose Export Time is always that of sending (RFC 7011 §3.1).
    pub fn is_ipfix_over_network(&self) -> bool {
        matches!(self, Destination::IpfixUdp(_) | Destination::IpfixTcp(_))
    }

    /// Whether it writes to standard output, which one destination of a run may do.
    pub fn is_standard_output(&self) -> bool {
        self.path().is_some_and(|path| path.as_os_str() == STANDARD_OUTPUT)
    }

    /// The path it writes to, for those that do.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Destination::IpfixFile(path)
            | Destination::Table(path)
            | Destination::Csv(path)
            | Destination::Json(path) => Some(path),
            _ => None,
        }
    }

    /// The collector it sends to, for those that do.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Destination::IpfixUdp(endpoint)
            | Destination::IpfixTcp(endpoint)
            | Destination::NetFlow9Udp(endpoint)
            | Destination::NetFlow5Udp(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    fn scheme(&self) -> &'static str {
        let at = match self {
            Destination::IpfixUdp(_) => 0,
            Destination::IpfixTcp(_) => 1,
            Destination::IpfixFile(_) => 2,
            Destination::NetFlow9Udp(_) => 3,
            Destination::NetFlow5Udp(_) => 4,
            Destination::Table(_) => 5,
            Destination::Csv(_) => 6,
            Destination::Json(_) => 7,
        };
        match SCHEMES[at] {
            Scheme::Network(name, ..) | Scheme::Path(name, ..) => name,
        }
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Destination, DestinationError> {
        let found = || text.to_owned();
        let unknown = || DestinationError::Scheme { found: found() };
        let (name, rest) = text.split_once(':').ok_or_else(unknown)?;
        let scheme = SCHEMES.iter().find(|scheme| match scheme {
            Scheme::Network(known, ..) | Scheme::Path(known, ..) => *known == name,
        });
        match *scheme.ok_or_else(unknown)? {
            Scheme::Path(scheme, make) => match rest {
                "" => Err(DestinationError::Path { found: found(), scheme }),
                path => Ok(make(PathBuf::from(path))),
            },
            Scheme::Network(scheme, default_port, make) => {
                let slashes = || DestinationError::Slashes { found: found(), scheme };
                let authority = rest.strip_prefix("//").ok_or_else(slashes)?;
                endpoint(text, scheme, authority, default_port).map(make)
            }
        }
    }
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
fn endpoint(
    text: &str,
    scheme: &'static str,
    authority: &str,
    default_port: u16,
) -> Result<Endpoint, DestinationError> {
    let bad_host = || DestinationError::Host { found: text.to_owned() };
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, after) = bracketed.split_once(']').ok_or_else(bad_host)?;
        // A zone (`%eth0`, RFC 4007 §11) is left to the resolver.
        let unzoned = address.split_once('%').map_or(address, |(address, _)| address);
        unzoned.parse::<Ipv6Addr>().map_err(|_| bad_host())?;
        match after {
            "" => (address, None),
            after => (address, Some(after.strip_prefix(':').ok_or_else(bad_host)?)),
        }
    } else {
        match authority.split_once(':') {
            None => (authority, None),
            Some((_, port)) if port.contains(':') => {
                return Err(DestinationError::Brackets { found: text.to_owned(), scheme });
            }
            Some((host, port)) => (host, Some(port)),
        }
    };
    // What would only fail in the resolver, later and less clearly: a path, a user, a space.
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#[]".contains(c))
    {
        return Err(bad_host());
    }
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(number) if number != 0 && port.bytes().all(|c| c.is_ascii_digit()) => number,
            _ => return Err(DestinationError::Port { found: text.to_owned(), port: port.to_owned() }),
        },
    };
    Ok(Endpoint { host: host.to_owned(), port })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.endpoint(), self.path()) {
            (Some(endpoint), _) => write!(f, "{}://{endpoint}", self.scheme()),
            (None, Some(path)) => write!(f, "{}:{}", self.scheme(), path.display()),
            (None, None) => f.write_str(self.scheme()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Destination {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn at(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.to_owned(), port }
    }

    #[test]
    fn every_scheme_is_read() {
        assert_eq!(parse("ipfix+udp://192.0.2.1:9995"), Destination::IpfixUdp(at("192.0.2.1", 9995)));
        assert_eq!(
            parse("ipfix+tcp://collector.example"),
            Destination::IpfixTcp(at("collector.example", 4739))
        );
        assert_eq!(parse("netflow9+udp://[2001:db8::1]:99"), Destination::NetFlow9Udp(at("2001:db8::1", 99)));
        assert_eq!(
            parse("netflow5+udp://[fe80::1%eth0]"),
            Destination::NetFlow5Udp(at("fe80::1%eth0", 2055))
        );
        assert_eq!(parse("ipfix+file:/tmp/a:b"), Destination::IpfixFile("/tmp/a:b".into()));
        assert_eq!(parse("table:-"), Destination::Table("-".into()));
        assert_eq!(parse("csv:out.csv"), Destination::Csv("out.csv".into()));
        assert_eq!(parse("json:-"), Destination::Json("-".into()));
    }

    #[test]
    fn what_is_shown_is_read_back_as_the_same() {
        for text in [
            "ipfix+udp://192.0.2.1",
            "ipfix+tcp://[::1]",
            "ipfix+file:-",
            "netflow9+udp://a.example:1",
            "netflow5+udp://[::1]:65535",
            "table:x",
            "csv:x",
            "json:x",
        ] {
            let destination = parse(text);
            let shown = destination.to_string();
            assert!(shown.starts_with(text), "{shown} does not begin with {text}");
            assert_eq!(parse(&shown), destination);
        }
    }

    #[test]
    fn standard_output_is_the_path_dash_alone() {
        assert!(parse("ipfix+file:-").is_standard_output());
        assert!(parse("table:-").is_standard_output());
        assert!(!parse("table:./-").is_standard_output());
        assert!(!parse("ipfix+udp://localhost").is_standard_output());
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_is_allowed() {
        let refusals = [
            (
                "out.csv",
                "\"out.csv\" has no known scheme, allowed are ipfix+udp://HOST:PORT ipfix+tcp://HOST:PORT",
            ),
            ("ipfix://a", "\"ipfix://a\" has no known scheme, allowed are"),
            (
                "ipfix+udp:a",
                "\"ipfix+udp:a\" lacks the // after its scheme, the form is ipfix+udp://HOST:PORT",
            ),
            ("ipfix+udp://", "\"ipfix+udp://\" has no usable host"),
            ("ipfix+udp://a/b", "\"ipfix+udp://a/b\" has no usable host"),
            ("ipfix+udp://[::1", "\"ipfix+udp://[::1\" has no usable host"),
            ("ipfix+udp://[a]", "\"ipfix+udp://[a]\" has no usable host"),
            (
                "ipfix+udp://::1",
                "\"ipfix+udp://::1\" has more than one colon in its host, an IPv6 address stands in",
            ),
            ("ipfix+udp://a:0", "\"ipfix+udp://a:0\" has the port \"0\", allowed are 1 to 65535"),
            ("ipfix+udp://a:+1", "\"ipfix+udp://a:+1\" has the port \"+1\", allowed are 1 to 65535"),
            ("ipfix+udp://a:65536", "\"ipfix+udp://a:65536\" has the port \"65536\", allowed are 1 to 65535"),
            ("csv:", "\"csv:\" has no path, the form is csv:PATH, with - for standard output"),
        ];
        for (text, reason) in refusals {
            let error = text.parse::<Destination>().expect_err(text).to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}

//! What the sensor serves over HTTP, asked for with a socket and read without flowtap.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The address that a log says metrics are at, once it does.
pub fn address(log: &str) -> Option<SocketAddr> {
    log.split("metrics at http://").nth(1)?.split('/').next()?.parse().ok()
}

/// Status and body of one answer.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    (status, rest.split_once("\r\n\r\n").unwrap().1.to_string())
}

/// The sum of a metric's values, over the lines with all of these labels.
pub fn metric(text: &str, name: &str, labels: &[&str]) -> u64 {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{")))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .collect();
    assert!(!lines.is_empty(), "no {name} with {labels:?} in {text}");
    lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

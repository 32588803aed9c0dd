//! Metrics and status over HTTP: gauges in; Prometheus's text (`/metrics`), JSON (`/status`) and a word (`/health`) out.
//!
//! Names follow Prometheus's conventions: a unit at the end, `_total` for what only grows. The answers are made from one
//! reading of the gauges; no request touches a thread of the packet path. There is no login: by default it listens on loopback,
//! and what a client can cost is bounded ([`crate::host::http`]).

use std::fmt::{Display, Write};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::decode::Ignored;
use crate::export::{Delivery, Tally};
use crate::gauges::Gauges;
use crate::host::health::Health;
use crate::host::http::{self, Answer, PLAIN, Serving};

/// The reasons why Flows end (flowEndReason, 1 to 5).
const REASONS: [&str; 5] = ["idle", "active", "end", "forced", "lack_of_resources"];

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// How long a client may take for its request, and again to take the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Serves on `listener` until what it returns is dropped.
///
/// # Errors
/// When the thread cannot be started.
pub fn serve(
    listener: TcpListener,
    gauges: Arc<Gauges>,
    health: Arc<Health>,
    rights: Option<String>,
) -> io::Result<Serving> {
    http::serve(listener, "metrics", TIMEOUT, move |path| answer(path, &gauges, &health, rights.as_deref()))
}

fn answer(path: &str, gauges: &Gauges, health: &Health, rights: Option<&str>) -> Answer {
    let (status, kind, body) = match path {
        "/metrics" => (200, PROMETHEUS, prometheus(gauges, health)),
        "/status" => (200, JSON, format!("{}\n", status(gauges, health, rights))),
        "/health" => {
            let stuck: Vec<String> = health
                .threads()
                .into_iter()
                .filter(|thread| thread.stuck)
                .map(|thread| thread.name)
                .collect();
            match stuck.is_empty() {
                true => (200, PLAIN, "ok\n".to_string()),
                false => (503, PLAIN, format!("stuck: {}\n", stuck.join(", "))),
            }
        }
        _ => (404, PLAIN, "/metrics, /status and /health are here\n".to_string()),
    };
    Answer { status, kind, body }
}

/// Text in the exposition format of Prometheus, version 0.0.4.
#[derive(Default)]
struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    fn metric(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn counter(&mut self, name: &'static str, help: &str) {
        self.metric(name, "counter", help);
    }

    fn gauge(&mut self, name: &'static str, help: &str) {
        self.metric(name, "gauge", help);
    }

    fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{before}{label}=\"{escaped}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn prometheus(gauges: &Gauges, health: &Health) -> String {
    let mut out = Exposition::default();
    out.gauge("flowtap_build_info", "The version that runs.");
    out.value(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.gauge("flowtap_uptime_seconds", "Time since capture began.");
    out.value(&[], format!("{:.3}", gauges.began.elapsed().as_secs_f64()));

    let intake = gauges.intake();
    out.counter("flowtap_packets_total", "Packets by what became of them.");
    out.value(&[("outcome", "metered"), ("reason", "")], intake.metered);
    for (reason, count) in Ignored::ALL.map(Ignored::name).iter().zip(intake.ignored) {
        out.value(&[("outcome", "ignored"), ("reason", reason)], count);
    }
    out.value(&[("outcome", "dropped"), ("reason", "kernel")], intake.capture.dropped_by_kernel);
    out.value(&[("outcome", "dropped"), ("reason", "interface")], intake.capture.dropped_by_interface);
    out.counter("flowtap_octets_total", "Octets on the wire of the packets that were read.");
    out.value(&[("outcome", "metered")], intake.octets.saturating_sub(intake.ignored_octets));
    out.value(&[("outcome", "ignored")], intake.ignored_octets);
    out.counter("flowtap_capture_received_packets_total", "Packets that the kernel received for capture.");
    out.value(&[], intake.capture.received);

    let shards: Vec<_> = gauges
        .shards
        .iter()
        .enumerate()
        .map(|(number, shard)| (number.to_string(), shard.read(), shard.channel.read()))
        .collect();
    out.gauge("flowtap_flows", "Live flows by shard.");
    for (number, shard, _) in &shards {
        out.value(&[("shard", number)], shard.live);
    }
    out.gauge("flowtap_flows_limit", "Flows that may be live by shard.");
    for (number, shard, _) in &shards {
        out.value(&[("shard", number)], shard.capacity);
    }
    out.counter("flowtap_evicted_flows_total", "Flows ended for want of room by shard.");
    for (number, shard, _) in &shards {
        out.value(&[("shard", number)], shard.counts.evicted);
    }
    let records = gauges.records();
    out.counter("flowtap_records_total", "Flow records by why the flow ended (flowEndReason).");
    for (reason, count) in REASONS.iter().zip(records.by_reason) {
        out.value(&[("end_reason", reason)], count);
    }
    out.counter("flowtap_record_packets_total", "Packets counted in flow records.");
    out.value(&[], records.packets);
    out.counter("flowtap_record_octets_total", "Octets of IP packets counted in flow records.");
    out.value(&[], records.octets);

    let exporters: Vec<_> =
        gauges.exporters.iter().map(|(name, one)| (name.as_str(), one.read(), one.channel.read())).collect();
    type Part = fn(&Tally) -> u64;
    let tallies: [(&'static str, &str, Part); 3] = [
        ("flowtap_export_records_total", "Flow records by collector and what became of them.", |tally| {
            tally.records
        }),
        ("flowtap_export_packets_total", "Packets in these flow records.", |tally| tally.packets),
        ("flowtap_export_octets_total", "Octets in these flow records.", |tally| tally.octets),
    ];
    for (name, help, part) in tallies {
        out.counter(name, help);
        for (collector, exporter, _) in &exporters {
            for (outcome, tally) in outcomes(&exporter.delivery) {
                out.value(&[("collector", collector), ("outcome", outcome)], part(tally));
            }
        }
    }
    out.counter("flowtap_export_messages_total", "Messages sent by collector.");
    for (collector, exporter, _) in &exporters {
        out.value(&[("collector", collector)], exporter.delivery.messages);
    }
    out.counter("flowtap_export_message_octets_total", "Octets of messages or text sent by collector.");
    for (collector, exporter, _) in &exporters {
        out.value(&[("collector", collector)], exporter.delivery.message_octets);
    }
    out.counter("flowtap_export_template_refreshes_total", "How often templates were sent by collector.");
    for (collector, exporter, _) in &exporters {
        out.value(&[("collector", collector)], exporter.template_refreshes);
    }

    if gauges.threaded {
        let channels = || {
            let shards = shards.iter().map(|(number, _, fill)| (format!("shard {number}"), *fill));
            shards.chain(exporters.iter().map(|(name, _, fill)| (format!("exporter {name}"), *fill)))
        };
        out.gauge("flowtap_channel_batches", "Batches that waited when the last one was sent, by receiver.");
        channels().for_each(|(name, (waiting, _))| out.value(&[("channel", &name)], waiting));
        out.gauge("flowtap_channel_limit_batches", "Batches that may wait, by receiver.");
        channels().for_each(|(name, (_, most))| out.value(&[("channel", &name)], most));
    }
    let threads = health.threads();
    out.gauge("flowtap_thread_stuck", "1 where a thread makes no progress.");
    for thread in &threads {
        out.value(&[("thread", &thread.name)], u8::from(thread.stuck));
    }
    out.gauge("flowtap_thread_silent_seconds", "Time since a thread was last seen to make progress.");
    for thread in &threads {
        out.value(&[("thread", &thread.name)], thread.silent_seconds);
    }
    out.text
}

fn outcomes(delivery: &Delivery) -> [(&'static str, &Tally); 3] {
    [("sent", &delivery.sent), ("lost", &delivery.lost), ("unsupported", &delivery.unsupported)]
}

fn named<const N: usize>(names: [&str; N], counts: [u64; N]) -> Value {
    names.iter().zip(counts).map(|(name, count)| ((*name).to_string(), Value::from(count))).collect()
}

fn status(gauges: &Gauges, health: &Health, rights: Option<&str>) -> Value {
    let intake = gauges.intake();
    let records = gauges.records();
    let threads = health.threads();
    let tally =
        |tally: &Tally| json!({"records": tally.records, "packets": tally.packets, "octets": tally.octets});
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": gauges.began.elapsed().as_secs(),
        "healthy": threads.iter().all(|thread| !thread.stuck),
        "threads": threads,
        "rights": rights,
        "frames": intake.frames,
        "wire_octets": intake.octets,
        "metered": intake.metered,
        "ignored": named(Ignored::ALL.map(Ignored::name), intake.ignored),
        "ignored_octets": intake.ignored_octets,
        "capture": intake.capture,
        "records": records.records,
        "packets": records.packets,
        "octets": records.octets,
        "records_by_end_reason": named(REASONS, records.by_reason),
        "tables": gauges.shards.iter().map(|shard| {
            let (reading, (waiting, most)) = (shard.read(), shard.channel.read());
            json!({
                "flows": reading.live,
                "limit": reading.capacity,
                "evicted": reading.counts.evicted,
                "waiting_batches": waiting,
                "waiting_batches_limit": most,
            })
        }).collect::<Vec<_>>(),
        "destinations": gauges.exporters.iter().map(|(name, exporter)| {
            let (reading, (waiting, most)) = (exporter.read(), exporter.channel.read());
            json!({
                "destination": name,
                "sent": tally(&reading.delivery.sent),
                "lost": tally(&reading.delivery.lost),
                "unsupported": tally(&reading.delivery.unsupported),
                "messages": reading.delivery.messages,
                "message_octets": reading.delivery.message_octets,
                "template_refreshes": reading.template_refreshes,
                "waiting_batches": waiting,
                "waiting_batches_limit": most,
            })
        }).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_a_type_and_a_conventional_name() {
        let gauges = Gauges::new(1, 2, vec!["csv:\"a\"".to_string()], true);
        let text = prometheus(&gauges, &Health::new(&gauges));
        let mut name = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                name = help.split(' ').next().unwrap();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                assert_eq!(kind.ends_with(" counter"), name.ends_with("_total"), "{line}");
            } else {
                let rest = line.strip_prefix(name).unwrap_or_else(|| panic!("{line} is not of {name}"));
                assert!(rest.starts_with([' ', '{']), "{line}");
                assert!(rest.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.contains(r#"{collector="csv:\"a\"",outcome="lost"} 0"#), "{text}");
    }

    #[test]
    fn the_status_is_json_with_each_shard_and_destination() {
        let gauges = Gauges::new(1, 2, vec!["csv:a".to_string()], true);
        let status = status(&gauges, &Health::new(&gauges), Some("all"));
        assert_eq!(status["tables"].as_array().unwrap().len(), 2);
        assert_eq!(status["destinations"][0]["lost"]["records"], 0);
        assert_eq!(status["threads"].as_array().unwrap().len(), 4);
        assert_eq!(status["healthy"], true);
    }
}

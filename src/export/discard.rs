//! Messages in, nothing out: what encoding costs without the sending. No destination of a run is of this kind.

use std::io;

use crate::export::clock::ExportClock;
use crate::export::exporter::TemplateExporter;
use crate::export::message::Message;
use crate::export::outlet::Outlet;
use crate::export::transport::{Failure, NoSession, Session, Transport};
use crate::export::{ExportOptions, Exporter, ipfix, netflow9};

/// An exporter of IPFIX in messages of up to `limit` octets, none of which goes anywhere.
pub fn ipfix(limit: usize, options: &ExportOptions) -> Box<dyn Exporter> {
    let framing = ipfix::Ipfix::new(options.observation_domain);
    Box::new(TemplateExporter::new(framing, outlet(limit), ExportClock::packets(), options))
}

/// An exporter of NetFlow v9 in packets of up to `limit` octets, none of which goes anywhere.
pub fn netflow9(limit: usize, options: &ExportOptions) -> Box<dyn Exporter> {
    let framing = netflow9::NetFlow9::new(options.observation_domain);
    Box::new(TemplateExporter::new(framing, outlet(limit), ExportClock::packets_of_message(), options))
}

fn outlet(limit: usize) -> Outlet {
    Outlet::new("nowhere".to_owned(), Box::new(Discard { limit, begun: false }))
}

struct Discard {
    limit: usize,
    begun: bool,
}

impl Transport for Discard {
    fn session(&mut self) -> Result<Session, NoSession> {
        let begun = std::mem::replace(&mut self.begun, true);
        Ok(if begun { Session::Same } else { Session::New })
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn forgets_templates(&self) -> bool {
        false
    }

    fn send(&mut self, _message: &mut Message) -> Result<bool, Failure> {
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

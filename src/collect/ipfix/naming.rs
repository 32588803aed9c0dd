//! What the fields of a stream are called, and how their octets are read: a Field Specifier's numbers in, a [`Field`] out.
//!
//! An element is named by its row, here or with the exporter's; one of an enterprise by the type information records (RFC
//! 5610) that the stream has, which may come after its template; one of the reverse direction of a Biflow (RFC 5103) after
//! its forward one; and any other by its numbers.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DataRecord, ENTERPRISE_BIT, Field};
use crate::collect::registry;
use crate::collect::value::{Kind, Value};
use crate::export::element::{self, CERT_PEN, REVERSE_PEN};

/// The bit by which CERT marks the reverse direction of its own elements (RFC 5103 §6.2 leaves it to the enterprise).
const CERT_REVERSE_BIT: u16 = 0x4000;
/// Elements that one stream may name by type information records; a stream that names more is not an honest one.
const MOST_LEARNED: usize = 65_536;

/// What a stream has said of elements that have no row, by enterprise and number.
#[derive(Default)]
pub(super) struct Learned(HashMap<(u32, u16), (Arc<str>, Kind)>);

impl Learned {
    /// How many elements the stream has named.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the name of an element from a type information record (RFC 5610).
    pub(super) fn learn(&mut self, record: &DataRecord) {
        let (Some(Value::Unsigned(enterprise)), Some(Value::Unsigned(id)), Some(Value::Text(name))) = (
            record.value("privateEnterpriseNumber"),
            record.value("informationElementId"),
            record.value("informationElementName"),
        ) else {
            return;
        };
        let (Ok(enterprise), Ok(id)) = (u32::try_from(*enterprise), u16::try_from(*id)) else { return };
        let id = id & !ENTERPRISE_BIT;
        let data_type = record.value("informationElementDataType").and_then(Value::unsigned).unwrap_or(0);
        // Names that cannot be read as one word help no one, and what has a row of its own needs no other.
        let one_word =
            !name.is_empty() && name.len() <= 255 && name.bytes().all(|octet| octet.is_ascii_graphic());
        let known = known(enterprise, id).is_some() || enterprise == REVERSE_PEN;
        if one_word && !known && self.0.len() < MOST_LEARNED {
            self.0
                .entry((enterprise, id))
                .or_insert_with(|| (Arc::from(name.as_str()), Kind::of_data_type(data_type)));
        }
    }

    /// The field of a Field Specifier with these numbers, the enterprise's bit taken away.
    pub(super) fn field(&self, enterprise: u32, id: u16, length: u16) -> Field {
        let (forward_enterprise, forward_id, reverse) = match enterprise {
            REVERSE_PEN => (0, id, true),
            CERT_PEN if id & CERT_REVERSE_BIT != 0 => (enterprise, id & !CERT_REVERSE_BIT, true),
            _ => (enterprise, id, false),
        };
        let (name, kind): (Arc<str>, Kind) = match known(forward_enterprise, forward_id) {
            Some((name, kind)) => (if reverse { reverse_name(name).into() } else { name.into() }, kind),
            None if enterprise == 0 => (format!("id{id}").into(), Kind::Octets),
            None => (format!("enterprise{enterprise}id{id}").into(), Kind::Octets),
        };
        let mut field = Field {
            enterprise: forward_enterprise,
            id: forward_id,
            reverse,
            name,
            kind,
            length,
            occurrence: 1,
        };
        self.name(&mut field);
        field
    }

    /// Gives a field the name that the stream has for it, if it has one.
    pub(super) fn name(&self, field: &mut Field) {
        if let (false, Some((name, kind))) = (field.reverse, self.0.get(&(field.enterprise, field.id))) {
            (field.name, field.kind) = (name.clone(), *kind);
        }
    }
}

/// The name and kind of an element that has a row.
fn known(enterprise: u32, id: u16) -> Option<(&'static str, Kind)> {
    match element::lookup(enterprise, id) {
        Some(element) => Some((element.name, element.data_type.into())),
        None => registry::lookup(enterprise, id),
    }
}

/// Numbers the fields of equal name.
pub(super) fn number_names(fields: &mut [Field]) {
    let mut met: HashMap<Arc<str>, u16> = HashMap::with_capacity(fields.len());
    for field in fields {
        let occurrence = met.entry(field.name.clone()).or_default();
        *occurrence += 1;
        field.occurrence = *occurrence;
    }
}

/// `reverseOctetDeltaCount` (RFC 5103 §6.1).
fn reverse_name(name: &str) -> String {
    let mut reverse = String::from("reverse");
    let mut letters = name.chars();
    reverse.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
    reverse.push_str(letters.as_str());
    reverse
}

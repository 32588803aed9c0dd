//! The templates that a stream has defined and not withdrawn (RFC 7011 §8.1): definitions and withdrawals in; a Data Set's
//! template, and how many fields all of them have, out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Template;

/// Templates by Observation Domain, kind and id, in this order: those that one withdrawal is of stand together, and it costs no
/// walk over the others, of which there may be a million. An id is of one kind at a time.
#[derive(Default)]
pub(super) struct Templates {
    known: BTreeMap<Key, Arc<Template>>,
    /// Fields of all that are known.
    fields: usize,
}

/// Observation Domain, whether it is an Options Template, id.
type Key = (u32, bool, u16);

impl Templates {
    /// Fields of all templates together.
    pub(super) fn fields(&self) -> usize {
        self.fields
    }

    /// The template of this id.
    pub(super) fn get_mut(&mut self, domain: u32, id: u16) -> Option<&mut Arc<Template>> {
        let options = !self.known.contains_key(&(domain, false, id));
        self.known.get_mut(&(domain, options, id))
    }

    /// Takes a definition, which replaces an earlier one of its id.
    pub(super) fn insert(&mut self, domain: u32, template: Template) {
        self.withdraw(domain, template.id);
        self.fields += template.fields.len();
        self.known.insert((domain, template.scope_fields > 0, template.id), Arc::new(template));
    }

    /// Withdraws the template of this id, if there is one.
    pub(super) fn withdraw(&mut self, domain: u32, id: u16) {
        for options in [false, true] {
            self.remove((domain, options, id));
        }
    }

    /// Withdraws all Options Templates of a domain, or all its other templates.
    pub(super) fn withdraw_all(&mut self, domain: u32, options: bool) {
        let all = (domain, options, 0)..=(domain, options, u16::MAX);
        while let Some((&key, _)) = self.known.range(all.clone()).next() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(removed) = self.known.remove(&key) {
            self.fields -= removed.fields.len();
        }
    }
}

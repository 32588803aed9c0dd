//! The templates that a stream has defined and not withdrawn (RFC 7011 §8.1): definitions and withdrawals in; a Data Set's
//! template, and how many fields all of them have, out.

use std::collections::HashMap;
use std::sync::Arc;

use super::Template;

/// Templates by Observation Domain and id.
#[derive(Default)]
pub(super) struct Templates {
    known: HashMap<(u32, u16), Arc<Template>>,
    /// Fields of all that are known.
    fields: usize,
}

impl Templates {
    /// Fields of all templates together.
    pub(super) fn fields(&self) -> usize {
        self.fields
    }

    /// The template of this id.
    pub(super) fn get_mut(&mut self, domain: u32, id: u16) -> Option<&mut Arc<Template>> {
        self.known.get_mut(&(domain, id))
    }

    /// Takes a definition, which replaces an earlier one of its id.
    pub(super) fn insert(&mut self, domain: u32, template: Template) {
        self.fields += template.fields.len();
        if let Some(earlier) = self.known.insert((domain, template.id), Arc::new(template)) {
            self.fields -= earlier.fields.len();
        }
    }

    /// Withdraws the template of this id, if there is one.
    pub(super) fn withdraw(&mut self, domain: u32, id: u16) {
        if let Some(withdrawn) = self.known.remove(&(domain, id)) {
            self.fields -= withdrawn.fields.len();
        }
    }

    /// Withdraws all Options Templates of a domain, or all its other templates.
    pub(super) fn withdraw_all(&mut self, domain: u32, options: bool) {
        self.known.retain(|key, template| {
            let stays = key.0 != domain || (template.scope_fields > 0) != options;
            if !stays {
                self.fields -= template.fields.len();
            }
            stays
        });
    }
}

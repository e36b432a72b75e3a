//! Persistence templates, told and taken in.

use super::{Record, Refusal, Ring, Template};
use crate::io::PacketIo;
use crate::persist::Handover;
use crate::worker::Worker;

impl<I: PacketIo> Worker<I> {
    /// Tells the templates of a bucket.
    pub(super) fn tell_templates(&self, bucket: usize, ring: &Ring) {
        self.setup.templates.copy(bucket, self.now_ns, |copy| {
            let Handover { key, dest, timeout_ns, left_ns, assured } = copy;
            let name = self.snapshot.names.get(dest.0 as usize).and_then(Option::as_ref);
            if let Some(dest) = name.copied() {
                ring.tell(Record::Template(Template { key, dest, timeout_ns, left_ns, assured }));
            }
        });
    }

    /// Takes a template in.
    pub(super) fn apply_template(&self, template: &Template) -> Result<(), Refusal> {
        let Template { key, timeout_ns, left_ns, assured, .. } = *template;
        let dest = *self.snapshot.by_name.get(&template.dest).ok_or(Refusal::NoServer)?;
        let copy = Handover { key, dest, timeout_ns, left_ns, assured };
        if self.setup.templates.put(&copy, self.now_ns) { Ok(()) } else { Err(Refusal::Full) }
    }
}

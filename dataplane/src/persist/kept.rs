//! Templates in memory that outlives the process: a copy of each, written with each change.
//!
//! Only what cannot be found out again is kept: children are counted when the connections are taken over, and a deadline
//! that passed while a template had some is put off then. A row has a sum of its own, which tells one that is half written.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::bucket::{Bucket, SLOTS, Template};
use super::key::{Child, Rule, TemplateKey};
use super::{HashKey, Templates};
use crate::ids::DestId;

/// A template as it is kept; zeros: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Row([u64; 8]);

const _: () = assert!(size_of::<Row>() == 64);

/// A template that an earlier process left.
#[derive(Clone, Copy, Debug)]
pub struct Left(Template);

/// Flags in a row's seventh word.
const IPV6: u64 = 1 << 56;
const RANGE: u64 = 1 << 57;
const ASSURED: u64 = 1 << 58;
const VALID: u64 = 1 << 59;

/// The sum over the first seven words: any of them that is another changes it.
fn sum(words: &[u64; 8]) -> u64 {
    let mix = |sum: u64, word: &u64| {
        let wide = u128::from(sum ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        (wide as u64) ^ ((wide >> 64) as u64) ^ word.rotate_left(17)
    };
    // never zero, which is the sum of an empty row
    words[..7].iter().fold(0x2545_f491_4f6c_dd1d, mix) | 1
}

impl Row {
    pub(super) fn of(template: &Template) -> Self {
        let TemplateKey { client, vip, vport, protocol, ipv6, range } = template.key;
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let mut words = [
            (client >> 64) as u64,
            client as u64,
            (vip >> 64) as u64,
            vip as u64,
            template.timeout_ns,
            template.deadline_ns,
            u64::from(template.dest.0)
                | u64::from(vport) << 32
                | u64::from(protocol) << 48
                | flag(ipv6, IPV6)
                | flag(range, RANGE)
                | flag(template.assured, ASSURED)
                | flag(template.valid, VALID),
            0,
        ];
        words[7] = sum(&words);
        Self(words)
    }

    /// The template; `None`: there is none, or it is half written.
    fn template(&self) -> Option<Template> {
        let [client_high, client, vip_high, vip, timeout_ns, deadline_ns, rest, check] = self.0;
        if check != sum(&self.0) {
            return None;
        }
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        Some(Template {
            key: TemplateKey {
                client: wide(client_high, client),
                vip: wide(vip_high, vip),
                vport: (rest >> 32) as u16,
                protocol: (rest >> 48) as u8,
                ipv6: rest & IPV6 != 0,
                range: rest & RANGE != 0,
            },
            dest: DestId(rest as u32),
            children: 0,
            timeout_ns,
            deadline_ns,
            assured: rest & ASSURED != 0,
            valid: rest & VALID != 0,
        })
    }
}

/// The templates in memory that an earlier process kept them in.
pub fn left(memory: &[u8]) -> Vec<Left> {
    let rows = memory.as_chunks::<{ size_of::<Row>() }>().0.iter();
    rows.filter_map(|bytes| Row::read_from_bytes(bytes).ok()?.template().map(Left)).collect()
}

impl Templates {
    /// Memory that `Templates::keep_in` wants for about `capacity` templates, bytes.
    pub fn kept_bytes(capacity: usize) -> usize {
        Self::buckets_for(capacity) * SLOTS * size_of::<Row>()
    }

    /// Keeps all templates from now on in memory of [`Templates::kept_bytes`] too; what is there stays until
    /// [`Templates::restore`]. Other memory is not taken.
    pub(crate) fn keep_in(&mut self, memory: &'static mut [u8]) {
        let Ok(rows) = <[Row]>::mut_from_bytes(memory) else { return };
        if rows.len() != self.buckets.len() * SLOTS {
            return;
        }
        for (bucket, rows) in self.buckets.iter_mut().zip(rows.chunks_exact_mut(SLOTS)) {
            if let Ok(bucket) = bucket.get_mut() {
                bucket.rows = Some(rows);
            }
        }
    }

    /// Takes over what an earlier process left, without children: these come with [`Templates::adopt`]. To be called once,
    /// before any other; `is_there`: the destination still exists.
    pub(crate) fn restore(&self, left: Vec<Left>, is_there: impl Fn(DestId) -> bool) {
        for Left(template) in left {
            let (at, tag) = self.place(&template.key);
            let mut bucket = self.lock(at);
            let twice = bucket.find(tag, |other| {
                other.key == template.key && (other.valid && template.valid || other.dest == template.dest)
            });
            if twice.is_none() && is_there(template.dest) && bucket.put(tag, template) {
                self.count_up(template.dest);
            }
        }
        for at in 0..self.buckets.len() {
            self.lock(at).keep_all();
        }
    }

    /// A connection to `dest` of an earlier process goes on: its template counts it. Where that was lost, there is a new
    /// one, `assured` or not.
    pub(crate) fn adopt(&self, rule: &Rule, child: &Child, dest: DestId, now_ns: u64, assured: bool) {
        for key in rule.keys(child) {
            let (at, tag) = self.place(&key);
            let mut bucket = self.lock(at);
            let found = bucket.find(tag, |template| template.key == key && template.dest == dest);
            if let Some(template) = found.and_then(|at| bucket.templates.get_mut(at)) {
                template.children = template.children.saturating_add(1);
                return;
            }
        }
        let key = rule.key(child);
        let (at, tag) = self.place(&key);
        let mut bucket = self.lock(at);
        let valid = bucket.find(tag, |template| template.valid && template.key == key).is_none();
        let timeout_ns = rule.timeout_ns;
        let mut template = Template { key, dest, children: 1, timeout_ns, deadline_ns: 0, assured, valid };
        template.rearm(now_ns);
        if bucket.insert(tag, template) {
            self.count_up(dest);
        }
    }

    /// How a template is kept, for ever the same one, and which bucket it is in.
    pub(crate) fn sample() -> [u8; 72] {
        let key = TemplateKey {
            client: 0x2001_0db8_0000_0000_0000_0000_0000_0001,
            vip: 0xc0a8_9664,
            vport: 443,
            protocol: 6,
            ipv6: true,
            range: false,
        };
        let template = Template {
            key,
            dest: DestId(4711),
            children: 3,
            timeout_ns: 360_000_000_000,
            deadline_ns: 1 << 50,
            assured: true,
            valid: true,
        };
        let mut bytes = [0; 72];
        bytes[..64].copy_from_slice(Row::of(&template).as_bytes());
        let place = Templates::new(1, 1, HashKey([1, 2, 3, 4])).place(&key);
        bytes[64..].copy_from_slice(&(place.0 as u64).to_le_bytes());
        bytes
    }
}

impl Bucket {
    /// Copies the template at `at`, or that there is none, to where it is kept.
    #[inline]
    pub(super) fn keep(&mut self, at: usize) {
        if let Some(row) = self.rows.as_mut().and_then(|rows| rows.get_mut(at)) {
            *row = self.templates.get(at).map_or_else(Row::new_zeroed, Row::of);
        }
    }

    /// [`Bucket::keep`] of all of them.
    fn keep_all(&mut self) {
        if self.rows.is_some() {
            (0..SLOTS).for_each(|at| self.keep(at));
        }
    }
}

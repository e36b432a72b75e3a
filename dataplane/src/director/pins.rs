//! Connections whose server is known before they begin: health checks that take the clients' way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;
use lb_config::{Forwarding, ServiceAddress};

use super::Director;
use super::registry::{DestKey, Owner};
use crate::ids::{DestId, ServiceId};

/// A client's end, and the server that its connections to a service go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Address and port of the client: the director itself.
    pub source: SocketAddr,
    /// The service that it speaks to.
    pub service: ServiceAddress,
    /// The server.
    pub server: SocketAddr,
    /// How packets get to it.
    pub forwarding: Forwarding,
}

/// Pins as the packet path looks them up.
pub type Pins = HashMap<(IpAddr, u16, ServiceId), DestId>;

impl Director {
    /// Has these connections, and no others, go to their servers whatever the scheduler, persistence and limits say.
    /// A server that is not there yet counts from when it is.
    pub fn set_pins(&mut self, pins: Vec<Pin>) {
        if pins != self.pins {
            self.pins = pins;
            self.republish();
        }
    }

    /// Cost: a look-up per pin.
    pub(super) fn resolved_pins(&self) -> Arc<Pins> {
        if self.pins.is_empty() {
            return Arc::default();
        }
        let resolve = |pin: &Pin| {
            let service = self.registry.services.get(&pin.service)?.id;
            let key = DestKey {
                owner: Owner::Service(pin.service),
                address: pin.server.ip(),
                port: pin.server.port(),
                forwarding: pin.forwarding,
            };
            Some(((pin.source.ip(), pin.source.port(), service), self.registry.find(&key)?))
        };
        Arc::new(self.pins.iter().filter_map(resolve).collect())
    }
}

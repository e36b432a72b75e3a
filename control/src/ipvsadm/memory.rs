//! A host that is only a table: for rule files without a director, and for tests.

use super::{Address, Connection, Host, HostError, ServiceCounters, Table};

/// A table in memory. Nothing passes through it, so all counters are 0.
#[derive(Clone, Debug, Default)]
pub struct MemoryHost {
    /// The table.
    pub table: Table,
}

impl Host for MemoryHost {
    fn table(&mut self) -> Result<Table, HostError> {
        Ok(self.table.clone())
    }

    fn store(&mut self, table: &Table) -> Result<(), HostError> {
        self.table = table.clone();
        Ok(())
    }

    fn counters(&mut self) -> Result<Vec<ServiceCounters>, HostError> {
        Ok(Vec::new())
    }

    fn connections(&mut self) -> Result<Vec<Connection>, HostError> {
        Ok(Vec::new())
    }

    fn zero(&mut self, _service: Option<&Address>) -> Result<(), HostError> {
        Ok(())
    }
}

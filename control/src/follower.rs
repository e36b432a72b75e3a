//! Threads that go by a plan until the control core lets go of them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle, Thread};

/// What the control core tells such a thread.
pub(crate) enum Order<P> {
    /// Go by this plan from now on.
    Plan(Box<P>),
    /// End.
    Stop,
}

/// The control core's end of a thread. Dropped, it ends the thread and waits for that.
pub(crate) struct Follower<P> {
    orders: Sender<Order<P>>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

impl<P> std::fmt::Debug for Follower<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("thread", &self.thread.name()).finish_non_exhaustive()
    }
}

impl<P: Send + 'static> Follower<P> {
    /// Starts a thread of this name, which looks for orders whenever it is unparked.
    ///
    /// Errors: the system gives no thread.
    pub fn start(name: &str, run: impl FnOnce(Receiver<Order<P>>) + Send + 'static) -> std::io::Result<Self> {
        let (orders, receiver) = channel();
        let join = thread::Builder::new().name(name.to_owned()).spawn(move || run(receiver))?;
        Ok(Self { orders, thread: join.thread().clone(), join: Some(join) })
    }
}

impl<P> Follower<P> {
    /// Has the thread go by another plan.
    pub fn update(&self, plan: P) {
        // The thread lives as long as this.
        let _ = self.orders.send(Order::Plan(Box::new(plan)));
        self.thread.unpark();
    }
}

impl<P> Drop for Follower<P> {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        self.thread.unpark();
        if let Some(join) = self.join.take() {
            // A thread that panicked has nothing more to say.
            let _ = join.join();
        }
    }
}

//! Places to lose power that are not storage: requests, restarts, questions to a person.

use std::cell::RefCell;

use super::CrashWorld;

thread_local! {
    /// The machine that this thread works for.
    static MACHINE: RefCell<Option<CrashWorld>> = const { RefCell::new(None) };
}

/// While it lives, every [`here`](PowerCuts::here) of this thread is a place to lose power, and every request to a
/// [`ServerModel`](crate::server::ServerModel) two: before the server did anything, and after it did everything and before
/// the client knows.
#[must_use = "the places to lose power end with it"]
pub struct PowerCuts(());

impl PowerCuts {
    /// Of this machine.
    pub fn of(world: &CrashWorld) -> PowerCuts {
        MACHINE.set(Some(world.clone()));
        PowerCuts(())
    }

    /// A place to lose power. Nothing where no machine is known: in a test without power cuts, in another thread.
    pub fn here(what: &str) {
        let machine = MACHINE.with_borrow(Clone::clone);
        if let Some(world) = machine {
            world.crash_point(what);
        }
    }
}

impl Drop for PowerCuts {
    fn drop(&mut self) {
        MACHINE.set(None);
    }
}

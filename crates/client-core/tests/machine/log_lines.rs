//! What a test's own thread logs.

use std::cell::RefCell;
use std::sync::Once;

std::thread_local! {
    static LINES: RefCell<Option<Vec<(log::Level, String)>>> = const { RefCell::new(None) };
}

struct ToTheThread;

impl log::Log for ToTheThread {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        LINES.with_borrow(|lines| lines.is_some())
    }
    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines.as_mut().filter(|_| record.target().starts_with("client_core")) {
                lines.push((record.level(), record.args().to_string()));
            }
        });
    }
    fn flush(&self) {}
}

/// What this package logs on this thread during `work`, down to the level `info`.
pub fn logged_by(work: impl FnOnce()) -> Vec<(log::Level, String)> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        log::set_logger(&ToTheThread).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
    LINES.set(Some(Vec::new()));
    work();
    LINES.take().unwrap_or_default()
}

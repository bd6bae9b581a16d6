//! Who has a database: servers share it, and whoever moves a fleet has it alone.
//!
//! It is an advisory lock of the writer's session (chapter 13.3.5 of PostgreSQL's manual), so it ends with the process or with
//! its connection, and nothing is left of a process that was killed. A session whose machine has gone without a word keeps it
//! until PostgreSQL notices: what is refused names the sessions. Programs of before this lock do not take it.

use std::time::{Duration, Instant};

use super::connect::{Conn, Fault};

/// Other locks of the same database have other numbers: `rust-ota` as one.
const KEY: i64 = 0x7275_7374_2d6f_7461;
/// How long the lock of a process that has just ended may take to go.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// Who else may have the database meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Other servers, and nobody who moves it.
    Servers,
    /// No server, and nobody else who moves it.
    Nobody,
    /// Whoever wants to.
    Anybody,
}

/// Takes the lock for the session of this connection.
///
/// # Errors
/// Somebody has it who does not share it so.
pub(super) async fn take(conn: &Conn, sharing: Sharing) -> Result<(), Fault> {
    const SHARED: &str = "SELECT pg_try_advisory_lock_shared($1)";
    const ALONE: &str = "SELECT pg_try_advisory_lock($1)";
    let (sql, taken): (_, fn(Vec<i32>) -> Fault) = match sharing {
        Sharing::Servers => (SHARED, Fault::Moving),
        Sharing::Nobody => (ALONE, Fault::Served),
        Sharing::Anybody => return Ok(()),
    };
    let begun = Instant::now();
    loop {
        let row = conn.row(sql, &[&KEY]).await?;
        if row.map(|row| row.try_get(0)).transpose()? == Some(true) {
            return Ok(());
        }
        if begun.elapsed() >= PATIENCE {
            return Err(taken(holders(conn).await?));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Gives it back at a normal end, so that nobody has to wait until the session is gone.
pub(super) async fn give_back(conn: &Conn) -> Result<(), Fault> {
    conn.batch("SELECT pg_advisory_unlock_all()").await
}

/// The sessions that have it.
async fn holders(conn: &Conn) -> Result<Vec<i32>, Fault> {
    // Both halves of the number, as the view has them.
    const HOLDERS: &str = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::int8 = $1::int8 >> 32 AND objid::int8 = $1::int8 & 4294967295 ORDER BY pid";
    let rows = conn.rows(HOLDERS, &[&KEY]).await?;
    rows.iter().map(|row| row.try_get(0).map_err(Fault::from)).collect()
}

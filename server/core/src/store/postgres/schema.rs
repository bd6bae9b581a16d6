//! The schema, version by version. A version that was in use is never changed: another one follows it.
//!
//! Text from outside is kept as bytes: a text of PostgreSQL cannot have the letter NUL, and its order depends on the
//! database. What is searched or changed by itself has a column, the rest of a record is JSON beside it.

use super::connect::{Conn, Fault};

/// What each version adds.
const VERSIONS: [&str; 1] = [ONE];

/// `number`: see [`super::write`]; `attr`: see [`super::attr`].
const ONE: &str = "
CREATE TABLE number (name text PRIMARY KEY, n int8 NOT NULL);
INSERT INTO number VALUES ('deployment', 0), ('event', 0), ('feed', 0);
CREATE SEQUENCE device_number AS int4;
CREATE TABLE device (
    num int4 PRIMARY KEY, id bytea NOT NULL UNIQUE, sha bytea NOT NULL UNIQUE, status int2 NOT NULL, grp bytea,
    active bytea, data bytea NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX device_status ON device (status, id);
CREATE INDEX device_group ON device (grp, id) WHERE grp IS NOT NULL;
CREATE TABLE gone (num int4 PRIMARY KEY, id bytea NOT NULL);
CREATE INDEX gone_id ON gone (id);
CREATE TABLE authset (id bytea PRIMARY KEY, num int4 NOT NULL);
CREATE INDEX authset_device ON authset (num);
CREATE TABLE inventory (num int4 PRIMARY KEY, data bytea NOT NULL) WITH (fillfactor = 80);
CREATE TABLE seen (num int4 PRIMARY KEY, ts int8 NOT NULL) WITH (fillfactor = 50);
CREATE TABLE hot (
    key int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, scope text NOT NULL, name bytea NOT NULL,
    ready bool NOT NULL DEFAULT false, used timestamptz NOT NULL DEFAULT now(), UNIQUE (scope, name)
);
CREATE TABLE attr (
    key int4 NOT NULL, num int4 NOT NULL, pos int4 NOT NULL, kind int2 NOT NULL, typ int2 NOT NULL, val bytea,
    n float8 NOT NULL, txt bytea NOT NULL, rest bytea NOT NULL, id bytea NOT NULL, PRIMARY KEY (key, num, pos)
);
CREATE INDEX attr_value ON attr (key, val, num);
CREATE INDEX attr_order ON attr (key, kind, n, txt, id) WHERE pos = 0;
CREATE INDEX attr_long ON attr (key) WHERE rest <> ''::bytea;
CREATE TABLE cnt (kind int2 NOT NULL, key bytea NOT NULL, n int8 NOT NULL, name bytea, PRIMARY KEY (kind, key))
    WITH (fillfactor = 50);
CREATE TABLE deployment (
    id bytea PRIMARY KEY, seq int8 NOT NULL UNIQUE, state text NOT NULL, start int8, created int8 NOT NULL, finished bool NOT NULL,
    configuration bool NOT NULL, name bytea NOT NULL, artifact bytea NOT NULL, data bytea NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX deployment_active ON deployment (seq) WHERE NOT finished;
CREATE TABLE members (
    dep bytea NOT NULL, chunk int4 NOT NULL, low int4 NOT NULL, high int4 NOT NULL, data bytea NOT NULL,
    PRIMARY KEY (dep, chunk)
);
CREATE INDEX members_of ON members (chunk, low, high);
CREATE TABLE record (
    dep bytea NOT NULL, dev bytea NOT NULL, num int4 NOT NULL, status int2 NOT NULL, ended bool NOT NULL,
    finished int8, log bool NOT NULL, data bytea NOT NULL, PRIMARY KEY (dep, dev)
) WITH (fillfactor = 80);
CREATE INDEX record_number ON record (dep, num);
CREATE INDEX record_device ON record (dev);
CREATE TABLE log (dep bytea NOT NULL, dev bytea NOT NULL, data bytea NOT NULL, PRIMARY KEY (dep, dev));
CREATE INDEX log_device ON log (dev);
CREATE TABLE document (kind text NOT NULL, id bytea NOT NULL, data bytea NOT NULL, PRIMARY KEY (kind, id));
CREATE TABLE event (
    num int8 PRIMARY KEY, stream text NOT NULL, key bytea NOT NULL, ts int8 NOT NULL, data bytea NOT NULL
);
CREATE INDEX event_stream ON event (stream, num);
CREATE INDEX event_key ON event (stream, key, num);
CREATE INDEX event_time ON event (stream, ts);
CREATE TABLE feed (num int8 PRIMARY KEY, process bytea NOT NULL, at timestamptz NOT NULL DEFAULT now(), data bytea NOT NULL);
CREATE TABLE process (id bytea PRIMARY KEY, batch int8 NOT NULL, at timestamptz NOT NULL DEFAULT now());
";

/// Brings a database to this program's version.
pub(super) async fn migrate(conn: &Conn) -> Result<(), Fault> {
    migrate_to(conn, &VERSIONS).await
}

/// Looks whether a database is of this program's version, and changes nothing.
pub(super) async fn check(conn: &Conn) -> Result<(), Fault> {
    check_for(conn, &VERSIONS).await
}

async fn check_for(conn: &Conn, versions: &[&str]) -> Result<(), Fault> {
    let newest = i32::try_from(versions.len()).unwrap_or(i32::MAX);
    let is_there = conn.client.query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[]).await?;
    if !is_there.try_get::<_, bool>(0)? {
        return Err(Fault::Empty);
    }
    let found = conn.client.query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[]).await?;
    match found.try_get::<_, i32>(0)? {
        0 => Err(Fault::Empty),
        found if found > newest => Err(Fault::Newer(found)),
        found if found < newest => Err(Fault::Older(found)),
        _ => Ok(()),
    }
}

async fn migrate_to(conn: &Conn, versions: &[&str]) -> Result<(), Fault> {
    let newest = i32::try_from(versions.len()).unwrap_or(i32::MAX);
    loop {
        // Servers that start at once do it one after the other.
        conn.batch(
            "BEGIN; SELECT pg_advisory_xact_lock(7214420180114);
             CREATE TABLE IF NOT EXISTS schema_version (version int4 NOT NULL)",
        )
        .await?;
        let found =
            conn.client.query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[]).await?;
        let found: i32 = found.try_get(0)?;
        if found > newest {
            conn.batch("ROLLBACK").await?;
            return Err(Fault::Newer(found));
        }
        let Some(next) = usize::try_from(found).ok().and_then(|found| versions.get(found)) else {
            return conn.batch("COMMIT").await;
        };
        conn.batch(next).await?;
        conn.batch(&format!(
            "DELETE FROM schema_version; INSERT INTO schema_version VALUES ({}); COMMIT",
            found + 1
        ))
        .await?;
        log::info!("the schema of the database is of version {} now", found + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::testing;

    #[tokio::test]
    async fn each_version_is_made_once_and_a_newer_one_is_refused() {
        let Some(url) = testing::database() else { return };
        let conn = testing::target(&url).connect().await.unwrap();
        let one = "CREATE TABLE a (x int4)";
        let broken = "CREATE TABLE b (x int4); SELECT 1 / 0";
        let two = "CREATE TABLE b (x int4)";
        migrate_to(&conn, &[one]).await.unwrap();
        assert!(migrate_to(&conn, &[one, broken]).await.is_err());
        conn.batch("ROLLBACK").await.unwrap();
        // Who only looks changes nothing.
        assert!(matches!(check_for(&conn, &[one, two]).await, Err(Fault::Older(1))));
        check_for(&conn, &[one]).await.unwrap();
        // What was cut short has left nothing.
        migrate_to(&conn, &[one, two]).await.unwrap();
        migrate_to(&conn, &[one, two]).await.unwrap();
        conn.batch("SELECT x FROM a; SELECT x FROM b").await.unwrap();
        assert!(matches!(migrate_to(&conn, &[one]).await, Err(Fault::Newer(2))));
        assert!(matches!(check_for(&conn, &[one]).await, Err(Fault::Newer(2))));
    }
}

//! The one setting of SQLite that must be made for the whole process, before hiqlite opens a database: no connection has
//! it, so it takes a call of SQLite's own interface.
#![allow(unsafe_code)]

use std::sync::Once;

use rusqlite::ffi;

/// What SQLite may need to undo a single statement and keeps in memory; more goes to a temporary file.
///
/// SQLite's default is 64 KiB, which is 15 pages, and a command changes about so many: one more, and its transaction makes,
/// writes and removes a file, which takes longer than all else it does. This is enough for every command.
const UNDO_BYTES_MAX: i32 = 4 * 1024 * 1024;

/// Keeps in memory what undoing a statement takes.
///
/// Has an effect only before the first database of the process is opened; later it changes nothing.
pub(crate) fn keep_undo_in_memory() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        // SAFETY: The option takes one `int`, and SQLite refuses the call once it is initialized. It must not run beside
        // another call of SQLite: this one runs once, and hiqlite, the only other user in the process, starts after it.
        let code =
            unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_STMTJRNL_SPILL, UNDO_BYTES_MAX) };
        if code != ffi::SQLITE_OK {
            tracing::warn!(
                code,
                "SQLite is in use already and keeps its settings; commands will be slower"
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rusqlite::Connection;

    use super::keep_undo_in_memory;

    /// The temporary files that SQLite has open in this process.
    fn temporary_files() -> usize {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        files
            .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().contains("etilqs"))
            .count()
    }

    /// Set in a process of its own, where no other test has opened a database before.
    const ALONE: &str = "MVM_CI_TEST_ALONE";

    #[test]
    fn undoing_a_statement_of_many_pages_takes_no_file() {
        if std::env::var_os(ALONE).is_none() {
            let alone = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture"])
                .arg("sqlite::tests::undoing_a_statement_of_many_pages_takes_no_file")
                .env(ALONE, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&alone.stdout);
            assert!(
                alone.status.success() && said.contains("1 passed"),
                "{said}"
            );
            return;
        }
        keep_undo_in_memory();
        let folder = tempfile::tempdir().unwrap();
        let database = Connection::open(folder.path().join("queue.db")).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE pages (id INTEGER PRIMARY KEY, number INTEGER UNIQUE, bytes BLOB);
                 WITH RECURSIVE counted(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM counted WHERE i < 100)
                    INSERT INTO pages SELECT i, i, zeroblob(4000) FROM counted;
                 BEGIN;
                 UPDATE pages SET number = -number, bytes = zeroblob(4001);",
            )
            .unwrap();
        assert_eq!(temporary_files(), 0);
    }
}

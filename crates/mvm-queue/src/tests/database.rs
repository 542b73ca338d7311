//! A real SQLite, to which statements are applied as hiqlite's writer applies them.

use rusqlite::{Connection, types::Value as Sqlite};

use crate::{
    command::Command,
    query::{Answer, Query},
    queue::Outcome,
    sql::{self, Statement, Value},
};

pub(super) struct Database(pub(super) Connection);

fn value(value: &Value) -> Sqlite {
    match value {
        Value::Null => Sqlite::Null,
        Value::Integer(number) => Sqlite::Integer(*number),
        Value::Text(text) => Sqlite::Text(text.clone()),
        Value::Blob(bytes) => Sqlite::Blob(bytes.clone()),
    }
}

impl Database {
    pub(super) fn new() -> Self {
        let mut database = Self(Connection::open_in_memory().unwrap());
        database.0.set_prepared_statement_cache_capacity(1024);
        database.transact(&sql::upgrade(0)).unwrap();
        database
    }

    pub(super) fn transact(&mut self, statements: &[Statement]) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        for statement in statements {
            let mut prepared = transaction.prepare_cached(&statement.sql)?;
            assert_eq!(
                prepared.parameter_count(),
                statement.parameters.len(),
                "{}",
                statement.sql
            );
            prepared.execute(rusqlite::params_from_iter(
                statement.parameters.iter().map(value),
            ))?;
        }
        transaction.commit()
    }

    pub(super) fn rows(&self, statement: &Statement) -> Vec<String> {
        self.try_rows(statement).unwrap()
    }

    fn try_rows(&self, statement: &Statement) -> rusqlite::Result<Vec<String>> {
        let mut prepared = self.0.prepare_cached(&statement.sql)?;
        let parameters = rusqlite::params_from_iter(statement.parameters.iter().map(value));
        let rows = prepared.query_map(parameters, |row| row.get("row"))?;
        rows.collect()
    }

    pub(super) fn apply(&mut self, commands: &[Command]) -> Vec<Outcome> {
        self.try_apply(commands).unwrap()
    }

    /// The same, of a schema that may have bugs.
    pub(super) fn try_apply(&mut self, commands: &[Command]) -> rusqlite::Result<Vec<Outcome>> {
        let alone = match commands {
            [command] => sql::returning(command),
            _ => None,
        };
        let mut rows = match alone {
            Some(returning) => self.try_rows(&returning)?,
            None => {
                self.transact(&sql::statements(commands))?;
                Vec::new()
            }
        };
        if rows.is_empty() {
            rows = self.rows(&sql::outcomes(commands));
        }
        let outcomes = sql::interpret(commands, rows).unwrap();
        Ok(outcomes.into_iter().map(Option::unwrap).collect())
    }

    pub(super) fn answer(&self, query: &Query) -> Answer {
        sql::answer(query, self.rows(&sql::select(query))).unwrap()
    }
}

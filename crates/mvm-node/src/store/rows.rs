//! Between [`mvm_queue::sql`] and hiqlite: statements one way, rows of one text the other.

use std::borrow::Cow;

use hiqlite::{Client, Error, Param, Params, Row};
use mvm_queue::sql::{Statement, Value};

/// A statement as hiqlite takes it.
pub(super) fn statement(statement: Statement) -> (Cow<'static, str>, Params) {
    let parameters = statement.parameters.into_iter().map(|value| match value {
        Value::Null => Param::Null,
        Value::Integer(number) => Param::Integer(number),
        Value::Text(text) => Param::Text(text),
        Value::Blob(bytes) => Param::Blob(bytes),
    });
    (statement.sql, parameters.collect())
}

/// Reads this replica; each row is one text named `row`.
pub(super) async fn read(client: &Client, select: Statement) -> Result<Vec<String>, Error> {
    let (sql, parameters) = statement(select);
    let rows = client.query_try_map::<Text, _>(sql, parameters).await?;
    rows.into_iter()
        .map(|row| row.map(|Text(text)| text))
        .collect()
}

/// Changes, and reads what the statement gives.
pub(super) async fn write(client: &Client, returning: Statement) -> Result<Vec<String>, Error> {
    let (sql, parameters) = statement(returning);
    let rows = client.execute_returning(sql, parameters).await?;
    rows.into_iter().map(|row| row?.try_get("row")).collect()
}

/// A row with one text.
#[derive(Debug)]
struct Text(String);

impl TryFrom<&mut Row<'_>> for Text {
    type Error = Error;

    fn try_from(row: &mut Row<'_>) -> Result<Self, Error> {
        Ok(Self(row.try_get("row")?))
    }
}

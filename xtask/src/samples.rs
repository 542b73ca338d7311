//! Repeated measurements and what they come to. Where they come from is the business of `bench` and `soak`.

use serde::Serialize;

/// The median and the extremes of at least one value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` for no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

/// Aligns rows of cells in columns: the first to the left, the others, numbers and words about them, to the right.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &[String; COLUMNS]| {
        let cells =
            row.iter()
                .zip(widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{Summary, table};

    #[track_caller]
    fn check(values: &[f64], expected: Option<(f64, f64, f64)>) {
        assert_eq!(
            Summary::of(values),
            expected.map(|(median, min, max)| Summary { median, min, max })
        );
    }

    #[test]
    fn medians() {
        check(&[], None);
        check(&[3.0], Some((3.0, 3.0, 3.0)));
        check(&[5.0, 1.0, 9.0], Some((5.0, 1.0, 9.0)));
        check(&[4.0, 1.0, 2.0, 3.0], Some((2.5, 1.0, 4.0)));
    }

    #[test]
    fn columns_line_up() {
        let rows =
            [["what", "median"], ["one machine", "1204.1 ms"]].map(|row| row.map(str::to_owned));
        expect![[r"
            what            median
            one machine  1204.1 ms
        "]]
        .assert_eq(&table(&rows));
    }
}

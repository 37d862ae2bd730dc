//! A CSV table by column name, where columns may be missing.
//!
//! Result folders come from several commands and versions: a reader asks for what it needs and
//! gets an empty answer, never a panic.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::Path;

use crate::error::{CliError, Exit};

/// A table in memory.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    columns: HashMap<String, usize>,
    rows: Vec<csv::StringRecord>,
}

/// One row of a [`Frame`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    frame: &'a Frame,
    record: &'a csv::StringRecord,
}

impl Frame {
    /// Reads a table; `None` where the file does not exist.
    ///
    /// # Errors
    /// A file that cannot be read or is no CSV.
    pub fn read(path: &Path) -> Result<Option<Self>, CliError> {
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |error: csv::Error| {
            CliError::new(Exit::Usage, format!("`{}` is not a table of results", path.display()))
                .because(error)
                .help("remove the file, or measure again into a fresh folder")
        };
        let mut reader = csv::Reader::from_path(path).map_err(damaged)?;
        Self::of(&mut reader).map(Some).map_err(damaged)
    }

    /// Reads a table from memory.
    ///
    /// # Errors
    /// Text that is no CSV.
    pub fn parse(text: &str) -> Result<Self, csv::Error> {
        Self::of(&mut csv::Reader::from_reader(text.as_bytes()))
    }

    fn of<R: std::io::Read>(reader: &mut csv::Reader<R>) -> Result<Self, csv::Error> {
        let columns =
            reader.headers()?.iter().enumerate().map(|(i, name)| (name.to_owned(), i)).collect();
        let rows = reader.records().collect::<Result<_, _>>()?;
        Ok(Frame { columns, rows })
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(move |record| Row { frame: self, record })
    }

    /// Whether it has a column of this name.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl<'a> Row<'a> {
    /// The text of a column; empty where it is missing.
    #[must_use]
    pub fn text(&self, column: &str) -> &'a str {
        self.frame.columns.get(column).and_then(|i| self.record.get(*i)).unwrap_or("")
    }

    /// The number in a column; `None` where it is missing, empty or no finite number.
    #[must_use]
    pub fn number(&self, column: &str) -> Option<f64> {
        self.text(column).parse().ok().filter(|value: &f64| value.is_finite())
    }
}

/// The median; `None` of nothing.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[values.len() / 2 - 1], upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_column_reads_as_empty_and_as_no_number() {
        let frame = Frame::parse("a,b\n1,x\n,2.5\n").unwrap();
        let rows: Vec<Row<'_>> = frame.rows().collect();
        assert_eq!((rows[0].number("a"), rows[0].text("b")), (Some(1.0), "x"));
        assert_eq!((rows[1].number("a"), rows[1].number("b")), (None, Some(2.5)));
        assert_eq!((rows[0].text("c"), rows[0].number("c")), ("", None));
    }

    #[test]
    fn a_damaged_table_is_a_message_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.csv");
        assert!(Frame::read(&path).unwrap().is_none());
        std::fs::write(&path, "a,b\n1\n").unwrap();
        let error = Frame::read(&path).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().contains("runs.csv"), "{error}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}

//! The report for spreadsheets: one file a section, units in the names of the columns, values as they are.

use super::table::Table;

/// One section as RFC 4180 says.
///
/// # Errors
///
/// None that a table can cause: its rows are as long as its heading.
pub(crate) fn csv(table: &Table) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(table.columns.iter().map(|column| column.name))?;
    for row in &table.rows {
        writer.write_record(row.iter().map(super::table::Cell::plain))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

//! Tables for the terminal: aligned columns two spaces from each other, without borders or colour.

use comfy_table::{CellAlignment, ColumnConstraint, Row, Table, Width, presets};
use std::iter::once;

/// Number of spaces between two columns.
const GAP: u16 = 2;

/// A column: its heading, the alignment of its cells, and its minimum width.
#[derive(Debug, Clone)]
pub struct Column {
    head: String,
    alignment: CellAlignment,
    least: u16,
}

/// A column of text.
pub fn text(head: impl Into<String>) -> Column {
    Column { head: head.into(), alignment: CellAlignment::Left, least: 0 }
}

/// A column of numbers, right-aligned.
pub fn number(head: impl Into<String>) -> Column {
    Column { head: head.into(), alignment: CellAlignment::Right, least: 0 }
}

impl Column {
    /// The same with at least this width: for a table whose rows are printed as they become available.
    pub fn least(self, width: u16) -> Self {
        Self { least: width, ..self }
    }
}

/// The columns of a table.
#[derive(Debug, Clone)]
pub struct TextTable(Vec<Column>);

impl TextTable {
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self(columns.into_iter().collect())
    }

    /// The headings and all rows, without a trailing line break.
    pub fn print(&self, rows: impl IntoIterator<Item = Vec<String>>) -> String {
        self.lay(once(self.heads()).chain(rows))
    }

    /// The headings alone, above rows that are printed one at a time.
    pub fn head(&self) -> String {
        self.lay(once(self.heads()))
    }

    /// One or more rows without the headings.
    pub fn rows(&self, rows: impl IntoIterator<Item = Vec<String>>) -> String {
        self.lay(rows)
    }

    fn heads(&self) -> Vec<String> {
        self.0.iter().map(|column| column.head.clone()).collect()
    }

    fn lay(&self, rows: impl IntoIterator<Item = Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.add_rows(rows.into_iter().map(Row::from));
        let last = self.0.len().saturating_sub(1);
        for (number, (column, of)) in table.column_iter_mut().zip(&self.0).enumerate() {
            let gap = if number == last { 0 } else { GAP };
            column.set_padding((0, gap)).set_cell_alignment(of.alignment);
            // A heading has the same width in every line.
            let least = of.least.max(u16::try_from(of.head.chars().count()).unwrap_or(0) * u16::from(of.least > 0));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least + gap)));
        }
        table.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
        cells.map(String::from).to_vec()
    }

    #[test]
    fn columns_line_up_and_lines_end_with_their_text() {
        let table = TextTable::new([text("layer"), number("MB"), text("roof")]);
        let found = table.print([row(["c1", "12.5", "memory"]), row(["convolution é", "7", ""])]);
        assert_eq!(found, "layer            MB  roof\nc1             12.5  memory\nconvolution é     7");
    }

    #[test]
    fn rows_that_come_one_by_one_line_up_too() {
        let table = TextTable::new([text("layer").least(6), number("forward ms").least(4)]);
        assert_eq!(table.head(), "layer   forward ms");
        assert_eq!(table.rows([row(["c1", "1.5"])]), "c1             1.5");
        assert_eq!(table.rows([row(["longer name", "1.5"])]), "longer name         1.5");
    }
}

//! A changed value of a TOML file, as `--set schedule.rate=0.01` gives it.

use crate::{Error, Result};
use toml::{Table, Value};

/// Where in the tables of a file, and what shall stand there.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub keys: Vec<String>,
    pub value: Value,
}

impl Change {
    /// Reads `key.of.tables=value`; a value that is no TOML is a string.
    ///
    /// # Errors
    /// A text without key or equals sign.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::new(format!("--set {text}"), "is no key=value").advise("write --set schedule.rate=0.01");
        let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(wrong)?;
        let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
        let value = parsed.unwrap_or_else(|| Value::String(value.to_string()));
        Ok(Self { keys: key.split('.').map(str::to_string).collect(), value })
    }

    /// Every value of a table. Keys may be nested, `schedule = { rate = 0.01 }`, or dotted, `"schedule.rate" = 0.01`.
    pub fn all_of(table: &Table) -> Vec<Self> {
        let mut changes = Vec::new();
        for (key, value) in table {
            let keys = key.split('.').map(str::to_string).collect();
            match value {
                Value::Table(inner) => changes.extend(Self::all_of(inner).into_iter().map(|mut change| {
                    change.keys.splice(0..0, Vec::clone(&keys));
                    change
                })),
                value => changes.push(Self { keys, value: value.clone() }),
            }
        }
        changes
    }

    /// Puts the value where it belongs; tables on the way are made.
    ///
    /// # Errors
    /// Something on the way that is no table.
    pub fn apply(&self, table: &mut Table) -> Result<()> {
        let name = self.keys.join(".");
        let (last, tables) = self.keys.split_last().ok_or_else(|| Error::new("change", "has no key"))?;
        let mut at = table;
        for key in tables {
            let next = at.entry(key).or_insert_with(|| Value::Table(Table::new()));
            at = next.as_table_mut().ok_or_else(|| Error::new(&name, format!("{key} is no table")))?;
        }
        at.insert(last.clone(), self.value.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_and_dotted_keys_are_the_same() {
        let nested: Table = toml::from_str("a = 1\nb = { c = 2, d = { e = 'x' } }").unwrap();
        let dotted: Table = toml::from_str("a = 1\n'b.c' = 2\n'b.d.e' = 'x'").unwrap();
        assert_eq!(Change::all_of(&nested), Change::all_of(&dotted));
        let mut table: Table = toml::from_str("b = { c = 0, f = 3 }").unwrap();
        for change in Change::all_of(&nested) {
            change.apply(&mut table).unwrap();
        }
        assert_eq!(table, toml::from_str("a = 1\nb = { c = 2, f = 3, d = { e = 'x' } }").unwrap());
        let error = Change::parse("a.b=1").unwrap().apply(&mut table).unwrap_err().to_string();
        assert_eq!(error, "a.b: a is no table");
    }
}

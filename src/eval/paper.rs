//! The paper's results on CelebA, for comparison with ours. Its test photos differ from those measured here unless the data is
//! CelebA's own test split.

use crate::data::table::{Row, Table};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Accuracy in percent: a comment with the source, the column names, one line per attribute.
static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let rows =
        Table::new("paper.csv", include_bytes!("paper.csv").to_vec()).map(|table| table.rows().flatten().collect());
    let rows: Vec<Row> = rows.unwrap_or_default();
    rows.into_iter().filter(|row| !row.fields[0].starts_with('#')).collect()
});

/// The systems compared in the paper, its own first.
pub fn systems() -> Vec<&'static str> {
    rows().next().map(|columns| columns[1..].to_vec()).unwrap_or_default()
}

/// Accuracy of each system in 0..=1 by attribute, in the order of [`systems`].
pub fn accuracies() -> BTreeMap<&'static str, Vec<f64>> {
    let share = |percent: &&str| percent.parse::<f64>().unwrap_or(f64::NAN) / 100.0;
    rows().skip(1).map(|columns| (columns[0], columns[1..].iter().map(share).collect())).collect()
}

/// The mean of each system over some attributes; `None` unless the paper reports all of them.
pub fn means<'a>(attributes: impl Iterator<Item = &'a str>) -> Option<Vec<f64>> {
    let all = accuracies();
    let rows: Vec<&Vec<f64>> = attributes.map(|name| all.get(name)).collect::<Option<_>>()?;
    let mean = |system: usize| rows.iter().map(|row| row[system]).sum::<f64>() / rows.len() as f64;
    (!rows.is_empty()).then(|| (0..systems().len()).map(mean).collect())
}

fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    TABLE.iter().map(|row| row.fields.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::celeba::ATTRIBUTES;

    #[test]
    fn the_paper_has_every_attribute_and_its_printed_averages() {
        assert_eq!(systems(), ["LNets+ANet", "[17]+ANet", "PANDA-l", "FaceTracer"]);
        let all = accuracies();
        assert_eq!(all.len(), 40);
        assert!(ATTRIBUTES.iter().all(|name| all[name].len() == 4 && all[name].iter().all(|v| (0.5..1.0).contains(v))));
        let means = means(ATTRIBUTES.into_iter()).unwrap();
        assert_eq!(means.iter().map(|mean| (100.0 * mean).round()).collect::<Vec<_>>(), [87.0, 83.0, 85.0, 81.0]);
    }

    #[test]
    fn an_attribute_that_the_paper_lacks_has_no_mean() {
        assert_eq!(means(["Bald", "Wearing_Monocle"].into_iter()), None);
        assert_eq!(means(std::iter::empty()), None);
        assert_eq!(means(["Bald"].into_iter()).unwrap()[0], 0.98);
    }
}

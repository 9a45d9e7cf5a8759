//! Answers of `weft locate` and `weft predict` as JSON, read back as a box file: one list, or one object per line.

use super::boxes::Row;
use super::photo::Rect;
use super::text::{Problems, check_box};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// The fields of an answer that are read: the image, and its face or faces. An unreadable image has none.
#[derive(Deserialize)]
struct Answer {
    image: String,
    #[serde(default)]
    face: Option<Face>,
    #[serde(default)]
    faces: Vec<Face>,
}

#[derive(Deserialize)]
struct Face {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    score: Option<f32>,
}

/// Whether a file begins as JSON: with an object, or with a list of objects.
pub(super) fn is_json(content: &[u8]) -> bool {
    let content = content.trim_ascii();
    let list = content.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    content.starts_with(b"{\"") || list.is_some_and(|list| list.starts_with(b"{") || list == b"]" || list.is_empty())
}

/// A row per face, and one per image without faces; invalid answers are left out and reported, as is a truncated list.
///
/// # Errors
/// If `problems` is strict, the first invalid answer.
pub(super) fn rows(place: &Path, content: &[u8], problems: &mut Problems) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let (mut at, mut line) = (0, 1);
    let list = content.trim_ascii_start().starts_with(b"[");
    loop {
        // Between answers; the lines that are counted follow.
        let gap = |byte: &u8| byte.is_ascii_whitespace() || (list && matches!(byte, b'[' | b']' | b','));
        let start = at + content[at..].iter().take_while(|byte| gap(byte)).count();
        line += breaks(&content[at..start]);
        at = start;
        if at == content.len() {
            return Ok(rows);
        }
        let mut answers = serde_json::Deserializer::from_slice(&content[at..]).into_iter::<serde_json::Value>();
        let (answer, end) = match answers.next() {
            Some(Ok(value)) => (serde_json::from_value::<Answer>(value), at + answers.byte_offset()),
            // In a file of lines, parsing resumes at the next line; in a list it cannot.
            Some(Err(e)) if !list => {
                let end = content[at..].iter().position(|byte| *byte == b'\n').map_or(content.len(), |n| at + n);
                (Err(e), end)
            }
            Some(Err(e)) => (Err(e), content.len()),
            None => return Ok(rows),
        };
        match answer.map_err(|e| without_place(&e)).and_then(|answer| faces(answer, line)) {
            Ok(found) => rows.extend(found),
            Err(found) => problems.report(
                Error::new(format_args!("{}:{line}", place.display()), found)
                    .advise("write answers as `weft locate` writes JSON, or a CSV file"),
            )?,
        }
        line += breaks(&content[at..end]);
        at = end;
    }
}

fn breaks(content: &[u8]) -> usize {
    content.iter().filter(|byte| **byte == b'\n').count()
}

/// The message alone: its line number is relative to the start of the answer.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.clone(), |(found, _)| found.to_string())
}

fn faces(Answer { image, face, faces }: Answer, line: usize) -> Result<Vec<Row>, String> {
    if image.trim().is_empty() {
        return Err("no image name".into());
    }
    let row = |rect, score| Row { line, image: image.clone(), rect, score };
    let found = face.into_iter().chain(faces).map(|Face { x, y, width, height, score }| {
        let rect = check_box(Rect { x, y, width, height })?;
        match score {
            Some(score) if score.is_nan() => Err("score is not a number".to_string()),
            score => Ok(row(Some(rect), score)),
        }
    });
    let found = found.collect::<Result<Vec<Row>, String>>()?;
    Ok(if found.is_empty() { vec![row(None, None)] } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line, image and score.
    type NameMatch = (usize, String, Option<f32>);

    fn read(content: &str) -> (Vec<NameMatch>, Vec<String>) {
        let mut problems = Problems::new(false);
        assert!(is_json(content.as_bytes()), "{content}");
        let rows = rows(Path::new("f"), content.as_bytes(), &mut problems).unwrap();
        let own = |row: Row| (row.line, row.image, row.rect.and(row.score));
        (rows.into_iter().map(own).collect(), problems.list.iter().map(Error::to_string).collect())
    }

    const FACE: &str = r#"{"x": 1, "y": 2, "width": 3, "height": 4.5, "score": 0.5}"#;

    #[test]
    fn lists_and_lines_give_the_same_rows() {
        let objects = [
            format!(r#"{{"image": "a.jpg", "faces": [{FACE}, {FACE}]}}"#),
            r#"{"image": "b.jpg", "faces": []}"#.to_string(),
            format!(r#"{{"image": "c.jpg", "width": 9, "face": {FACE}, "attributes": {{"Bald": {{"score": 1}}}}}}"#),
            r#"{"image": "d.jpg", "width": 9, "face": null, "attributes": {}}"#.to_string(),
            r#"{"image": "e.jpg", "error": "e.jpg: no such file"}"#.to_string(),
        ];
        let row = |line, name: &str, score| (line, format!("{name}.jpg"), score);
        let expected = |first: usize| {
            let half = Some(0.5);
            let rows = [(0, "a", half), (0, "a", half), (1, "b", None), (2, "c", half), (3, "d", None), (4, "e", None)];
            rows.map(|(line, name, score)| row(line + first, name, score)).to_vec()
        };
        assert_eq!(read(&(objects.join("\n") + "\n")), (expected(1), vec![]));
        assert_eq!(read(&format!("[\n{}\n]\n", objects.join(",\n"))), (expected(2), vec![]));
        assert_eq!(read("[]\n"), (vec![], vec![]));
        assert!(!is_json(b"[1].jpg,1,2,3,4\n") && !is_json(b"{a}.jpg,1,2,3,4\n") && !is_json(b"image,x\n"));
    }

    #[test]
    fn bad_answers_are_named_by_line() {
        let good = format!(r#"{{"image": "a.jpg", "faces": [{FACE}]}}"#);
        for (bad, found) in [
            (r#"{"image": "b.jpg", "faces": [{"x": 1}]}"#, "f:2: missing field `y`"),
            (
                r#"{"image": "b.jpg", "face": {"x": 1, "y": 1, "width": -1, "height": 1, "score": 1}}"#,
                "f:2: box -1 x 1",
            ),
            (r#"{"faces": []}"#, "f:2: missing field `image`"),
            (r#"{"image": "b.jpg", "fac"#, "f:2: control character"),
            ("notes", "f:2: expected"),
        ] {
            let (rows, problems) = read(&format!("{good}\n{bad}\n{good}\n"));
            assert!(problems.len() == 1 && problems[0].starts_with(found), "{bad}: {problems:?}");
            assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [1, 3], "{bad}");
        }
        let (rows, problems) = read(&format!("[\n{good},\n{{\"image\": "));
        assert_eq!((rows.len(), problems.len()), (1, 1), "{problems:?}");
    }
}

//! Mutations of safetensors: in the header, usually with its length repaired, and in the data.

use super::mutate::{bytes, edge, pick, text};
use serde_json::{Map, Value, json};
use weft::rng::Rng;

const TYPES: [&str; 19] = [
    "F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64", "BOOL", "F8_E4M3", "F8_E5M2",
    "F4", "C64", "f32", "",
];

/// A file with this header and data.
pub fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// Mutations of a safetensors file.
pub fn safetensors(whole: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let split = whole.split_first_chunk::<8>().map(|(length, rest)| (u64::from_le_bytes(*length) as usize, rest));
    let Some((header, data)) = split.and_then(|(length, rest)| rest.split_at_checked(length)) else {
        return bytes(whole, others, rng);
    };
    let (mut header, mut data) = (header.to_vec(), data.to_vec());
    match rng.below(10) {
        0 => return bytes(whole, others, rng),
        1 => {
            // A value in the data.
            let values =
                [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, 65_520.0];
            let value = values[rng.below(values.len())].to_le_bytes();
            let at = 4 * rng.below(data.len() / 4 + 1);
            data.iter_mut().skip(at).zip(value).for_each(|(old, new)| *old = new);
        }
        2 => bytes(&mut data, others, rng),
        3 => text(&mut header, others, rng),
        _ => {
            let Ok(mut entries) = serde_json::from_slice::<Map<String, Value>>(&header) else {
                return text_again(whole, header, &data, others, rng);
            };
            change(&mut entries, &mut data, others, rng);
            header = serde_json::to_vec(&entries).unwrap_or_default();
        }
    }
    *whole = file(&header, &data);
    if rng.chance(0.08) {
        whole[..8].copy_from_slice(&edge(rng).to_le_bytes());
    }
}

fn text_again(whole: &mut Vec<u8>, mut header: Vec<u8>, data: &[u8], others: &[Vec<u8>], rng: &mut Rng) {
    text(&mut header, others, rng);
    *whole = file(&header, data);
}

fn change(entries: &mut Map<String, Value>, data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let names: Vec<String> = entries.keys().cloned().collect();
    let Some(name) = (!names.is_empty()).then(|| names[rng.below(names.len())].clone()) else { return };
    if name == "__metadata__" {
        return metadata(&mut entries[&name], others, rng);
    }
    if !entries[&name].is_object() {
        return drop(entries.remove(&name));
    }
    let number = |rng: &mut Rng| Value::from(edge(rng));
    match rng.below(13) {
        0 => entries[&name]["dtype"] = pick(&TYPES, rng).into(),
        1 => {
            if let Some(shape) = entries[&name]["shape"].as_array_mut() {
                match rng.below(4) {
                    0 => shape.push(1.into()),
                    1 => drop(shape.pop()),
                    2 => shape.reverse(),
                    _ => shape.push(number(rng)),
                }
            }
        }
        2 | 3 => {
            let key = ["shape", "data_offsets"][rng.below(2)];
            if let Some(list) = entries[&name][key].as_array_mut().filter(|list| !list.is_empty()) {
                let at = rng.below(list.len());
                list[at] = match rng.below(5) {
                    0 => json!(-1),
                    1 => json!(1.5),
                    2 => json!(list[at].as_u64().unwrap_or(0).wrapping_add(1)),
                    3 => json!(list[at].as_u64().unwrap_or(0).wrapping_sub(1)),
                    _ => number(rng),
                };
            }
        }
        4 => {
            let other = names[rng.below(names.len())].clone();
            let theirs = entries[&other].clone();
            entries[&name] = theirs;
        }
        5 => drop(entries.remove(&name)),
        6 | 7 => {
            let value = entries.remove(&name).unwrap_or_default();
            let new = match rng.below(4) {
                0 => String::new(),
                1 => "__metadata__".to_string(),
                2 => format!("{name}\n\u{1b}[0m"),
                _ => format!("{name}x"),
            };
            entries.insert(new, value);
        }
        8 => drop(entries.insert("empty".into(), json!({"dtype": "F32", "shape": [0, 7], "data_offsets": [0, 0]}))),
        9 => {
            // One more tensor, whose bytes are appended.
            let len = data.len();
            data.extend([1, 2, 3, 4]);
            entries.insert(
                "more".into(),
                json!({"dtype": pick(&TYPES, rng), "shape": [1], "data_offsets": [len, len + 4]}),
            );
        }
        10 => {
            // The same bytes as smaller or larger values.
            let width = |dtype: &str| match dtype {
                "F64" | "I64" | "U64" => 8,
                "F32" | "I32" | "U32" => 4,
                "F16" | "BF16" | "I16" | "U16" => 2,
                _ => 1,
            };
            let to = ["F64", "I64", "I32", "U32", "F16", "BF16", "U8", "BOOL", "I8"][rng.below(9)];
            let offsets = entries[&name]["data_offsets"].clone();
            if let (Some(start), Some(end)) = (offsets[0].as_u64(), offsets[1].as_u64()) {
                entries[&name]["dtype"] = to.into();
                entries[&name]["shape"] = json!([end.saturating_sub(start) / width(to)]);
            }
        }
        11 => entries[&name] = [json!(null), json!([]), json!({}), json!("F32"), json!(1)][rng.below(5)].clone(),
        _ => {
            let key = ["dtype", "shape", "data_offsets", "more"][rng.below(4)];
            entries[&name][key] =
                [json!(null), json!([]), json!({}), json!("x"), json!([1, 2, 3])][rng.below(5)].clone();
        }
    }
}

/// Mutations of `__metadata__`, whose values are strings that contain documents of their own.
fn metadata(entry: &mut Value, others: &[Vec<u8>], rng: &mut Rng) {
    let Some(values) = entry.as_object_mut().filter(|values| !values.is_empty() && rng.chance(0.9)) else {
        *entry = [json!(null), json!([]), json!({}), json!({"a": 1}), json!({"a": null})][rng.below(5)].clone();
        return;
    };
    let keys: Vec<String> = values.keys().cloned().collect();
    let key = &keys[rng.below(keys.len())];
    match rng.below(6) {
        0 => drop(values.remove(key)),
        1 => values[key] = [json!(1), json!(null), json!(["x"]), json!("")][rng.below(4)].clone(),
        _ => {
            let mut inner = values[key].as_str().unwrap_or_default().as_bytes().to_vec();
            text(&mut inner, others, rng);
            values[key] = String::from_utf8_lossy(&inner).into_owned().into();
        }
    }
}

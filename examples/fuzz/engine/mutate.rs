//! Mutations for any file, and mutations of text: lines, words, numbers.

use std::ops::Range;
use weft::rng::Rng;

/// Mutations do not let files grow beyond this size.
const LONGEST: usize = 64 * 1024;

/// A random element of a list.
pub fn pick<'a, T: ?Sized>(list: &[&'a T], rng: &mut Rng) -> &'a T {
    list[rng.below(list.len())]
}

/// A random part of `0..len`, usually short.
pub fn part(len: usize, rng: &mut Rng) -> Range<usize> {
    let start = rng.below(len + 1);
    let most = if rng.chance(0.8) { 16 } else { len };
    start..(start + rng.below(most + 1)).min(len)
}

/// An integer at or near the limit of some type.
pub fn edge(rng: &mut Rng) -> u64 {
    let power = 1_u64 << [0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 20, 24, 27, 31, 32, 33, 40, 53, 62, 63][rng.below(20)];
    match rng.below(6) {
        0 => power,
        1 => power - 1,
        2 => power.wrapping_add(1),
        3 => power.wrapping_neg(),
        4 => u64::from(rng.word()),
        _ => rng.below(20) as u64,
    }
}

/// A mutation that ignores the format.
pub fn bytes(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let len = data.len();
    if len == 0 {
        data.extend((0..rng.below(9)).map(|_| rng.word() as u8));
        return;
    }
    match rng.below(12) {
        0 | 1 => data[rng.below(len)] ^= 1 << rng.below(8),
        2 => data[rng.below(len)] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF, b' ', b'0'][rng.below(8)],
        3 | 4 => {
            let size = [2, 4, 4, 8][rng.below(4)];
            let at = rng.below(len);
            let value = if rng.chance(0.5) { edge(rng).to_le_bytes() } else { edge(rng).to_be_bytes() };
            // The number consists of the low bytes of one and the high bytes of the other.
            let from = if rng.chance(0.5) { 0 } else { 8 - size };
            for (old, new) in data[at..].iter_mut().zip(&value[from..from + size]) {
                *old = *new;
            }
        }
        5 => data.truncate(rng.below(len)),
        6 => drop(data.drain(part(len, rng))),
        7 => {
            let copy = data[part(len, rng)].to_vec();
            insert(data, rng.below(len + 1), &copy);
        }
        8 => {
            let noise: Vec<u8> = (0..rng.below(17)).map(|_| rng.word() as u8).collect();
            insert(data, rng.below(len + 1), &noise);
        }
        9 => {
            let range = part(len, rng);
            let value = [0, 0xFF, rng.word() as u8][rng.below(3)];
            data[range].fill(value);
        }
        10 => {
            let copy = data[part(len, rng)].to_vec();
            let at = rng.below(len);
            data.iter_mut().skip(at).zip(copy).for_each(|(old, new)| *old = new);
        }
        _ => splice(data, others, rng),
    }
}

/// Joins the beginning of the file and the end of another one.
pub fn splice(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let other = &others[rng.below(others.len())];
    data.truncate(rng.below(data.len() + 1));
    data.extend_from_slice(&other[rng.below(other.len() + 1)..]);
}

pub fn insert(data: &mut Vec<u8>, at: usize, new: &[u8]) {
    if data.len() + new.len() <= LONGEST {
        data.splice(at..at, new.iter().copied());
    }
}

/// Numbers that often break readers.
const NUMBERS: [&str; 44] = [
    "nan",
    "-nan",
    "NaN",
    "inf",
    "-inf",
    "infinity",
    "-1",
    "0",
    "-0.0",
    "0.0",
    "1",
    "2",
    "0.5",
    "-0.5",
    "1e30",
    "-1e30",
    "1e-30",
    "1e38",
    "1e39",
    "1e308",
    "1e400",
    "1e-400",
    "255",
    "256",
    "1024",
    "16384",
    "65535",
    "65536",
    "1000000",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "",
    "+1",
    "0x10",
    "1_0",
    ".5",
    "99999999999999999999999999999999999999",
];

/// Strings that often break readers.
const WORDS: [&str; 34] = [
    "",
    "\"",
    "\"\"",
    "'",
    "\\",
    "\\u0000",
    "\0",
    "\u{1b}[31m",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{202e}",
    "\u{feff}",
    "\r",
    "\r\n",
    "\n",
    "\t",
    " ",
    ",",
    ";",
    "=",
    "#",
    "{",
    "}",
    "[",
    "]",
    ".",
    "..",
    "/",
    "é",
    "\u{1f980}",
    "e\u{301}",
    "%s",
    "//",
];

/// The positions of all decimal numbers.
fn numbers(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = if at > 0 && b"-+.".contains(&text[at - 1]) { at - 1 } else { at };
        while at < text.len() && (text[at].is_ascii_digit() || b".eE_".contains(&text[at])) {
            at += 1;
        }
        found.push(start..at);
    }
    found
}

/// A number to replace `old`.
fn number(old: &str, rng: &mut Rng) -> String {
    let value = old.parse::<f64>().unwrap_or(1.0);
    match rng.below(8) {
        0 => edge(rng).to_string(),
        1 => format!("-{old}"),
        2 => format!("{old}{}", rng.below(10)),
        3 => (value * [0.5, 2.0, 10.0, 1000.0][rng.below(4)]).to_string(),
        4 => (value + [-1.0, 1.0, 0.5][rng.below(3)]).to_string(),
        _ => pick(&NUMBERS, rng).to_string(),
    }
}

/// Replaces a number.
fn change_number(data: &mut Vec<u8>, rng: &mut Rng) {
    let found = numbers(data);
    if let Some(range) = (!found.is_empty()).then(|| found[rng.below(found.len())].clone()) {
        let new = number(&String::from_utf8_lossy(&data[range.clone()]), rng);
        data.splice(range, new.into_bytes());
    }
}

/// The positions of the words in a text: runs of letters, digits, `_`, `.` and `-`.
fn words(text: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        if byte.is_ascii_alphanumeric() || b"_.-".contains(byte) || *byte >= 0x80 {
            match found.last_mut() {
                Some(last) if last.end == at => last.end = at + 1,
                _ => found.push(at..at + 1),
            }
        }
    }
    found
}

fn change_word(data: &mut Vec<u8>, rng: &mut Rng) {
    let found = words(data);
    if found.is_empty() {
        return;
    }
    let range = found[rng.below(found.len())].clone();
    let other = data[found[rng.below(found.len())].clone()].to_vec();
    match rng.below(5) {
        0 => drop(data.splice(range, other)),
        1 => drop(data.splice(range, pick(&WORDS, rng).bytes())),
        2 => drop(data.drain(range)),
        3 => {
            let at = range.start + rng.below(range.len());
            data.splice(at..at, pick(&WORDS, rng).bytes());
        }
        _ => {
            let most = if rng.chance(0.05) { 2000 } else { 8 };
            let long = data[range.clone()].repeat(1 + rng.below(most));
            data.splice(range, long);
        }
    }
    data.truncate(LONGEST);
}

/// Removes, inserts and moves lines.
fn change_lines(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let mut lines: Vec<Vec<u8>> = data.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        return;
    }
    let (one, two) = (rng.below(lines.len()), rng.below(lines.len()));
    match rng.below(7) {
        0 => lines.swap(one, two),
        1 => drop(lines.remove(one)),
        2 => {
            let line = lines[one].clone();
            let times = if rng.chance(0.02) { 500 } else { 1 };
            lines.splice(two..two, vec![line; times]);
        }
        3 => {
            let line = lines.remove(one);
            lines.insert(two.min(lines.len()), line);
        }
        4 => {
            // Removes the end of a line.
            let line = &mut lines[one];
            line.truncate(rng.below(line.len() + 1));
        }
        5 => {
            let other = &others[rng.below(others.len())];
            let theirs: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
            if !theirs.is_empty() {
                lines.insert(one, theirs[rng.below(theirs.len())].to_vec());
            }
        }
        _ => lines.insert(one, pick(&["\n", "\r\n", " \n", "#\n", "\u{feff}\n", "0\n", "\t\t\n"], rng).into()),
    }
    *data = lines.concat();
    data.truncate(LONGEST);
}

/// Mutations of lines, words and numbers.
pub fn text(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    match rng.below(16) {
        0..6 => change_number(data, rng),
        6..9 => change_lines(data, others, rng),
        9..12 => change_word(data, rng),
        12 => {
            let word = pick(&WORDS, rng).as_bytes();
            insert(data, rng.below(data.len() + 1), word);
        }
        13 if rng.chance(0.05) => {
            // Deep nesting overflows recursive readers.
            let deep = pick(&["[", "{", "(", "a.", "{a=", "{\"a\":", "[[", "\"", ","], rng).repeat(1 + rng.below(5000));
            insert(data, rng.below(data.len() + 1), deep.as_bytes());
        }
        14 if rng.chance(0.3) => {
            // Old editors and other systems.
            let text: Vec<u8> = match rng.below(4) {
                0 => data.iter().flat_map(|b| if *b == b'\n' { vec![b'\r', b'\n'] } else { vec![*b] }).collect(),
                1 => data.iter().map(|b| if *b == b'\n' { b'\r' } else { *b }).collect(),
                2 => [b"\xEF\xBB\xBF", &**data].concat(),
                _ => data.iter().flat_map(|b| [*b, 0]).collect(),
            };
            *data = text;
        }
        _ => bytes(data, others, rng),
    }
}

/// Mutations of `key = value` lines: other types, duplicate keys, unknown keys.
pub fn toml(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    const VALUES: [&str; 19] = [
        "true",
        "''",
        "\"x\"",
        "[]",
        "{}",
        "[1, 2]",
        "[0.5]",
        "[[1]]",
        "{ a = 1 }",
        "1979-05-27",
        "1.5",
        "-3",
        "nan",
        "[nan, inf]",
        "\"\\n\"",
        "\"a\\u001bb\"",
        "[-1, -1]",
        "'''\n'''",
        "[4294967296, 1]",
    ];
    if rng.chance(0.6) {
        return text(data, others, rng);
    }
    let mut lines: Vec<String> = String::from_utf8_lossy(data).split_inclusive('\n').map(str::to_string).collect();
    let keyed: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].contains('=')).collect();
    if keyed.is_empty() {
        return;
    }
    let at = keyed[rng.below(keyed.len())];
    let other = keyed[rng.below(keyed.len())];
    let split = |line: &str| line.split_once('=').map(|(key, value)| (key.to_string(), value.to_string()));
    let (Some((key, value)), Some((other_key, other_value))) = (split(&lines[at]), split(&lines[other])) else {
        return;
    };
    match rng.below(6) {
        0 | 1 => lines[at] = format!("{key}= {}\n", pick(&VALUES, rng)),
        2 => lines[at] = format!("{key}={other_value}"),
        3 => lines[at] = format!("{other_key}={value}"),
        4 => lines.insert(other, format!("{key}= {}\n", pick(&VALUES, rng))),
        _ => lines[at] = format!("{}{}={value}", key.trim_end(), pick(&["_", ".a", "x", " b", "'"], rng)),
    }
    *data = lines.concat().into_bytes();
}

/// Mutations of tables: quotes, separators, columns.
pub fn csv(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    if rng.chance(0.6) {
        return text(data, others, rng);
    }
    let commas: Vec<usize> = data.iter().enumerate().filter(|(_, b)| b",\n".contains(b)).map(|(at, _)| at).collect();
    if commas.is_empty() {
        return;
    }
    let which = rng.below(commas.len());
    let (start, end) = (if which > 0 { commas[which - 1] + 1 } else { 0 }, commas[which]);
    let field = String::from_utf8_lossy(&data[start..end]).into_owned();
    let new = match rng.below(9) {
        0 => format!("\"{field}\""),
        1 => format!("\"{field}"),
        2 => format!("{field}\""),
        3 => format!("\"{field}\n{field}\""),
        4 => format!("\"{field}\"\"{field}\""),
        5 => format!("\"{field},{field}\""),
        6 => format!("{field},{field}"),
        7 => format!(" \"{field}\" "),
        _ => String::new(),
    };
    data.splice(start..end, new.into_bytes());
}

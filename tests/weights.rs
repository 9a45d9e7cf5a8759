//! Weights files: what is written is read back, and no file, however broken, causes more than a one-line error.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use weft::weights::{Dtype, Named, TensorFile, convert, summary, write};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file consisting of `header` and `data`, preceded by the header's length as it is.
    fn raw(&self, header: &str, data: &[u8]) -> PathBuf {
        let path = self.path("raw.safetensors");
        fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
        path
    }
}

/// The message from opening a file that must be rejected; one line that starts with the file.
fn refusal(path: &Path) -> String {
    let message = TensorFile::open(path).expect_err("a broken file opened").to_string();
    assert!(message.starts_with(&path.display().to_string()), "{message}");
    assert!(!message.contains('\n') && message.len() < 700, "{message}");
    message
}

#[track_caller]
fn refused(header: &str, data: &[u8], because: &str) {
    let folder = Folder::new();
    let message = refusal(&folder.raw(header, data));
    assert!(message.contains(because), "wanted {because:?} in {message:?}");
}

fn named<'a>(name: &'a str, shape: &'a [usize], dtype: Dtype, data: &'a [f32]) -> Named<'a> {
    Named { name, shape, dtype, data }
}

/// A valid file with two tensors of different types and some metadata.
fn sample(path: &Path) {
    let a: Vec<f32> = (0..12).map(|i| i as f32 - 3.5).collect();
    let tensors = [named("c1.weight", &[3, 4], Dtype::F32, &a), named("c1.bias", &[3], Dtype::F16, &a[..3])];
    write(path, &tensors, &[("net".into(), "anet".into())]).unwrap();
}

#[test]
fn a_written_file_is_read_by_the_reference_reader() {
    let folder = Folder::new();
    let path = folder.path("a.safetensors");
    sample(&path);
    let bytes = fs::read(&path).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ours = TensorFile::open(&path).unwrap();
    assert_eq!(ours.names().collect::<Vec<_>>(), ["c1.weight", "c1.bias"]);
    for t in ours.tensors() {
        let r = reference.tensor(t.name).unwrap();
        assert_eq!((r.dtype(), r.shape(), r.data()), (t.dtype, &*t.shape, t.bytes));
    }
    assert_eq!(ours.metadata()["net"], "anet");
    assert!(ours.get("c2.weight").is_none());
    let e = ours.require("c2.weight").unwrap_err().to_string();
    assert!(e.contains("no tensor c2.weight; the file holds c1.weight, c1.bias"), "{e}");
}

#[test]
fn the_same_input_gives_the_same_bytes_and_data_starts_at_a_multiple_of_eight() {
    let folder = Folder::new();
    let (a, b) = (folder.path("a"), folder.path("b"));
    sample(&a);
    sample(&b);
    let bytes = fs::read(&a).unwrap();
    assert_eq!(bytes, fs::read(&b).unwrap());
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
}

#[test]
fn aligned_f32_is_borrowed_and_unaligned_f32_is_read_all_the_same() {
    let folder = Folder::new();
    let path = folder.path("a");
    sample(&path);
    let file = TensorFile::open(&path).unwrap();
    assert!(matches!(file.get("c1.weight").unwrap().to_f32().unwrap(), Cow::Borrowed(_)));

    let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#.to_owned();
    while header.len() % 4 != 1 {
        header.push(' ');
    }
    let file = TensorFile::open(folder.raw(&header, &data)).unwrap();
    let values = file.get("a").unwrap().to_f32().unwrap();
    assert!(matches!(values, Cow::Owned(_)));
    assert_eq!(*values, [1.5, -2.0]);
}

#[test]
fn integers_and_doubles_are_converted() {
    let folder = Folder::new();
    let header = r#"{"i":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},"l":{"dtype":"I64","shape":[1],"data_offsets":[4,12]},
        "d":{"dtype":"F64","shape":[1],"data_offsets":[12,20]},"u":{"dtype":"U8","shape":[2],"data_offsets":[20,22]}}"#;
    let mut data = (-7i32).to_le_bytes().to_vec();
    data.extend(1_000_000i64.to_le_bytes());
    data.extend(0.25f64.to_le_bytes());
    data.extend([0, 255]);
    let file = TensorFile::open(folder.raw(header, &data)).unwrap();
    let read = |name| file.get(name).unwrap().to_f32().unwrap().into_owned();
    assert_eq!((read("i"), read("l"), read("d"), read("u")), (vec![-7.0], vec![1e6], vec![0.25], vec![0.0, 255.0]));
}

#[test]
fn a_type_that_cannot_be_read_is_named_when_asked_for_and_not_before() {
    let folder = Folder::new();
    let header = r#"{"mask":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}"#;
    let file = TensorFile::open(folder.raw(header, &[1])).unwrap();
    let e = file.get("mask").unwrap().to_f32().unwrap_err().to_string();
    assert!(e.contains("mask: type BOOL cannot be read as f32"), "{e}");
    assert!(file.get("mask").unwrap().read_f32_into(&mut [0.0; 2]).is_err(), "wrong length");
}

#[test]
fn empty_short_and_missing_files_are_refused() {
    let folder = Folder::new();
    let path = folder.path("a");
    assert!(refusal(&path).contains("check the path"));
    fs::write(&path, b"").unwrap();
    assert!(refusal(&path).contains("the file is empty"));
    fs::write(&path, b"abc").unwrap();
    assert!(refusal(&path).contains("3 bytes, too short"));
    assert!(refusal(folder.0.path()).contains("not a regular file"));
}

#[test]
fn header_lengths_beyond_the_file_or_the_format_are_refused() {
    let folder = Folder::new();
    let path = folder.path("a");
    for (length, because) in
        [(1000u64, "only 2 follow"), (100_000_001, "format allows 100000000"), (u64::MAX, "format allows")]
    {
        fs::write(&path, [&length.to_le_bytes()[..], b"{}"].concat()).unwrap();
        let message = refusal(&path);
        assert!(message.contains(because), "{message}");
    }
}

#[test]
fn headers_that_are_not_what_the_format_says_are_refused() {
    refused("{", b"", "header: EOF");
    refused("[1]", b"", "header: ");
    refused("\u{0}\u{0}", b"", "header: ");
    refused(r#"{"__metadata__":{"a":1}}"#, b"", "header: ");
    refused(&"[".repeat(100_000), b"", "header: ");
    refused(r#"{"a":{"dtype":"Q3","shape":[1],"data_offsets":[0,4]}}"#, &[0; 4], "a: unknown variant `Q3`");
    refused(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, &[0; 4], "a: invalid value: integer `-1`");
    refused(r#"{"a":{"dtype":"F32","shape":[1]}}"#, &[0; 4], "a: missing field `data_offsets`");
    let long = format!(r#"{{"{}\n":{{"dtype":"F32"}}}}"#, "x".repeat(1_000_000));
    refused(&long, b"", "xxx...: missing field");
}

#[test]
fn headers_that_are_at_odds_with_the_data_are_refused() {
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[{a}]}},"b":{{"dtype":"F32","shape":[2],"data_offsets":[{b}]}}}}"#
        )
    };
    let one = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{offsets}]}}}}"#)
    };
    assert!(TensorFile::open(Folder::new().raw(&two("0,8", "8,16"), &[0; 16])).is_ok());
    refused(&two("0,8", "4,12"), &[0; 16], "b: data at 4..12 overlaps the tensor before it");
    refused(&two("0,8", "0,8"), &[0; 16], "overlaps");
    refused(&two("0,8", "12,20"), &[0; 20], "b: data at 12..20 leaves a hole before it");
    refused(&two("4,12", "12,20"), &[0; 20], "a: data at 4..12 leaves a hole");
    refused(&two("0,8", "16,8"), &[0; 16], "b: data offsets 16..8 run backwards");
    refused(&two("0,8", "8,16"), &[0; 15], "tensors need 16 bytes of data, the file has 15");
    refused(&two("0,8", "8,16"), &[0; 17], "1 bytes follow the last tensor");
    refused(&one("3", "0,8"), &[0; 8], "a: F32 needs 12 bytes, its offsets 0..8 hold 8");
    refused(&one("2", "0,18446744073709551615"), &[0; 8], "a: F32 needs 8 bytes");
    refused(&one("4294967296,4294967296", "0,8"), &[0; 8], "overflows");
    refused(&one("9223372036854775807", "0,8"), &[0; 8], "overflows");
    refused(&one("1152921504606846975", "0,4611686018427387900"), &[0; 8], "overflows");
    // Offsets whose sum with the header's length overflows u64: the format's own parser adds them unchecked.
    let entries: Vec<_> = (0..8u64)
        .map(|i| {
            let n = (1u64 << 61) - 1;
            format!(r#""t{i}":{{"dtype":"U8","shape":[{n}],"data_offsets":[{},{}]}}"#, i * n, (i + 1) * n)
        })
        .collect();
    refused(&format!("{{{}}}", entries.join(",")), &[0; 8], "tensors need 18446744073709551608 bytes");
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let folder = Folder::new();
    let (whole, cut) = (folder.path("whole"), folder.path("cut"));
    sample(&whole);
    let bytes = fs::read(&whole).unwrap();
    for length in 0..bytes.len() {
        fs::write(&cut, &bytes[..length]).unwrap();
        refusal(&cut);
    }
}

#[test]
fn a_value_beyond_the_type_is_an_error_and_the_old_file_stays() {
    let folder = Folder::new();
    let path = folder.path("a");
    sample(&path);
    let old = fs::read(&path).unwrap();
    let e = write(&path, &[named("fc.bias", &[2], Dtype::F16, &[1.0, -7e4])], &[]).unwrap_err().to_string();
    assert!(e.contains("fc.bias: -70000 is too large for F16"), "{e}");
    assert!(write(&path, &[named("a", &[1], Dtype::BF16, &[f32::MAX])], &[]).is_err());
    assert_eq!(fs::read(&path).unwrap(), old);
    // Just above the largest f16 still rounds down to it; NaN and infinity are preserved.
    write(&path, &[named("a", &[4], Dtype::F16, &[65519.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN])], &[]).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let values = file.get("a").unwrap().to_f32().unwrap();
    assert_eq!(values[..3], [65504.0, f32::INFINITY, f32::NEG_INFINITY]);
    assert!(values[3].is_nan());
}

#[test]
fn tensors_that_make_no_file_are_refused() {
    let path = Path::new("unwritten");
    let message = |tensors: &[Named<'_>]| write(path, tensors, &[]).unwrap_err().to_string();
    let a = named("a", &[1], Dtype::F32, &[0.0]);
    assert!(message(&[a, a]).contains("a: this name is taken"));
    assert!(message(&[Named { name: "__metadata__", ..a }]).contains("this name is taken"));
    assert!(message(&[Named { shape: &[2], ..a }]).contains("a: shape [2] has 2 values, the data 1"));
    assert!(message(&[Named { shape: &[usize::MAX, 2], ..a }]).contains("overflows"));
    assert!(message(&[Named { dtype: Dtype::I64, ..a }]).contains("type I64 cannot be written"));
    assert!(write(path, &[a], &[("k".into(), "".into()), ("k".into(), "".into())]).is_err());
    assert!(!path.exists());
}

#[test]
fn tensors_without_values_come_in_the_same_order_every_time() {
    let folder = Folder::new();
    let names = ["e", "b", "x", "d", "a", "c"];
    let tensor = |name: &&'static str| match *name {
        "x" => named("x", &[1], Dtype::F32, &[1.0]),
        empty => named(empty, &[0], Dtype::F32, &[]),
    };
    let path = folder.path("a.safetensors");
    write(&path, &names.iter().map(tensor).collect::<Vec<_>>(), &[]).unwrap();
    for _ in 0..20 {
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["b", "e", "x", "a", "c", "d"]);
    }
}

#[test]
fn converting_changes_floats_only_and_may_replace_its_input() {
    let folder = Folder::new();
    let path = folder.raw(
        r#"{"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"n":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}"#,
        &[[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0], 5i64.to_le_bytes()].concat(),
    );
    convert(&path, &path, Dtype::BF16).unwrap();
    let file = TensorFile::open(&path).unwrap();
    let (w, n) = (file.get("w").unwrap(), file.get("n").unwrap());
    assert_eq!((w.dtype, &*w.to_f32().unwrap()), (Dtype::BF16, &[1.0, -2.5][..]));
    assert_eq!((n.dtype, n.bytes), (Dtype::I64, &5i64.to_le_bytes()[..]));
    assert_eq!(file.metadata()["k"], "v");
    assert!(convert(&path, folder.path("b"), Dtype::I64).is_err());
}

#[test]
fn a_summary_counts_and_aligns() {
    let folder = Folder::new();
    let path = folder.path("a");
    let values = [3.0, -4.0, f32::NAN, f32::INFINITY];
    let tensors = [named("weight", &[4], Dtype::F32, &values), named("none", &[0, 5], Dtype::F16, &[])];
    write(&path, &tensors, &[("net".into(), "a\nb".into())]).unwrap();
    let s = summary(&path).unwrap();
    let w = &s.tensors[0];
    assert_eq!((w.min, w.max, w.mean, w.deviation), (Some(-4.0), Some(3.0), Some(-0.5), Some(3.5)));
    assert_eq!((s.tensors[1].min, s.tensors[1].count, s.count, s.bytes), (None, 0, 4, 16));
    assert_eq!((w.non_finite, s.non_finite), (2, 2));
    let table = s.to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert_eq!(lines[0].len(), lines[1].len(), "{table}");
    assert_eq!(lines[3], "2 tensors, 4 values, 16 bytes, 2 not finite");
    assert_eq!(lines[4], r"net: a\nb");
}

fn dtype() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn values_come_back_as_the_type_rounds_them(
        tensors in prop::collection::vec((dtype(), prop::collection::vec(-6e4f32..6e4, 0..40)), 0..6),
    ) {
        let folder = Folder::new();
        let path = folder.path("a");
        let names: Vec<String> = (0..tensors.len()).map(|i| format!("t{i}")).collect();
        let shapes: Vec<[usize; 2]> = tensors.iter().map(|(_, v)| [1, v.len()]).collect();
        let all: Vec<Named<'_>> = tensors.iter().zip(&names).zip(&shapes)
            .map(|(((dtype, data), name), shape)| Named { name, shape, dtype: *dtype, data })
            .collect();
        write(&path, &all, &[]).unwrap();
        let file = TensorFile::open(&path).unwrap();
        prop_assert_eq!(file.names().len(), tensors.len());
        for t in &all {
            let read = file.get(t.name).unwrap();
            prop_assert_eq!((&read.shape[..], read.dtype), (t.shape, t.dtype));
            let expected: Vec<f32> = t.data.iter().map(|&x| match t.dtype {
                Dtype::F16 => half::f16::from_f32(x).to_f32(),
                Dtype::BF16 => half::bf16::from_f32(x).to_f32(),
                _ => x,
            }).collect();
            prop_assert_eq!(&*read.to_f32().unwrap(), &expected[..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_corrupted_file_is_read_or_refused_but_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        digits in any::<bool>(),
    ) {
        let folder = Folder::new();
        let path = folder.path("a");
        sample(&path);
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in edits {
            // Half of the time mutate only digits in the header, which still parse and so reach the later checks.
            let (place, byte) = match digits {
                true => (8 + at.index(200), b'0' + byte % 10),
                false => (at.index(bytes.len()), byte),
            };
            bytes[place] = byte;
        }
        fs::write(&path, &bytes).unwrap();
        match TensorFile::open(&path) {
            Ok(file) => file.tensors().for_each(|t| drop(t.to_f32())),
            Err(e) => prop_assert!(!e.to_string().contains('\n')),
        }
        drop(summary(&path));
    }
}

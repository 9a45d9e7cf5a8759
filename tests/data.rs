//! The loaders on files as users have them: both layouts of CelebA, broken lines, unusual images, garbage.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use weft::data::celeba::{ATTRIBUTES, CelebA, Sample, Split, write_annotations};
use weft::data::check::{Decoded, check};
use weft::data::photo::{Photo, Rect};

/// Decode without reporting progress.
const DECODE: Option<Decoded<'_>> = Some(&|_, _| ());
const CMYK: &[u8] = include_bytes!("data/cmyk.jpg");
const EXIF_ROTATED: &[u8] = include_bytes!("data/exif_rotated.jpg");

fn write(root: &Path, file: &str, content: impl AsRef<[u8]>) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A folder with the files given, as (path, content).
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (file, content) in files {
        write(root.path(), file, content);
    }
    root
}

fn values(n: usize, value: &str) -> String {
    vec![value; n].join(" ")
}

fn close(pixel: [u8; 3], expected: [u8; 3]) -> bool {
    pixel.iter().zip(expected).all(|(&p, e)| p.abs_diff(e) <= 6)
}

#[test]
fn a_cmyk_jpeg_becomes_rgb() {
    let photo = Photo::decode(CMYK, "cmyk.jpg").unwrap();
    assert_eq!((photo.width, photo.height), (16, 16));
    let (left, right) = (photo.pixel(3, 3), photo.pixel(12, 3));
    assert!(close(left, [255, 0, 0]) && close(right, [0, 204, 204]), "{left:?} {right:?}");
}

#[test]
fn a_photo_from_a_camera_held_sideways_stands_upright() {
    let photo = Photo::decode(EXIF_ROTATED, "exif_rotated.jpg").unwrap();
    assert_eq!((photo.width, photo.height), (16, 24), "stored as 24 x 16");
    let (top, bottom) = (photo.pixel(8, 2), photo.pixel(8, 20));
    assert!(close(top, [220, 20, 20]) && close(bottom, [20, 20, 220]), "{top:?} {bottom:?}");
}

#[test]
fn a_truncated_jpeg_is_named_with_its_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("half.jpg");
    for cut in [0, 3, CMYK.len() / 2, CMYK.len() - 1] {
        fs::write(&path, &CMYK[..cut]).unwrap();
        let error = Photo::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && !error.contains('\n'), "{error}");
    }
    let error = Photo::open(root.path().join("none.jpg")).unwrap_err().to_string();
    assert!(error.contains("none.jpg: "), "{error}");
    assert!(Photo::open(root.path()).is_err(), "a folder is no photo");
}

#[test]
fn content_decides_the_format_not_the_name() {
    let root = tempfile::tempdir().unwrap();
    let photo = Photo::from_fn(3, 2, |x, y| [x as u8, y as u8, 9]);
    photo.save_png(root.path().join("a.png")).unwrap();
    fs::rename(root.path().join("a.png"), root.path().join("a.jpg")).unwrap();
    assert_eq!(Photo::open(root.path().join("a.jpg")).unwrap(), photo);
}

#[test]
fn all_layouts_give_the_same_samples() {
    let attributes = "2\nSmiling Male\na.jpg  1 -1\nb.jpg -1  1\n";
    let boxes = "2\nimage_id x_1 y_1 width height\na.jpg 1 2 3 4\nb.jpg 5 6 7 8\n";
    let official = tree(&[
        ("Anno/list_attr_celeba.txt", attributes),
        ("Anno/identity_CelebA.txt", "a.jpg 7\nb.jpg 8\n"),
        ("Anno/list_bbox_celeba.txt", boxes),
        ("Eval/list_eval_partition.txt", "a.jpg 0\nb.jpg 2\n"),
        ("Img/img_celeba/a.jpg", ""),
        ("Img/img_celeba/b.jpg", ""),
    ]);
    let flat: Vec<(&str, &str)> = vec![
        ("list_attr_celeba.txt", attributes),
        ("identity_CelebA.txt", "a.jpg 7\r\nb.jpg 8\r\n"),
        ("list_bbox_celeba.txt", "a.jpg 1 2 3 4\nb.jpg 5 6 7 8\n"),
        ("list_eval_partition.txt", "2\na.jpg 0\n\nb.jpg 2"),
        ("img_celeba/a.jpg", ""),
        ("img_celeba/b.jpg", ""),
    ];
    let tables = tree(&[
        ("list_attr_celeba.csv", "\u{feff}image_id,Smiling,Male\r\na.jpg,1,-1\r\nb.jpg,-1,1\r\n"),
        ("identity_CelebA.csv", "image_id,identity\na.jpg,7\nb.jpg,8\n"),
        ("list_bbox_celeba.csv", "image_id,x_1,y_1,width,height\na.jpg,1,2,3,4\n\"b.jpg\",\"5\",\"6\",\"7\",\"8\"\n"),
        ("list_eval_partition.csv", "image_id,partition\na.jpg, 0\nb.jpg,2\n"),
        ("list_landmarks_align_celeba.csv", "image_id,lefteye_x,lefteye_y\na.jpg,1,2\nb.jpg,1,2\n"),
        ("img_celeba/img_celeba/a.jpg", ""),
        ("img_celeba/img_celeba/b.jpg", ""),
    ]);
    let mixed = tree(&[
        ("Anno/list_attr_celeba.csv", "Smiling,Male\na.jpg,1,0\nb.jpg,0,1\n"),
        ("Anno/identity_CelebA.txt", "a.jpg 7\nb.jpg 8\n"),
        ("Anno/list_bbox_celeba.csv", "a.jpg,1,2,3,4\nb.jpg,5,6,7,8\n"),
        ("Eval/list_eval_partition.csv", "name,part\na.jpg,0\nb.jpg,2\n"),
        ("Img/img_celeba/a.jpg", ""),
        ("Img/img_celeba/b.jpg", ""),
    ]);
    let torchvision: Vec<(String, &str)> = flat.iter().map(|(p, c)| (format!("celeba/{p}"), *c)).collect();
    let torchvision: Vec<(&str, &str)> = torchvision.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    for root in [official, tree(&flat), tree(&torchvision), tables, mixed] {
        assert!(CelebA::is_at(root.path()));
        let data = CelebA::open(root.path(), true).unwrap();
        assert_eq!((&data.attribute_names[..], data.problems), (&["Smiling".to_string(), "Male".into()][..], vec![]));
        let [a, b] = &data.samples[..] else { panic!("{} samples", data.samples.len()) };
        assert_eq!((a.name.as_str(), &a.attributes[..], a.identity), ("a.jpg", &[true, false][..], Some(7)));
        assert_eq!((a.bbox, a.split), (Some(Rect::new(1.0, 2.0, 3.0, 4.0)), Some(Split::Train)));
        assert_eq!((&b.attributes[..], b.identity), (&[false, true][..], Some(8)));
        assert_eq!((b.bbox, b.split), (Some(Rect::new(5.0, 6.0, 7.0, 8.0)), Some(Split::Test)));
        assert!(a.path.is_file() && b.path.is_file());
        let data = CelebA::open(root.path(), true).unwrap();
        assert_eq!(data.split(Split::Test).unwrap(), [&data.samples[1]]);
        assert_eq!(data.split(Split::Val).unwrap(), Vec::<&Sample>::new());
        let lines = data.box_lines().unwrap();
        assert_eq!(lines["b.jpg"], lines["a.jpg"] + 1);
    }
}

/// Kaggle's copy: tables, aligned photos one folder deeper, boxes of other photos, no identities.
fn kaggle() -> tempfile::TempDir {
    let root = tree(&[
        ("list_attr_celeba.csv", &format!("image_id,{}\n", ATTRIBUTES.join(","))),
        ("list_eval_partition.csv", "image_id,partition\n"),
        ("list_bbox_celeba.csv", "image_id,x_1,y_1,width,height\n"),
        ("list_landmarks_align_celeba.csv", "image_id,lefteye_x,lefteye_y,righteye_x,righteye_y\n"),
    ]);
    let append = |file: &str, row: String| {
        let path = root.path().join(file);
        fs::write(&path, fs::read_to_string(&path).unwrap() + &row).unwrap();
    };
    for i in 1..=10 {
        let name = format!("{i:06}.jpg");
        append("list_attr_celeba.csv", format!("{name},{}\n", values(40, "-1").replace(' ', ",")));
        append("list_eval_partition.csv", format!("{name},{}\n", i % 3));
        append("list_bbox_celeba.csv", format!("{name},95,71,226,313\n"));
        append("list_landmarks_align_celeba.csv", format!("{name},69,109,106,113\n"));
        write(root.path(), &format!("img_align_celeba/img_align_celeba/{name}"), CMYK);
    }
    root
}

#[test]
fn kaggle_s_copy_is_read_and_what_it_lacks_is_said() {
    let root = kaggle();
    let data = CelebA::open(root.path(), true).unwrap();
    assert_eq!((&data.attribute_names[..], data.samples.len()), (&ATTRIBUTES.map(str::to_string)[..], 10));
    assert!(data.samples.iter().all(|s| s.path.is_file() && s.bbox.is_none() && s.identity.is_none()));
    assert!(data.samples.iter().all(|s| s.attributes == [false; 40]));
    let splits = Split::ALL.map(|split| data.split(split).unwrap().len());
    assert_eq!(splits, [3, 4, 3]);
    let [notice] = &data.problems[..] else { panic!("{:?}", data.problems) };
    let notice = notice.to_string();
    assert!(notice.contains("list_bbox_celeba.csv: its boxes are for the photos in img_celeba, not for "), "{notice}");

    let report = check(root.path(), true, DECODE).unwrap();
    assert_eq!((report.layout, report.images, report.identities, report.boxes), ("celeba", 10, Some(0), Some(0)));
    assert_eq!((report.unreadable, report.problem_count, report.missing.len()), (Some(0), 1, 1));
    assert!(report.to_string().contains("identity_CelebA.txt, needed to train on identities"), "{report}");

    // The photos directly in their folder, and none in the inner one.
    fs::rename(root.path().join("img_align_celeba/img_align_celeba"), root.path().join("img_celeba")).unwrap();
    fs::remove_dir(root.path().join("img_align_celeba")).unwrap();
    let data = CelebA::open(root.path(), true).unwrap();
    assert!(data.problems.is_empty() && data.samples.iter().all(|s| s.bbox.is_some()), "{:?}", data.problems);
    // Boxes of some photos suffice for measuring, so reporting this is not fatal.
    write(root.path(), "list_bbox_celeba.csv", "000001.jpg,95,71,226,313\n");
    let data = CelebA::open(root.path(), true).unwrap();
    let [notice] = &data.problems[..] else { panic!("{:?}", data.problems) };
    assert!(notice.to_string().contains("list_bbox_celeba.csv: covers 1 of 10 photos"), "{notice}");
}

#[test]
fn a_list_of_some_photos_is_not_taken_for_the_whole() {
    let root = kaggle();
    let cut = |file: &str, lines: usize| {
        let path = root.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.lines().take(lines).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    };
    let found = |strict: bool| CelebA::open(root.path(), strict);
    let problems = || -> Vec<String> {
        let problems = found(false).unwrap().problems;
        problems.iter().map(|problem| problem.to_string()).filter(|problem| problem.contains("covers")).collect()
    };
    assert_eq!(problems(), Vec::<String>::new());

    cut("list_eval_partition.csv", 1 + 9);
    assert_eq!(problems().len(), 1);
    assert!(
        problems()[0].contains("list_eval_partition.csv: covers 9 of 10 photos: was it cut short?"),
        "{problems:?}",
        problems = problems()
    );
    assert_eq!(found(false).unwrap().split(Split::Train).unwrap().len(), 3);
    assert!(found(true).unwrap_err().to_string().contains("covers 9 of 10"));

    for lines in [1 + 4, 3, 1, 0] {
        cut("list_eval_partition.csv", lines);
        let data = found(false).unwrap();
        for split in Split::ALL {
            let error = data.split(split).unwrap_err().to_string();
            let covered =
                format!("list_eval_partition.csv: covers {} of 10 photos: was it cut short?", lines.max(1) - 1);
            assert!(error.contains(&covered), "{error}");
        }
        let report = check(root.path(), false, None).unwrap();
        assert!(report.to_string().contains("was it cut short?") && report.images == 10, "{report}");
        assert!(check(root.path(), true, None).is_err());
    }
    fs::remove_file(root.path().join("list_eval_partition.csv")).unwrap();
    let error = found(true).unwrap().split(Split::Val).unwrap_err().to_string();
    assert!(error.contains("no list_eval_partition.txt in it, so it has no val part; "), "{error}");
    assert!(check(root.path(), true, None).unwrap().to_string().contains("list_eval_partition.txt, needed"));

    write(root.path(), "identity_CelebA.txt", "000001.jpg 5\n000002.jpg 5\n");
    assert!(problems()[0].contains("identity_CelebA.txt: covers 2 of 10 photos"), "{:?}", problems());
    fs::remove_file(root.path().join("identity_CelebA.txt")).unwrap();

    // A list of attributes or boxes may cover only some photos on purpose.
    cut("list_attr_celeba.csv", 1 + 8);
    fs::remove_file(root.path().join("list_bbox_celeba.csv")).unwrap();
    let data = found(true).unwrap();
    assert_eq!((data.samples.len(), data.problems.len()), (8, 1));
    assert!(
        data.problems[0].to_string().contains("list_attr_celeba.csv: covers 8 of 10 photos"),
        "{:?}",
        data.problems
    );
}

#[test]
fn both_forms_of_a_list_must_say_the_same() {
    let files = [
        ("list_attr_celeba.txt", "2\n5_o_Clock_Shadow Male\na.jpg 1 -1\nb.jpg -1 1\n"),
        ("list_attr_celeba.csv", "image_id,5_o_Clock_Shadow,Male\na.jpg,1,-1\nb.jpg,-1,1\n"),
        ("img_celeba/a.jpg", ""),
        ("img_celeba/b.jpg", ""),
    ];
    let root = tree(&files);
    assert_eq!(CelebA::open(root.path(), true).unwrap().problems, []);
    write(root.path(), "list_attr_celeba.csv", "image_id,5_o_Clock_Shadow,Male\na.jpg,1,-1\nb.jpg,1,1\nc.jpg,1,1\n");
    let data = CelebA::open(root.path(), false).unwrap();
    assert_eq!(data.samples[1].attributes, [false, true], "the text is preferred");
    let problem = data.problems[0].to_string();
    assert!(problem.contains("list_attr_celeba.csv: 1 of its 3 rows are in ") && data.problems.len() == 1, "{problem}");
    assert_eq!(CelebA::open(root.path(), true).unwrap_err().to_string(), problem);
}

#[test]
fn absent_is_0_only_where_it_never_is_minus_1() {
    let read = |rows: &str| {
        let list = format!("image_id,Smiling,Male\n{rows}");
        let root = tree(&[("list_attr_celeba.csv", &list), ("img_celeba/a.jpg", ""), ("img_celeba/b.jpg", "")]);
        let data = CelebA::open(root.path(), false).unwrap();
        let attributes: Vec<Vec<bool>> = data.samples.into_iter().map(|s| s.attributes).collect();
        (attributes, data.problems.iter().map(|p| p.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(read("a.jpg,1,0\nb.jpg,0,0\n"), (vec![vec![true, false], vec![false, false]], vec![]));
    let (attributes, problems) = read("a.jpg,1,0\nb.jpg,-1,1\n");
    assert_eq!(attributes, [[false, true]]);
    assert!(problems.len() == 1 && problems[0].contains("celeba.csv:2: Male is \"0\"; "), "{problems:?}");
    let (attributes, problems) = read("a.jpg,1,0\nb.jpg,2,1\n");
    assert_eq!(attributes, [[true, false]]);
    assert!(problems.len() == 1 && problems[0].contains("celeba.csv:3: Smiling is \"2\"; "), "{problems:?}");
}

/// Opening a pipe blocks until it has a writer.
#[test]
fn what_is_no_regular_file_is_not_opened_whatever_lists_it() {
    let root = tree(&[
        ("c/list_attr_celeba.txt", "Smiling\na.jpg 1\npipe.jpg 1\nfolder.jpg 1\nzero.jpg -1\n"),
        ("c/img_celeba/folder.jpg/x", ""),
        ("b/boxes.csv", "a.jpg,1,1,3,3\npipe.jpg,1,1,3,3\nsub/a.jpg,1,1,3,3\nzero.jpg,1,1,3,3\n"),
    ]);
    for folder in ["c/img_celeba", "b/images"] {
        write(root.path(), &format!("{folder}/a.jpg"), CMYK);
        let path = |name: &str| root.path().join(folder).join(name);
        assert!(std::process::Command::new("mkfifo").arg(path("pipe.jpg")).status().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", path("zero.jpg")).unwrap();
    }
    write(root.path(), "b/images/sub/a.jpg", CMYK);

    let report = check(root.path().join("c"), false, DECODE).unwrap();
    assert_eq!((report.images, report.unreadable, report.problem_count), (1, Some(0), 3), "{report}");
    for (problem, found) in report.problems.iter().zip([
        ":3: image \"pipe.jpg\" in ",
        ":4: image \"folder.jpg\" in ",
        ":5: image \"zero.jpg\" in ",
    ]) {
        assert!(problem.contains(found), "{problem}");
    }
    for (problem, kind) in report.problems.iter().zip([" is a pipe; ", " is a folder; ", " is a device; "]) {
        assert!(problem.contains(kind), "{problem}");
    }
    let report = check(root.path().join("b"), false, DECODE).unwrap();
    assert_eq!((report.images, report.boxes, report.problem_count), (2, Some(4), 2), "{report}");
    assert!(
        report.problems[0].contains("\"pipe.jpg\" is a pipe") && report.problems[1].contains("a device"),
        "{report}"
    );
    // As an image folder: the class is `images`.
    fs::remove_file(root.path().join("b/boxes.csv")).unwrap();
    write(root.path(), "b/other/a.jpg", CMYK);
    let report = check(root.path().join("b"), false, DECODE).unwrap();
    assert_eq!((report.images, report.classes, report.problem_count), (3, Some(2), 2), "{report}");
}

#[test]
fn boxes_do_not_hold_for_aligned_photos() {
    let root = tree(&[
        ("list_attr_celeba.txt", "Smiling\na.jpg 1\n"),
        ("list_bbox_celeba.txt", "a.jpg 1 2 3 4\n"),
        ("img_align_celeba/a.jpg", ""),
    ]);
    let data = CelebA::open(root.path(), true).unwrap();
    assert_eq!((data.attribute_names.len(), data.samples[0].bbox), (1, None));
}

#[test]
fn a_list_without_header_has_the_original_attributes() {
    let root = tree(&[("list_attr_celeba.txt", &format!("a.jpg {}\n", values(40, "1"))), ("img_celeba/a.jpg", "")]);
    let data = CelebA::open(root.path(), true).unwrap();
    assert_eq!(data.attribute_names, ATTRIBUTES);
    assert_eq!(data.samples[0].attributes, [true; 40]);
}

/// One malformed line of each kind, with its place and message.
#[test]
fn bad_lines_are_fatal_if_strict_and_listed_otherwise() {
    let good = format!("good.jpg {}", values(40, "-1"));
    let list = |line: &str| format!("{}\n{good}\n{line}\n", ATTRIBUTES.join(" "));
    let attributes = "Anno/list_attr_celeba.txt";
    let (identity, boxes) = ("Anno/identity_CelebA.txt", "Anno/list_bbox_celeba.txt");
    let partition = "Eval/list_eval_partition.txt";
    let ones = values(40, "1");
    let cases = [
        (attributes, list(&format!("bad.jpg {}", values(39, "1"))), 3, "39 columns after the name, not 40"),
        (attributes, list(&format!("bad.jpg {} 2", values(39, "1"))), 3, "Young is \"2\""),
        (attributes, list(&format!("bad.jpg 0 {}", values(39, "1"))), 3, "5_o_Clock_Shadow is \"0\""),
        (attributes, list(&good), 3, "\"good.jpg\" is listed twice"),
        (attributes, list(&format!("missing.jpg {ones}")), 3, "\"missing.jpg\" is not in "),
        (attributes, list(&format!("../good.jpg {ones}")), 3, "\"../good.jpg\" is not in "),
        (attributes, format!("7\n{}\n{good}\n", ATTRIBUTES.join(" ")), 1, "said to have \"7\" lines but has 1"),
        (identity, "good.jpg 1\nother.jpg 2\n".into(), 2, "\"other.jpg\" is not in list_attr_celeba.txt"),
        (identity, "good.jpg 1\ngood.jpg 2\n".into(), 2, "listed twice"),
        (identity, "good.jpg -5\n".into(), 1, "identity is \"-5\""),
        (identity, "good.jpg\n".into(), 1, "0 columns"),
        (identity, "3\ngood.jpg 1\n".into(), 1, "said to have \"3\" lines but has 1"),
        (boxes, "good.jpg 1 2 0 4\n".into(), 1, "is empty"),
        (boxes, "good.jpg -9 2 3 4\n".into(), 1, "outside of any photo"),
        (boxes, "1\nimage_id x_1 y_1 width height\ngood.jpg 1 2 x 4\n".into(), 3, "width is \"x\""),
        (boxes, "good.jpg 1 2 3\n".into(), 1, "3 columns after the name, not 4"),
        (partition, "good.jpg 3\n".into(), 1, "split is \"3\""),
        (partition, "good.jpg train\n".into(), 1, "split is \"train\""),
    ];
    for (file, content, line, found) in cases {
        let root = tree(&[(attributes, &list("")), ("Img/img_celeba/good.jpg", "")]);
        write(root.path(), file, &content);
        if content.contains("bad.jpg") {
            write(root.path(), "Img/img_celeba/bad.jpg", "");
        }
        let place = format!("{}:{line}: ", root.path().join(file).display());

        let error = CelebA::open(root.path(), true).unwrap_err().to_string();
        assert!(error.starts_with(&place) && error.contains(found) && error.contains("; "), "{content}: {error}");

        let data = CelebA::open(root.path(), false).unwrap();
        assert_eq!(data.samples.len(), 1, "{content}");
        assert_eq!(data.problems.len(), 1, "{content}");
        assert_eq!(data.problems[0].to_string(), error);
    }
}

#[test]
fn a_missing_photo_is_reported_once_not_for_each_annotation() {
    let root = tree(&[
        ("list_attr_celeba.txt", "Smiling\na.jpg 1\nb.jpg 1\n"),
        ("identity_CelebA.txt", "a.jpg 1\nb.jpg 2\n"),
        ("list_eval_partition.txt", "a.jpg 1\nb.jpg 1\n"),
        ("img_celeba/a.jpg", ""),
    ]);
    assert_eq!(CelebA::open(root.path(), false).unwrap().problems.len(), 1);
}

#[test]
fn folders_without_data_say_what_is_missing() {
    let error = |files: &[(&str, &str)]| CelebA::open(tree(files).path(), false).unwrap_err().to_string();
    assert!(error(&[]).contains("neither Anno/list_attr_celeba.txt nor"));
    let list = ("list_attr_celeba.txt", "Smiling\na.jpg 1\n");
    assert!(error(&[list]).contains("no folder of photos"));
    let unusable = error(&[list, ("img_celeba/b.jpg", "")]);
    assert!(unusable.contains("none of its 1 lines can be used; the first: "), "{unusable}");
    assert!(
        error(&[("list_attr_celeba.txt", "A B A\na.jpg 1 1 1\n"), ("img_celeba/a.jpg", "")]).contains("named twice")
    );
    assert!(CelebA::open("no/such/folder", false).unwrap_err().to_string().contains("no such folder"));
    assert!(check(tree(&[]).path(), false, None).unwrap_err().to_string().contains("no photos"));
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let root = tempfile::tempdir().unwrap();
    let sample = Sample {
        path: "a.jpg".into(),
        name: "a.jpg".into(),
        attributes: vec![true],
        identity: None,
        bbox: None,
        split: None,
    };
    let names = ["Smiling".to_string()];
    let refused = |names: &[String], samples: &[Sample]| write_annotations(root.path(), names, samples).is_err();
    assert!(refused(&["Smiling face".to_string()], std::slice::from_ref(&sample)));
    assert!(refused(&names, &[Sample { name: String::new(), ..sample.clone() }]));
    assert!(refused(&names, &[sample.clone(), sample.clone()]));
    assert!(refused(&names, &[Sample { attributes: vec![], ..sample.clone() }]));
    assert!(refused(&names, &[Sample { bbox: Some(Rect::new(0.0, 0.0, f32::NAN, 1.0)), ..sample.clone() }]));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);

    let boxed = Sample { bbox: Some(Rect::new(0.0, 0.0, 2.5, 1.0)), ..sample.clone() };
    write_annotations(root.path(), &names, &[boxed]).unwrap();
    let boxes = root.path().join("Anno/list_bbox_celeba.txt");
    assert_eq!(fs::read_to_string(&boxes).unwrap(), "1\nimage_id x_1 y_1 width height\na.jpg 0 0 2.5 1\n");
    assert_eq!(fs::read_to_string(root.path().join("Anno/list_attr_celeba.txt")).unwrap(), "1\nSmiling\na.jpg  1\n");
    write_annotations(root.path(), &names, &[sample]).unwrap();
    assert!(!boxes.exists(), "a stale box file would be read");
}

#[test]
fn check_counts_and_finds_what_cannot_be_decoded() {
    let root = tree(&[
        ("Anno/list_attr_celeba.txt", "Smiling Male\na.jpg 1 -1\nb.jpg 1 1\nc.jpg 1 -1\nd.jpg -1 -1\n"),
        ("Anno/identity_CelebA.txt", "a.jpg 1\nb.jpg 2\nc.jpg 1\nd.jpg 1\n"),
        ("Anno/list_bbox_celeba.txt", "a.jpg 1 1 4 4\nb.jpg 20 1 4 4\nc.jpg 1 1 4 4\nd.jpg 1 1 4 4\n"),
        ("Eval/list_eval_partition.txt", "a.jpg 0\nb.jpg 0\nc.jpg 2\nd.jpg 1\n"),
    ]);
    for name in ["a.jpg", "b.jpg", "d.jpg"] {
        write(root.path(), &format!("Img/img_celeba/{name}"), CMYK);
    }
    write(root.path(), "Img/img_celeba/c.jpg", &CMYK[..200]);

    let report = check(root.path(), true, None).unwrap();
    assert_eq!((report.layout, report.images, report.problem_count, report.unreadable), ("celeba", 4, 0, None));
    let splits = report.splits.unwrap();
    assert_eq!((splits.train, splits.val, splits.test, splits.none), (2, 1, 1, 0));
    assert_eq!((report.identities, report.boxes), (Some(2), Some(4)));
    let rates: Vec<_> = report.attributes.iter().map(|a| (a.name.as_str(), a.positive_rate)).collect();
    assert_eq!(rates, [("Smiling", 0.75), ("Male", 0.25)]);

    let report = check(root.path(), false, DECODE).unwrap();
    assert_eq!((report.unreadable, report.problem_count), (Some(1), 2));
    assert!(report.problems[0].contains("b.jpg: box 4 x 4 at (20, 1) lies outside"), "{:?}", report.problems);
    assert!(report.problems[1].contains("c.jpg: the JPEG is truncated"), "{:?}", report.problems);
    assert!(check(root.path(), true, DECODE).unwrap_err().to_string().contains("b.jpg"));

    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["splits"]["train"], 2);
    assert_eq!(json["attributes"][0]["positive_rate"], 0.75);
    assert!(report.to_string().contains("unreadable images"));
}

#[test]
fn check_recognises_image_folders_and_boxes() {
    let root =
        tree(&[("cat/note.txt", ""), ("boxes/boxes.csv", "image,x,y,width,height\na.jpg,1,1,3,3\nb.jpg,1,1,3,3\n")]);
    write(root.path(), "dog/1.jpg", EXIF_ROTATED);
    write(root.path(), "boxes/images/a.jpg", CMYK);

    let report = check(root.path(), false, DECODE).unwrap();
    assert_eq!((report.layout, report.images, report.classes), ("image folder", 2, Some(2)));
    assert_eq!((report.unreadable, report.problem_count), (Some(0), 1), "{:?}", report.problems);

    for place in ["boxes", "boxes/boxes.csv"] {
        let report = check(root.path().join(place), false, DECODE).unwrap();
        assert_eq!((report.layout, report.images, report.boxes, report.problem_count), ("boxes", 1, Some(2), 1));
        assert!(report.problems[0].contains("image \"b.jpg\" is not in "), "{:?}", report.problems);
    }
}

fn table() -> impl Strategy<Value = (Vec<String>, Vec<Sample>)> {
    let names = prop::collection::btree_set("[A-Za-z][A-Za-z0-9_]{0,12}", 1..8);
    let sides = (-20.0_f32..300.0, -20.0_f32..300.0, 21.0_f32..200.0, 21.0_f32..200.0);
    let row = (prop::option::of(any::<u32>()), prop::option::of(sides), prop::option::of(0..3_usize), any::<u8>());
    (names, prop::collection::vec(row, 1..12)).prop_map(|(names, rows)| {
        let samples = rows.into_iter().enumerate().map(|(i, (identity, sides, split, bits))| Sample {
            path: Default::default(),
            name: format!("{i:06}.jpg"),
            attributes: (0..names.len()).map(|a| bits >> a & 1 == 1).collect(),
            identity,
            bbox: sides.map(|(x, y, w, h)| Rect::new(x, y, w, h)),
            split: split.map(|s| Split::ALL[s]),
        });
        (names.iter().cloned().collect(), samples.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_written_table_reads_back_equal((names, mut samples) in table()) {
        let root = tempfile::tempdir().unwrap();
        write_annotations(root.path(), &names, &samples).unwrap();
        for sample in &mut samples {
            sample.path = root.path().join("Img/img_celeba").join(&sample.name);
            write(root.path(), &format!("Img/img_celeba/{}", sample.name), "");
        }
        // Files that do not cover every sample are reported.
        let data = CelebA::open(root.path(), false).unwrap();
        prop_assert!(data.problems.iter().all(|p| p.to_string().contains(": covers ")), "{:?}", data.problems);
        prop_assert_eq!(data.attribute_names, names);
        prop_assert_eq!(data.samples, samples);
    }

    #[test]
    fn garbage_in_annotation_files_never_panics(
        file in 0..8_usize, strict: bool,
        bytes in prop::collection::vec(prop_oneof![Just(b' '), Just(b'\n'), Just(b'1'), Just(b'-'), Just(b','), Just(b'"'), any::<u8>()], 0..300),
    ) {
        let root = tree(&[
            ("list_attr_celeba.txt", "Smiling\n1 1\n"), ("img_celeba/1", ""), ("img_celeba/1-", ""),
        ]);
        let names = ["list_attr_celeba.txt", "identity_CelebA.txt", "list_bbox_celeba.txt", "list_eval_partition.txt"];
        let name = if file < 4 { names[file].to_string() } else { names[file - 4].replace(".txt", ".csv") };
        write(root.path(), &name, bytes);
        if name == "list_attr_celeba.csv" && strict {
            fs::remove_file(root.path().join(names[0])).unwrap();
        }
        if let Err(error) = CelebA::open(root.path(), strict) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn garbage_in_image_bytes_never_panics(
        start in 0..6_usize, bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let magic: &[u8] = [&b""[..], b"\xFF\xD8\xFF", b"\x89PNG\r\n\x1A\n", b"BM", b"GIF89a", b"II*\0"][start];
        let _ = Photo::decode(&[magic, &bytes].concat(), "garbage");
    }
}

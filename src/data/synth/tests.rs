use super::*;

fn small() -> Config {
    Config { images: 40, identities: 12, width: (96, 140), height: (96, 140), ..Config::default() }
}

const HAIR: [Tag; 4] = [Tag::BlackHair, Tag::BlondHair, Tag::BrownHair, Tag::GrayHair];

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let config = small();
    assert_eq!(render(&config, 7), render(&config, 7));
    assert_eq!(render_aligned(&config, 7, 89, 109), render_aligned(&config, 7, 89, 109));
    assert_eq!(background(3, 4, 50, 60), background(3, 4, 50, 60));
    let other = Config { seed: 2, ..small() };
    assert_ne!(render(&config, 7).photo, render(&other, 7).photo);
    assert_ne!(background(3, 4, 50, 60), background(3, 5, 50, 60));
}

#[test]
fn a_picture_does_not_depend_on_how_many_there_are() {
    assert_eq!(render(&small(), 7), render(&Config { images: 9, ..small() }, 7));
}

#[test]
fn attributes_are_in_celebas_order() {
    assert!(ATTRIBUTES.is_sorted());
    for (tag, name) in [(Tag::Bald, "Bald"), (Tag::GrayHair, "Gray_Hair"), (Tag::WearingNecktie, "Wearing_Necktie")] {
        assert_eq!(ATTRIBUTES[tag as usize], name);
        assert_eq!(format!("{tag:?}"), name.replace('_', ""));
    }
}

#[test]
fn the_box_is_inside_the_picture_and_as_large_as_asked() {
    for config in [small(), Config { width: (32, 400), height: (32, 50), face: (0.1, 0.9), ..small() }] {
        for i in 0..40 {
            let Face { photo, bbox, .. } = render(&config, i);
            assert!((config.width.0..=config.width.1).contains(&photo.width));
            assert!((config.height.0..=config.height.1).contains(&photo.height));
            assert!(bbox.x >= 0.0 && bbox.x + bbox.width <= photo.width as f32, "{bbox:?}");
            assert!(bbox.y >= 0.0 && bbox.y + bbox.height <= photo.height as f32, "{bbox:?}");
            let share = bbox.height / photo.width.min(photo.height) as f32;
            let rounding = 1.0 / photo.width.min(photo.height) as f32;
            assert!(share > config.face.0 * 0.85 - rounding && share < config.face.1 + rounding, "{share}");
            assert!((0.7..0.95).contains(&(bbox.width / bbox.height)) || bbox.height < 20.0, "{bbox:?}");
        }
    }
}

#[test]
fn attributes_that_exclude_each_other_never_meet() {
    let config = small();
    for i in 0..2000 {
        let tags = config.tags(i);
        let colors = HAIR.iter().filter(|&&t| tags.has(t)).count();
        assert!(colors <= usize::from(!tags.has(Tag::Bald)));
        assert!(!(tags.has(Tag::Bangs) && (tags.has(Tag::Bald) || tags.has(Tag::WearingHat))));
        assert!(!(tags.has(Tag::WearingHat) && tags.has(Tag::Bald)));
        assert!(!(tags.has(Tag::WearingLipstick) && tags.has(Tag::Mustache)));
    }
}

#[test]
fn every_attribute_is_neither_rare_nor_common() {
    for identities in [50, 1000] {
        let config = Config { identities, ..small() };
        let n = 4000;
        let mut counts = [0; ATTRIBUTES.len()];
        for i in 0..n {
            for (count, present) in counts.iter_mut().zip(config.tags(i).0) {
                *count += usize::from(present);
            }
        }
        for (name, count) in ATTRIBUTES.iter().zip(counts) {
            let rate = count as f32 / n as f32;
            assert!((0.09..=0.6).contains(&rate), "{name}: {rate} with {identities} people");
        }
    }
}

#[test]
fn a_person_keeps_hair_skin_and_brows() {
    let config = small();
    for i in 0..12 {
        let (a, b) = (config.tags(i), config.tags(i + 12));
        for tag in HAIR.into_iter().chain([Tag::Bald, Tag::PaleSkin, Tag::BushyEyebrows]) {
            assert_eq!(a.has(tag), b.has(tag));
        }
        assert_eq!(render(&config, i).identity, render(&config, i + 12).identity);
    }
}

/// Pixels of an aligned picture that change by more than 8 levels in some channel when one attribute is added.
fn changed(index: usize, tag: usize, base: Tags) -> Vec<(usize, usize)> {
    let config = Config { identities: 1000, ..Config::default() };
    let mut with = base;
    with.0[tag] = true;
    let (a, b) = (compose(&config, index, &base, Some((178, 218))), compose(&config, index, &with, Some((178, 218))));
    assert_eq!(a.bbox, b.bbox);
    let pairs = a.photo.rgb.chunks_exact(3).zip(b.photo.rgb.chunks_exact(3));
    let differs = |(a, b): (&[u8], &[u8])| a.iter().zip(b).any(|(&a, &b)| a.abs_diff(b) > 8);
    pairs.enumerate().filter(|&(_, pair)| differs(pair)).map(|(i, _)| (i % 178, i / 178)).collect()
}

#[test]
fn every_attribute_can_be_seen() {
    let mut base = Tags::default();
    for (tag, name) in ATTRIBUTES.iter().enumerate() {
        for index in 0..6 {
            // Hair colours are compared with another one: auburn has no attribute.
            let count = changed(index, tag, base).len();
            assert!(count >= 60, "{name} changes only {count} pixels of picture {index}");
        }
    }
    base.set(Tag::WearingHat, true);
    for tag in HAIR {
        assert!(changed(0, tag as usize, base).len() >= 60, "{tag:?} is not seen under a hat");
    }
}

#[test]
fn an_attribute_changes_only_its_place() {
    // Rows of an aligned picture: eyes at 111, mouth around 150.
    for (tag, rows) in [
        (Tag::Eyeglasses, 80..140),
        (Tag::NarrowEyes, 90..130),
        (Tag::BushyEyebrows, 70..115),
        (Tag::Mustache, 120..190),
        (Tag::WearingLipstick, 125..190),
        (Tag::MouthSlightlyOpen, 125..195),
        (Tag::WearingNecktie, 165..218),
        (Tag::WearingHat, 0..108),
        // The locks at the temples extend down to the cheekbones.
        (Tag::Bangs, 30..140),
    ] {
        for index in 0..6 {
            for (x, y) in changed(index, tag as usize, Tags::default()) {
                assert!(rows.contains(&y), "{tag:?} of picture {index} reaches ({x}, {y})");
            }
        }
    }
}

#[test]
fn aligned_eyes_are_where_celeba_has_them() {
    let config = small();
    for i in 0..12 {
        let who = Identity::new(&mut stream(config.seed, Domain::Identity, i));
        let tags = Tags::default();
        let pose = crop(&mut Rng::new(5, i as u64), &who, &tags, 178, 218);
        let [left, right] = Head { who: &who, tags: &tags, pose }.eyes();
        let (sin, cos) = pose.roll.sin_cos();
        for ((x, y), (want_x, want_y)) in [(left, (69.5, 111.0)), (right, (108.0, 112.0))] {
            let (px, py) = (pose.x + pose.scale * (x * cos - y * sin), pose.y + pose.scale * (x * sin + y * cos));
            assert!((px - want_x).abs() < 3.0 && (py - want_y).abs() < 3.0, "({px}, {py})");
        }
    }
}

#[test]
fn no_size_is_too_odd() {
    for (w, h) in [(0, 0), (0, 5), (1, 1), (3, 200), (200, 3)] {
        assert_eq!(render_aligned(&small(), 0, w, h).photo.rgb.len(), w * h * 3);
        assert_eq!(background(1, 0, w, h).rgb.len(), w * h * 3);
    }
    let wrong = Config { identities: 0, width: (0, 0), height: (90, 7), face: (f32::NAN, -3.0), ..Config::default() };
    assert_eq!(render(&wrong, 5).photo.width, SIDES.0);
    assert!(wrong.check().is_err());
}

#[test]
fn a_wrong_configuration_is_named() {
    let e = Config { width: (200, 100), ..small() }.check().expect_err("the range is reversed");
    assert!(e.to_string().starts_with("synthetic faces: width: 200 to 100"), "{e}");
    assert!(small().check().is_ok() && Config::default().check().is_ok());
}

#[test]
fn people_are_split_and_never_shared() {
    for (identities, each) in [(1, [1, 0, 0]), (3, [1, 1, 1]), (12, [10, 1, 1]), (200, [160, 20, 20])] {
        let config = Config { identities, ..small() };
        let mut counts = [0; 3];
        for person in 0..identities {
            counts[config.split(person) as usize] += 1;
        }
        assert_eq!(counts, each);
    }
}

#[test]
fn what_is_written_is_read_again() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let config = Config { images: 70, ..small() };
    let mut heard = Vec::new();
    write(&config, root.path(), &mut |n| heard.push(n)).expect("it is written");
    assert_eq!(heard, [64, 70]);
    assert!(is_at(root.path()));
    let data = crate::data::celeba::CelebA::open(root.path(), true).expect("it is read");
    assert_eq!(data.attribute_names, ATTRIBUTES);
    assert_eq!(data.samples.len(), 70);
    for (i, sample) in data.samples.iter().enumerate() {
        let face = render(&config, i);
        assert_eq!(sample.attributes, face.attributes);
        assert_eq!((sample.identity, sample.bbox), (Some(face.identity), Some(face.bbox)));
        let read = Photo::open(&sample.path).expect("the picture decodes");
        let error: u64 = read.rgb.iter().zip(&face.photo.rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(error < 8 * read.rgb.len() as u64, "mean error {}", error as f32 / read.rgb.len() as f32);
    }
}

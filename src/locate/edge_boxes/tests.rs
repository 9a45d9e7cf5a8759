//! Drawn shapes whose groups and scores are known, and the fast score against a direct implementation of the paper's formulas.

use super::groups::{Group, LEAST_AFFINITY, NONE, affinity};
use super::*;
use crate::data::synth;
use crate::rng::Rng;
use proptest::prelude::*;
use std::f32::consts::{FRAC_PI_2, FRAC_PI_4, PI};

/// An edge map without edges.
fn blank(height: usize, width: usize) -> Edges {
    Edges { height, width, magnitude: vec![0.0; height * width], orientation: vec![0.0; height * width] }
}

fn draw(edges: &mut Edges, x: usize, y: usize, orientation: f32) {
    let at = y * edges.width + x;
    (edges.magnitude[at], edges.orientation[at]) = (1.0, orientation);
}

/// A filled ellipse, dark on light, with soft borders.
fn ellipse(width: usize, height: usize, center: (f32, f32), axes: (f32, f32)) -> Photo {
    Photo::from_fn(width, height, |x, y| {
        let (dx, dy) = ((x as f32 - center.0) / axes.0, (y as f32 - center.1) / axes.1);
        let inside = ((1.0 - (dx * dx + dy * dy).sqrt()) * axes.0.min(axes.1) + 0.5).clamp(0.0, 1.0);
        [(220.0 - 160.0 * inside) as u8; 3]
    })
}

fn groups_of(photo: &Photo) -> Groups {
    Groups::new(&GradientEdges::default().detect(photo), 2.0)
}

#[test]
fn the_border_of_an_ellipse_is_one_pixel_thin_and_lies_along_it() {
    let edges = GradientEdges::default().detect(&ellipse(120, 100, (60.0, 50.0), (30.0, 30.0)));
    let mut count = 0;
    for (at, _) in edges.magnitude.iter().enumerate().filter(|(_, m)| **m > 0.1) {
        let (dx, dy) = ((at % 120) as f32 - 60.0, (at / 120) as f32 - 50.0);
        assert!((dx.hypot(dy) - 30.0).abs() < 1.6, "an edge {dx}, {dy} from the middle");
        let along = (dy.atan2(dx) + FRAC_PI_2).rem_euclid(PI);
        assert!(edges::turn(along, edges.orientation[at]) < 0.15, "at {dx}, {dy}");
        count += 1;
    }
    // An 8-connected circle of radius 30 has 4 sqrt(2) r = 170 pixels.
    assert!((150..240).contains(&count), "{count} pixels");
}

#[test]
fn a_straight_line_is_one_group_and_a_circle_breaks_where_it_has_turned_enough() {
    let mut edges = blank(9, 40);
    (5..35).for_each(|x| draw(&mut edges, x, 4, 0.0));
    let groups = Groups::new(&edges, 2.0);
    assert_eq!(groups.groups.len(), 2, "the empty entry and the line");
    let Group { magnitude, mean, orientation, .. } = groups.groups[1];
    assert_eq!((magnitude, mean, orientation), (30.0, (19.5, 4.0), 0.0));

    let circle = groups_of(&ellipse(120, 100, (60.0, 50.0), (30.0, 30.0)));
    // The circle turns by 2 pi, a group by at most pi / 2; rounding of orientations adds turns as well.
    assert!((5..=30).contains(&circle.groups.len()), "{} groups", circle.groups.len());
    for id in 1..circle.groups.len() as u32 {
        assert!(!circle.neighbours(id).is_empty(), "group {id} continues nothing");
    }
}

#[test]
fn small_groups_join_their_neighbours_or_drop_out() {
    let mut edges = blank(9, 40);
    (5..20).for_each(|x| draw(&mut edges, x, 4, 0.0));
    for (x, y) in [(20, 5), (30, 2)] {
        draw(&mut edges, x, y, FRAC_PI_2);
        edges.magnitude[y * 40 + x] = 0.3;
    }
    // The turn of pi / 2 at (20, 5) is exactly the limit: any further turn exceeds it.
    edges.orientation[4 * 40 + 5] = 0.1;
    let groups = Groups::new(&edges, 2.0);
    assert_eq!(groups.ids[5 * 40 + 20], groups.ids[4 * 40 + 19]);
    assert_eq!(groups.ids[2 * 40 + 30], NONE);
    assert_eq!(groups.magnitude[2 * 40 + 30], 0.0);
}

#[test]
fn affinity_is_one_along_a_line_and_none_across() {
    let group = |x: f32, y: f32, orientation: f32| Group { mean: (x, y), orientation, ..Group::default() };
    let diagonal = affinity(&group(0.0, 0.0, FRAC_PI_4), &group(5.0, 5.0, FRAC_PI_4), 2.0);
    assert!((diagonal - 1.0).abs() < 1e-6);
    assert!(affinity(&group(0.0, 0.0, 0.0), &group(9.0, 0.0, FRAC_PI_2), 2.0) < 1e-10);
    let bent = affinity(&group(0.0, 0.0, 0.0), &group(9.0, 0.0, FRAC_PI_4), 2.0);
    assert!((bent - 0.5).abs() < 1e-6, "{bent}");
}

#[test]
fn a_box_around_an_ellipse_scores_more_than_shifted_ones() {
    let groups = groups_of(&ellipse(160, 140, (80.0, 70.0), (24.0, 32.0)));
    let mut scorer = Scorer::new(&groups, 1.5);
    let around = ScoredWindow { x0: 53, y0: 35, x1: 108, y1: 106 };
    let best = scorer.score(around, 0.0).expect("the ellipse scores");
    for (dx, dy) in [(12, 0), (-12, 0), (0, 15), (0, -15), (12, 15), (30, 0)] {
        let moved = |v: usize, by: i32| (v as i32 + by) as usize;
        let ScoredWindow { x0, y0, x1, y1 } = around;
        let window = ScoredWindow { x0: moved(x0, dx), y0: moved(y0, dy), x1: moved(x1, dx), y1: moved(y1, dy) };
        let score = scorer.score(window, 0.0).unwrap_or(0.0);
        assert!(score < 0.6 * best, "moved by {dx}, {dy}: {score} of {best}");
    }
    let wide = scorer.score(ScoredWindow { x0: 20, y0: 10, x1: 140, y1: 130 }, 0.0).expect("a wide box scores");
    assert!(wide < best, "looser boxes score less");
}

#[test]
fn what_continues_a_contour_across_the_border_is_lost() {
    // A line of three groups in a row, 2 pixels apart, and a box that holds them.
    let mut edges = blank(60, 100);
    for x in (20..32).chain(33..45).chain(46..58) {
        draw(&mut edges, x, 12, 0.0);
    }
    let window = ScoredWindow { x0: 10, y0: 8, x1: 70, y1: 50 };
    let groups = Groups::new(&edges, 2.0);
    assert_eq!(groups.groups.len(), 4);
    let whole = Scorer::new(&groups, 1.5).score(window, 0.0).expect("a line inside");
    assert!((whole - 36.0 / (2.0 * 102.0_f32.powf(1.5))).abs() < 1e-6, "{whole}");
    // The same line, which now continues across the border: nothing of it is left.
    (0..19).for_each(|x| draw(&mut edges, x, 12, 0.0));
    let groups = Groups::new(&edges, 2.0);
    assert_eq!(Scorer::new(&groups, 1.5).score(window, 0.0), None);
    // A crossing line next to it, which continues nothing, removes nothing.
    (0..60).for_each(|y| draw(&mut edges, 5, y, FRAC_PI_2));
    (0..19).for_each(|x| edges.magnitude[12 * 100 + x] = 0.0);
    let groups = Groups::new(&edges, 2.0);
    assert_eq!(Scorer::new(&groups, 1.5).score(window, 0.0), Some(whole));
}

/// The score by the formulas of section 3.2, without tables or lists.
fn plain_score(groups: &Groups, window: ScoredWindow, gamma: f32, kappa: f32) -> f64 {
    let ScoredWindow { x0, y0, x1, y1 } = window;
    let pixels = |f: &mut dyn FnMut(usize, usize, usize)| {
        (0..groups.height)
            .for_each(|y| (0..groups.width).for_each(|x| f(x, y, groups.ids[y * groups.width + x] as usize)))
    };
    let count = groups.groups.len();
    // Groups with a pixel on the border.
    let mut best = vec![0.0_f32; count];
    pixels(&mut |x, y, id| {
        let inside = (x0..x1).contains(&x) && (y0..y1).contains(&y);
        if inside && (x == x0 || x == x1 - 1 || y == y0 || y == y1 - 1) {
            best[id] = 1.0;
        }
    });
    best[NONE as usize] = 0.0;
    let inside = |id: usize| {
        let Group { x, y, .. } = groups.groups[id];
        (x0..x1).contains(&usize::from(x)) && (y0..y1).contains(&usize::from(y))
    };
    // Affinity of all pairs that come within 2 pixels of each other.
    let mut pairs = vec![0.0_f32; count * count];
    pixels(&mut |x, y, a| {
        pixels(&mut |u, v, b| {
            if a != 0 && b != 0 && a != b && x.abs_diff(u) <= 2 && y.abs_diff(v) <= 2 {
                let found = affinity(&groups.groups[a.min(b)], &groups.groups[a.max(b)], gamma);
                pairs[a * count + b] = if found < LEAST_AFFINITY { 0.0 } else { found };
            }
        })
    });
    // The best path of any length (Bellman-Ford).
    for _ in 0..count {
        for a in 1..count {
            for b in (1..count).filter(|&b| inside(b)) {
                let product = best[a] * pairs[a * count + b];
                if product >= LEAST_AFFINITY && product > best[b] {
                    best[b] = product;
                }
            }
        }
    }
    let kept: f64 =
        (1..count).filter(|&id| inside(id)).map(|id| f64::from((1.0 - best[id]) * groups.groups[id].magnitude)).sum();
    let (w, h) = (x1 - x0, y1 - y0);
    let (mx, my) = (x0 + w / 4, y0 + h / 4);
    let mut middle = 0.0;
    pixels(&mut |x, y, _| {
        if (mx..mx + w / 2).contains(&x) && (my..my + h / 2).contains(&y) {
            middle += f64::from(groups.magnitude[y * groups.width + x]);
        }
    });
    (kept - middle) / (2.0 * ((w + h) as f64).powf(f64::from(kappa)))
}

/// An edge map of short random strokes.
fn random_edges(seed: u64, height: usize, width: usize) -> Edges {
    let mut rng = Rng::new(seed, 0);
    let mut edges = blank(height, width);
    for _ in 0..height * width / 12 + 1 {
        let (mut x, mut y) = (rng.range(0.0, width as f32), rng.range(0.0, height as f32));
        let mut angle = rng.range(0.0, PI);
        let bend = rng.range(-0.2, 0.2);
        for _ in 0..2 + rng.below(9) {
            if x < 0.0 || y < 0.0 || x >= width as f32 || y >= height as f32 {
                break;
            }
            let at = y as usize * width + x as usize;
            edges.orientation[at] = angle.rem_euclid(PI).min(PI - 1e-5);
            edges.magnitude[at] = rng.range(0.05, 1.0);
            angle += bend;
            (x, y) = (x + angle.cos(), y + angle.sin());
        }
    }
    edges
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_fast_score_is_the_paper_s(
        seed: u64, height in 1..26_usize, width in 1..26_usize, gamma in 0.5_f32..3.0, kappa in 0.5_f32..2.0,
    ) {
        let groups = Groups::new(&random_edges(seed, height, width), gamma);
        let mut scorer = Scorer::new(&groups, kappa);
        let mut rng = Rng::new(seed, 1);
        for _ in 0..12 {
            let (x0, y0) = (rng.below(width), rng.below(height));
            let (x1, y1) = (x0 + 1 + rng.below(width - x0), y0 + 1 + rng.below(height - y0));
            let window = ScoredWindow { x0, y0, x1, y1 };
            let expected = plain_score(&groups, window, gamma, kappa);
            // State left by one box must not affect the next.
            let tolerance = 1e-5 * (1.0 + expected.abs());
            match scorer.score(window, 0.0) {
                Some(found) => {
                    let error = (f64::from(found) - expected).abs();
                    prop_assert!(error < tolerance, "{window:?}: {found} for {expected}");
                }
                None => prop_assert!(expected < tolerance, "{window:?}: none for {expected}"),
            }
            let floor = 0.9 * expected as f32;
            prop_assert!(expected < tolerance || scorer.score(window, floor).is_some());
            prop_assert_eq!(scorer.score(window, 1.1 * expected.max(0.0) as f32 + 1e-4), None);
        }
    }

    #[test]
    fn any_photo_has_windows_inside_it_or_none(seed: u64, height in 1..70_usize, width in 1..70_usize, wild: bool) {
        let mut rng = Rng::new(seed, 2);
        let photo = Photo::from_fn(width, height, |_, _| [rng.word() as u8; 3]);
        let config = if wild { EdgeBoxes { floor: 0.0, ..EdgeBoxes::default() } } else { EdgeBoxes::faces() };
        let windows = config.windows(&photo).unwrap();
        prop_assert!(windows.len() <= config.count);
        prop_assert!(windows.is_sorted_by(|a, b| a.1 >= b.1));
        for (rect, _) in windows {
            prop_assert!(rect.x >= 0.0 && rect.y >= 0.0 && rect.area() > 0.0);
            prop_assert!(rect.x + rect.width <= width as f32 + 1e-3 && rect.y + rect.height <= height as f32 + 1e-3);
        }
    }
}

#[test]
fn a_photo_without_edges_has_no_window() {
    for (width, height) in [(1, 1), (1, 900), (40, 40), (300, 200), (1200, 3)] {
        let photo = Photo::from_fn(width, height, |_, _| [90, 20, 200]);
        assert_eq!(EdgeBoxes::default().windows(&photo).unwrap(), [], "{width} x {height}");
    }
}

#[test]
fn windows_are_the_same_every_time_and_in_the_pixels_of_a_large_photo() {
    let photo = ellipse(1500, 1000, (900.0, 500.0), (150.0, 180.0));
    let found = EdgeBoxes::faces().windows(&photo).unwrap();
    assert_eq!(found, EdgeBoxes::faces().windows(&photo).unwrap());
    let truth = Rect::new(750.0, 320.0, 300.0, 360.0);
    assert!(found[0].0.iou(&truth) > 0.8, "{:?}", found[0]);
}

#[test]
fn drawn_faces_are_found_more_often_than_by_a_grid_of_as_many_windows() {
    const PHOTOS: usize = 24;
    const COUNT: usize = 50;
    let drawn = synth::Config {
        images: PHOTOS,
        width: (200, 260),
        height: (200, 260),
        face: (0.25, 0.55),
        seed: 3,
        ..Default::default()
    };
    let config = EdgeBoxes { count: COUNT, ..EdgeBoxes::faces() };
    let (mut edge_boxes, mut plain) = (0, 0);
    for index in 0..PHOTOS {
        let face = synth::render(&drawn, index);
        let (height, width) = (face.photo.height, face.photo.width);
        let found = |rects: &[Rect]| usize::from(rects.iter().any(|rect| rect.iou(&face.bbox) >= 0.5));
        let windows: Vec<Rect> = config.windows(&face.photo).unwrap().into_iter().map(|w| w.0).collect();
        edge_boxes += found(&windows);
        plain += found(&grid(height, width, config.size, COUNT));
    }
    assert!(edge_boxes > plain && 4 * edge_boxes >= 3 * PHOTOS, "{edge_boxes} and {plain} of {PHOTOS} (seed 3)");
}

#[test]
fn a_grid_has_as_many_windows_as_asked_for_or_few_less_all_inside() {
    for (width, height, count) in [(500, 400, 500), (400, 500, 100), (500, 375, 50), (90, 500, 200)] {
        let windows = grid(height, width, [0.1, 0.6], count);
        assert!(windows.len() <= count && windows.len() * 10 >= count * 7, "{} of {count}", windows.len());
        for rect in windows {
            assert!(rect.x >= -1e-3 && rect.x + rect.width <= width as f32 + 1e-2, "{rect:?} in {width} x {height}");
            assert!(rect.y >= -1e-3 && rect.y + rect.height <= height as f32 + 1e-2, "{rect:?} in {width} x {height}");
        }
    }
    assert!(grid(1, 1, [0.1, 0.6], 10).len() <= 10);
}

#[test]
fn parameters_out_of_bounds_and_unknown_ones_are_named() {
    let error = |text: &str| {
        let config = toml::from_str::<EdgeBoxes>(text).map_err(|e| e.message().to_string());
        config.and_then(|config| config.check().map_err(|e| e.to_string())).unwrap_err()
    };
    assert!(error("alpha = 1.0").contains("alpha: is out of bounds; choose 0.3 to 0.95"));
    assert!(error("size = [0.5, 0.1]").contains("size"));
    assert!(error("count = 0").contains("count") && error("refined = 4294967296").contains("refined"));
    assert!(error("kapa = 1.0").contains("kapa"));
    assert!(error("edges = { softness = nan }").contains("edges.softness"));
    assert_eq!(toml::from_str::<EdgeBoxes>("count = 7").unwrap(), EdgeBoxes { count: 7, ..EdgeBoxes::default() });
    EdgeBoxes::faces().check().unwrap();
}

//! Quality against throughput, as SVG: a point with its interval for each job, a level for each system
//! without a rate.

use std::ops::Range;
use std::path::Path;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::system::EvaluatedSystem;
use super::table::Report;

const SIZE_PIXELS: (u32, u32) = (800, 520);
/// Room around the points, as a share of their range.
const MARGIN: f64 = 0.15;

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type DrawError = DrawingAreaErrorKind<std::io::Error>;

/// Draws the first metric of each system against its records per second.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(path: &Path, report: &Report<'_>) -> Result<(), DrawError> {
    let area = SVGBackend::new(path, SIZE_PIXELS).into_drawing_area();
    area.fill(&WHITE)?;
    let metric = report.evaluation.metrics[0].name();
    let fastest = report.systems.iter().filter_map(records_per_second).fold(0.0, f64::max);
    let speeds = 0.0..if fastest > 0.0 { fastest * (1.0 + 2.0 * MARGIN) } else { 1.0 };
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .caption(format!("{metric} on {}", report.test.display()), ("sans-serif", 18))
        .build_cartesian_2d(speeds.clone(), score_range(report.systems))?;
    chart
        .configure_mesh()
        .x_desc("records per second")
        .y_desc(metric)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, system) in report.systems.iter().enumerate() {
        draw_system(&mut chart, system, Palette99::pick(index).to_rgba(), speeds.end)?;
    }
    area.present()
}

fn draw_system(
    chart: &mut Chart<'_>,
    system: &EvaluatedSystem,
    colour: RGBAColor,
    right: f64,
) -> Result<(), DrawError> {
    let score = &system.scores.scores[0];
    let label =
        |horizontal| ("sans-serif", 14).into_font().color(&BLACK).pos(Pos::new(horizontal, VPos::Bottom));
    match records_per_second(system) {
        Some(speed) => {
            let (low, high) = ((speed, score.interval.low), (speed, score.interval.high));
            chart.draw_series([PathElement::new(vec![low, high], colour.stroke_width(2))])?;
            chart.draw_series([Circle::new((speed, score.score), 5, colour.filled())])?;
            let text = EmptyElement::at((speed, score.score))
                + Text::new(system.name.clone(), (8, -6), label(HPos::Left));
            chart.draw_series([text])?;
        }
        None => {
            let level = vec![(0.0, score.score), (right, score.score)];
            chart.draw_series([PathElement::new(level, colour.stroke_width(1))])?;
            let text = EmptyElement::at((right, score.score))
                + Text::new(system.name.clone(), (-8, -4), label(HPos::Right));
            chart.draw_series([text])?;
        }
    }
    Ok(())
}

fn records_per_second(system: &EvaluatedSystem) -> Option<f64> {
    system.rates.map(|rates| rates.records_per_second)
}

/// From somewhat below the lowest interval to somewhat above the highest.
fn score_range(systems: &[EvaluatedSystem]) -> Range<f64> {
    let intervals = || systems.iter().map(|system| system.scores.scores[0].interval);
    let low = intervals().map(|interval| interval.low).fold(f64::INFINITY, f64::min);
    let high = intervals().map(|interval| interval.high).fold(f64::NEG_INFINITY, f64::max);
    let margin = ((high - low) * MARGIN).max(0.5);
    (low - margin).max(0.0)..(high + margin).min(100.0)
}

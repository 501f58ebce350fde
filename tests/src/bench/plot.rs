//! Lines over a number, as SVG.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::{
    ChartBuilder, Circle, Color, IntoDrawingArea, LineSeries, PathElement, RGBColor, SVGBackend, SeriesLabelPosition,
    WHITE,
};

/// Width and height, pixels.
const SIZE: (u32, u32) = (760, 380);
/// Of the lines, in the order of their names.
const COLOURS: [RGBColor; 4] =
    [RGBColor(214, 93, 14), RGBColor(38, 110, 180), RGBColor(30, 140, 90), RGBColor(120, 80, 160)];
/// Space above the highest point, as a factor.
const HEADROOM: f64 = 1.1;

/// Points of each line by its name.
pub(super) type Lines = BTreeMap<String, Vec<(f64, f64)>>;

/// What is drawn.
pub(super) struct Plot<'a> {
    /// Above it.
    pub(super) title: &'a str,
    /// Across.
    pub(super) x: &'a str,
    /// Up; from 0.
    pub(super) y: &'a str,
    /// The lines.
    pub(super) lines: Lines,
}

impl Plot<'_> {
    /// Draws into a file.
    ///
    /// # Errors
    /// There is nothing to draw, or the file cannot be written.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let points = || self.lines.values().flatten();
        let (right, top) = points().fold((0.0, 0.0), |(x, y): (f64, f64), p| (x.max(p.0), y.max(p.1)));
        if right <= 0.0 || top <= 0.0 {
            return Err(anyhow!("nothing to draw"));
        }
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..right * 1.02, 0.0..top * HEADROOM)?;
        chart.configure_mesh().x_desc(self.x).y_desc(self.y).y_label_formatter(&|y| thousands(*y)).draw()?;
        for ((name, line), colour) in self.lines.iter().zip(COLOURS.iter().cycle().copied()) {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.iter().copied(), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            chart.draw_series(line.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// A number as it is read: `81 k`, `2.5`, `300`.
fn thousands(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.0} k", value / 1000.0)
    } else if value >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_line_and_a_name_for_each_server() {
        let path = std::env::temp_dir().join(format!("meridian-plot-test-{}.svg", std::process::id()));
        let line = |factor: f64| vec![(10.0, factor * 10_000.0), (100.0, factor * 12_000.0)];
        let lines = Lines::from([("Janus".to_owned(), line(1.0)), ("Meridian".to_owned(), line(5.0))]);
        Plot { title: "t", x: "subscribers", y: "packets", lines }.save(&path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(svg.contains("Janus") && svg.contains("Meridian"));
        assert!(svg.matches("<polyline").count() >= 2 && svg.matches("<circle").count() >= 4, "{svg}");
    }

    #[test]
    fn nothing_is_no_plot() {
        let plot = Plot { title: "t", x: "x", y: "y", lines: Lines::new() };
        assert!(plot.save(Path::new("/nowhere/plot.svg")).is_err());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([81_234.0, 300.0, 2.54, 0.0].map(thousands), ["81 k", "300", "2.5", "0"]);
    }
}

//! Figures of several runs: medians, spread, and how far they are from what is asked. Pure.

use std::fmt::Write as _;

use serde::Serialize;

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// Nothing.
    None,
    /// At least so much: what is required, and the goal.
    AtLeast(f64, f64),
    /// At most so much: what is required, and the goal.
    AtMost(f64, f64),
}

/// One figure in all runs.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// What it is held against, in each run: a bar may follow from what the machine did in that run.
    pub bars: Vec<Bar>,
    /// One for each run.
    pub values: Vec<f64>,
}

/// Median and spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number the greater of the two.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let median = *values.get(values.len() / 2)?;
    Some(Spread { median, least: *values.first()?, greatest: *values.last()? })
}

impl Figure {
    /// None before the first run.
    pub fn spread(&self) -> Option<Spread> {
        spread(self.values.iter().copied())
    }

    /// The median of what it is held against.
    pub fn bar(&self) -> Bar {
        let both = |bar: &Bar| match *bar {
            Bar::None => None,
            Bar::AtLeast(required, goal) | Bar::AtMost(required, goal) => Some((required, goal)),
        };
        let required = spread(self.bars.iter().filter_map(both).map(|(required, _)| required));
        let goal = spread(self.bars.iter().filter_map(both).map(|(_, goal)| goal));
        match (self.bars.first(), required, goal) {
            (Some(Bar::AtLeast(..)), Some(required), Some(goal)) => {
                Bar::AtLeast(required.median, goal.median)
            }
            (Some(Bar::AtMost(..)), Some(required), Some(goal)) => {
                Bar::AtMost(required.median, goal.median)
            }
            _ => Bar::None,
        }
    }

    /// How the median stands to the bar: `goal`, `required` or `below`; empty without one.
    pub fn verdict(&self) -> &'static str {
        let Some(Spread { median, .. }) = self.spread() else { return "" };
        let (is_goal, is_required) = match self.bar() {
            Bar::None => return "",
            Bar::AtLeast(required, goal) => (median >= goal, median >= required),
            Bar::AtMost(required, goal) => (median <= goal, median <= required),
        };
        match (is_goal, is_required) {
            (true, _) => "goal",
            (false, true) => "required",
            (false, false) => "below",
        }
    }
}

/// All figures, in the order in which they were first measured.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds the value of one run.
    pub fn add(&mut self, name: &str, unit: &'static str, bar: Bar, value: f64) {
        if let Some(figure) = self.0.iter_mut().find(|figure| figure.name == name) {
            figure.bars.push(bar);
            figure.values.push(value);
        } else {
            let (bars, values) = (vec![bar], vec![value]);
            self.0.push(Figure { name: name.to_owned(), unit, bars, values });
        }
    }

    /// A table in Markdown.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| figure | median | spread | required | goal | reached |\n|---|---|---|---|---|---|\n",
        );
        for figure in &self.0 {
            let Some(spread) = figure.spread() else { continue };
            let (required, goal) = match figure.bar() {
                Bar::None => (String::new(), String::new()),
                Bar::AtLeast(required, goal) | Bar::AtMost(required, goal) => {
                    (rounded(required), rounded(goal))
                }
            };
            let (median, unit) = (rounded(spread.median), figure.unit);
            let (least, greatest) = (rounded(spread.least), rounded(spread.greatest));
            let (name, verdict) = (&figure.name, figure.verdict());
            writeln!(
                table,
                "| {name} | {median} {unit} | {least}-{greatest} | {required} | {goal} | {verdict} |"
            )
            .expect("a string takes all");
        }
        table
    }
}

/// Three figures that say something.
pub fn rounded(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_runs_and_not_of_their_order() {
        let mut figures = Figures::default();
        for value in [3.0, 1.0, 2.0, 9.0, 2.5] {
            figures.add("a", "ms", Bar::AtMost(2.6, 2.0), value);
            figures.add("b", "MB/s", Bar::AtLeast(2.6, 3.0), value);
        }
        let spread = figures.0[0].spread().unwrap();
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, greatest: 9.0 });
        assert_eq!(figures.0[0].verdict(), "required");
        assert_eq!(figures.0[1].verdict(), "below");
        assert!(figures.table().contains("| a | 2.50 ms | 1.00-9.00 | 2.60 | 2.00 | required |"));
    }

    #[test]
    fn what_reaches_the_goal_says_so_from_both_sides() {
        for (bar, value) in [(Bar::AtLeast(1.0, 2.0), 2.0), (Bar::AtMost(2.0, 1.0), 1.0)] {
            let (bars, values) = (vec![bar], vec![value]);
            let figure = Figure { name: "x".to_owned(), unit: "", bars, values };
            assert_eq!(figure.verdict(), "goal");
        }
    }

    #[test]
    fn a_bar_is_the_median_of_those_of_the_runs() {
        let mut figures = Figures::default();
        for required in [1.0, 9.0, 4.0] {
            figures.add("a", "", Bar::AtLeast(required, 10.0 + required), 5.0);
            figures.add("b", "", Bar::None, 5.0);
        }
        assert_eq!(figures.0[0].bar(), Bar::AtLeast(4.0, 14.0));
        assert_eq!(figures.0[0].verdict(), "required");
        assert_eq!((figures.0[1].bar(), figures.0[1].verdict()), (Bar::None, ""));
    }

    #[test]
    fn a_figure_keeps_three_digits_that_say_something() {
        let shown: Vec<_> = [0.1234, 1.234, 12.34, 123.4, 0.0].map(rounded).into();
        assert_eq!(shown, ["0.123", "1.23", "12.3", "123", "0"]);
    }
}

//! `ci/thresholds.toml`: what a gate promises, what it allows, and what it forgives for a while.
//!
//! Every name is checked: a typo in a threshold must not let a regression pass. So the file is
//! walked by hand, with the line of each value, instead of being deserialised.
//!
//! ```toml
//! [gate]
//! max_slowdown = "5%"        # what must not pass
//! layout_floor = "1%"        # what relinking the same code explains
//! budget = "4m"
//! suite = ["larson", "xmalloc"]
//!
//! [limits]                   # deterministic metrics: base + the larger of the two
//! instructions = { share = "1%" }
//! minor_faults = { share = "5%", count = 16 }
//!
//! [cell.larson-2t]           # one cell's own margin
//! max_slowdown = "8%"
//!
//! [[quarantine]]             # measured and shown, but not counted, until the day is over
//! cell = "xmalloc-2t"
//! until = "2027-01-31"
//! reason = "bimodal since the segment cache"
//! ```

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::date::Date;
use super::metric::{Limit, Metric};
use super::{quantity, suite};
use crate::error::{CliError, Exit};
use crate::suggest;
use crate::verdict::rules::{Rules, RulesError};

/// A cell whose verdict does not count for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The cell's name.
    pub cell: String,
    /// The last day on which it does not count.
    pub until: Date,
    /// Why.
    pub reason: String,
}

/// What a threshold file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Where it was read; `None`: built in.
    pub path: Option<PathBuf>,
    /// The rules of every cell without its own.
    pub rules: Rules,
    /// How long a gate may take.
    pub budget: Duration,
    /// Workloads to run; empty: the default suite.
    pub suite: Vec<String>,
    /// Limits of deterministic metrics.
    pub limits: BTreeMap<Metric, Limit>,
    /// Cells with a margin of their own.
    pub margins: BTreeMap<String, f64>,
    /// Cells that are forgiven for a while.
    pub quarantine: Vec<Quarantine>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            path: None,
            rules: Rules::default(),
            budget: Duration::from_secs(600),
            suite: Vec::new(),
            limits: Metric::ALL.into_iter().map(|m| (m, m.default_limit())).collect(),
            margins: BTreeMap::new(),
            quarantine: Vec::new(),
        }
    }
}

impl Thresholds {
    /// Reads a threshold file.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, or holds an unknown name or an impossible value.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = fs::read_to_string(path).map_err(|error| {
            CliError::new(Exit::Usage, format!("cannot read thresholds `{}`", path.display()))
                .because(error)
                .help("name an existing file with --config, or leave it out for the built-in rules")
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a threshold file; `path` is for messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, path: &Path) -> Result<Self, CliError> {
        let reader = Reader { text, path };
        let table = DeTable::parse(text).map_err(|error| {
            reader.error(&error.span().unwrap_or(0..0), error.message().to_owned())
        })?;
        let mut read = Thresholds { path: Some(path.to_owned()), ..Thresholds::default() };
        let mut cells = None;
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "gate" => reader.gate(value, &mut read)?,
                "limits" => reader.limits(value, &mut read)?,
                "cell" => cells = Some(value),
                "quarantine" => reader.quarantine(value, &mut read)?,
                _ => return Err(reader.unknown(key, "section", &SECTIONS)),
            }
        }
        read.rules.check().map_err(|error| reader.error(&(0..0), error.to_string()))?;
        // Last, whatever the order of the file: a cell's margin must suit the floor of [gate].
        if let Some(cells) = cells {
            reader.cells(cells, &mut read)?;
        }
        Ok(read)
    }

    /// Tests the rules of every cell: what was read may have been given another margin or floor.
    ///
    /// # Errors
    /// Which number contradicts which, and in which cell.
    pub fn check(&self) -> Result<(), RulesError> {
        self.rules.check()?;
        for cell in self.margins.keys() {
            let of_cell = |error| RulesError(format!("[cell.{cell}]: {error}"));
            self.rules_of(cell).check().map_err(of_cell)?;
        }
        Ok(())
    }

    /// The rules of one cell.
    #[must_use]
    pub fn rules_of(&self, cell: &str) -> Rules {
        self.margins.get(cell).map_or(self.rules, |margin| self.rules.with_margin(*margin))
    }

    /// The quarantine in which `cell` is today.
    #[must_use]
    pub fn quarantine_of(&self, cell: &str, today: Date) -> Option<&Quarantine> {
        self.quarantine.iter().find(|q| q.cell == cell && today <= q.until)
    }

    /// Refuses thresholds for cells that are neither at hand nor of a known workload.
    ///
    /// # Errors
    /// The first unknown name, with near ones.
    pub fn check_cells(&self, at_hand: &[String], workloads: &[String]) -> Result<(), CliError> {
        let named = self.margins.keys().chain(self.quarantine.iter().map(|q| &q.cell));
        for name in named {
            let workload = suite::workload_of(name);
            if at_hand.contains(name) || workloads.iter().any(|known| known == workload) {
                continue;
            }
            let place = self.path.as_deref().unwrap_or(Path::new("thresholds"));
            let near = at_hand.iter().chain(workloads).map(String::as_str);
            return Err(CliError::new(
                Exit::Usage,
                format!("{}: there is no cell `{name}`", place.display()),
            )
            .because("a threshold for a cell that does not exist would never be applied")
            .help(suggest::help(name, near, "bench-cli list workloads")));
        }
        Ok(())
    }
}

const SECTIONS: [&str; 4] = ["gate", "limits", "cell", "quarantine"];

/// Walks one file and knows where it is.
struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn gate(&self, value: &Value<'_>, read: &mut Thresholds) -> Result<(), CliError> {
        const KEYS: [&str; 4] = ["max_slowdown", "layout_floor", "budget", "suite"];
        let mut floor = None;
        for (key, value) in self.table(value)? {
            match key.get_ref().as_ref() {
                "max_slowdown" => {
                    read.rules = read.rules.with_margin(self.parsed(value, quantity::share)?);
                }
                "layout_floor" => floor = Some(self.parsed(value, quantity::share)?),
                "budget" => read.budget = self.parsed(value, quantity::duration)?,
                "suite" => read.suite = self.names(value)?,
                _ => return Err(self.unknown(key, "setting of [gate]", &KEYS)),
            }
        }
        if let Some(floor) = floor {
            read.rules.layout_floor = floor;
        }
        Ok(())
    }

    fn limits(&self, value: &Value<'_>, read: &mut Thresholds) -> Result<(), CliError> {
        for (key, value) in self.table(value)? {
            let Some(metric) = Metric::of_name(key.get_ref()) else {
                return Err(self.unknown(key, "metric", &Metric::ALL.map(Metric::name)));
            };
            let mut limit = Limit { share: 0.0, absolute: 0 };
            for (key, value) in self.table(value)? {
                match key.get_ref().as_ref() {
                    "share" => limit.share = self.parsed(value, quantity::share)?,
                    "bytes" if metric.is_bytes() => {
                        limit.absolute = self.parsed(value, quantity::bytes)?;
                    }
                    "count" if !metric.is_bytes() => limit.absolute = self.whole(value)?,
                    _ => {
                        let absolute = if metric.is_bytes() { "bytes" } else { "count" };
                        let what = format!("part of the limit of `{}`", metric.name());
                        return Err(self.unknown(key, &what, &["share", absolute]));
                    }
                }
            }
            read.limits.insert(metric, limit);
        }
        Ok(())
    }

    fn cells(&self, value: &Value<'_>, read: &mut Thresholds) -> Result<(), CliError> {
        for (name, value) in self.table(value)? {
            for (key, value) in self.table(value)? {
                if key.get_ref() != "max_slowdown" {
                    return Err(self.unknown(key, "setting of a cell", &["max_slowdown"]));
                }
                let margin = self.parsed(value, quantity::share)?;
                let rules = read.rules.with_margin(margin);
                rules.check().map_err(|e| self.error(&value.span(), e.to_string()))?;
                read.margins.insert(name.get_ref().to_string(), margin);
            }
        }
        Ok(())
    }

    fn quarantine(&self, value: &Value<'_>, read: &mut Thresholds) -> Result<(), CliError> {
        let DeValue::Array(entries) = value.get_ref() else {
            return Err(self.error(&value.span(), "write quarantines as [[quarantine]]".to_owned()));
        };
        for entry in entries {
            let (mut cell, mut until, mut reason) = (None, None, None);
            for (key, value) in self.table(entry)? {
                match key.get_ref().as_ref() {
                    "cell" => cell = Some(self.string(value)?.to_owned()),
                    "until" => until = Some(self.date(value)?),
                    "reason" => reason = Some(self.string(value)?.to_owned()),
                    _ => {
                        let known = ["cell", "until", "reason"];
                        return Err(self.unknown(key, "part of a quarantine", &known));
                    }
                }
            }
            let (Some(cell), Some(until), Some(reason)) = (cell, until, reason) else {
                let what = "a quarantine needs `cell`, `until` and `reason`".to_owned();
                return Err(self.error(&entry.span(), what));
            };
            read.quarantine.push(Quarantine { cell, until, reason });
        }
        Ok(())
    }

    fn table<'v, 'i>(&self, value: &'v Value<'i>) -> Result<&'v DeTable<'i>, CliError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.error(&value.span(), "a table is expected here".to_owned())),
        }
    }

    fn string<'v>(&self, value: &'v Value<'_>) -> Result<&'v str, CliError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.error(&value.span(), "text in quotes is expected here".to_owned())),
        }
    }

    fn whole(&self, value: &Value<'_>) -> Result<u64, CliError> {
        match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
        .ok_or_else(|| self.error(&value.span(), "a whole number is expected here".to_owned()))
    }

    fn names(&self, value: &Value<'_>) -> Result<Vec<String>, CliError> {
        let DeValue::Array(entries) = value.get_ref() else {
            return Err(self.error(&value.span(), "a list of names is expected here".to_owned()));
        };
        entries.iter().map(|entry| self.string(entry).map(str::to_owned)).collect()
    }

    /// A day, quoted or as TOML's own date.
    fn date(&self, value: &Value<'_>) -> Result<Date, CliError> {
        let text = match value.get_ref() {
            DeValue::Datetime(date) => date.to_string(),
            _ => self.string(value)?.to_owned(),
        };
        let mut parts = text.splitn(3, '-').map(str::parse::<u16>);
        let mut next = || parts.next().and_then(Result::ok);
        let date = next().zip(next()).zip(next()).and_then(|((year, month), day)| {
            Date::new(year.into(), u8::try_from(month).ok()?, u8::try_from(day).ok()?)
        });
        date.ok_or_else(|| {
            self.error(&value.span(), format!("`{text}` is no day, as in `2027-01-31`"))
        })
    }

    fn parsed<T>(
        &self,
        value: &Value<'_>,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<T, CliError> {
        parse(self.string(value)?).map_err(|what| self.error(&value.span(), what))
    }

    fn unknown(
        &self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        what: &str,
        known: &[&str],
    ) -> CliError {
        let name = key.get_ref();
        let mut error = self.error(&key.span(), format!("there is no {what} `{name}`"));
        error.because.push("a name that is not understood would silently check nothing".to_owned());
        let list = format!("known: {}", known.join(", "));
        let near = suggest::help(name, known.iter().copied(), "bench-cli gate --explain");
        error.help(if near.starts_with("did you mean") { near } else { list })
    }

    fn error(&self, span: &Range<usize>, what: String) -> CliError {
        let line = 1 + self.text.as_bytes()[..span.start.min(self.text.len())]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        CliError::new(Exit::Usage, format!("{}:{line}: {what}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Thresholds, String> {
        Thresholds::parse(text, Path::new("t.toml")).map_err(|error| {
            assert_eq!(error.exit, Exit::Usage);
            error.to_string()
        })
    }

    #[test]
    fn an_empty_file_means_the_built_in_rules() {
        let read = parse("").unwrap();
        assert_eq!(read, Thresholds { path: read.path.clone(), ..Thresholds::default() });
    }

    #[test]
    fn the_thresholds_of_this_repository_are_sound() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/thresholds.toml");
        let read = Thresholds::read(&path).unwrap();
        assert_eq!(read.suite, suite::DEFAULT);
        read.check_cells(&[], &suite::workloads()).unwrap();
    }

    #[test]
    fn every_setting_is_applied() {
        let read = parse(
            r#"
            [gate]
            max_slowdown = "8%"
            layout_floor = "0.5%"
            budget = "4m"
            suite = ["larson", "xmalloc"]
            [limits]
            instructions = { share = "2%" }
            peak_rss_bytes = { share = "3%", bytes = "1 MiB" }
            [cell.larson-2t]
            max_slowdown = "10%"
            [[quarantine]]
            cell = "xmalloc-2t"
            until = 2027-01-31
            reason = "bimodal"
            "#,
        )
        .unwrap();
        assert_eq!((read.rules.margin, read.rules.least_estimate), (0.08, 0.04));
        assert_eq!(read.rules.layout_floor, 0.005);
        assert_eq!(read.budget, Duration::from_secs(240));
        assert_eq!(read.suite, ["larson", "xmalloc"]);
        assert_eq!(read.limits[&Metric::Instructions], Limit { share: 0.02, absolute: 0 });
        assert_eq!(read.limits[&Metric::PeakRssBytes], Limit { share: 0.03, absolute: 1 << 20 });
        assert_eq!(read.rules_of("larson-2t").margin, 0.10);
        assert_eq!(read.rules_of("other").margin, 0.08);
    }

    #[test]
    fn a_misspelt_name_is_refused_with_its_line_and_the_near_name() {
        let error = parse("[gate]\n\nmax_slowdwon = \"5%\"\n").unwrap_err();
        assert!(
            error.contains("t.toml:3: there is no setting of [gate] `max_slowdwon`"),
            "{error}"
        );
        assert!(error.contains("did you mean `max_slowdown`"), "{error}");
        let error = parse("[limits]\ninstruction = { share = \"1%\" }").unwrap_err();
        assert!(error.contains("did you mean `instructions`"), "{error}");
        for text in [
            "[gaet]",
            "[limits]\ninstructions = { shard = \"1%\" }",
            "[limits]\ninstructions = { bytes = \"1 KiB\" }",
            "[cell.a]\nmax = \"1%\"",
            "[[quarantine]]\ncells = \"a\"",
        ] {
            assert!(parse(text).unwrap_err().contains("there is no"), "{text}");
        }
    }

    #[test]
    fn an_impossible_value_is_refused_with_its_line() {
        for (text, message) in [
            ("[gate]\nmax_slowdown = 5", "t.toml:2: text in quotes is expected"),
            ("[gate]\nmax_slowdown = \"5\"", "t.toml:2: `5` is no share"),
            ("[gate]\nmax_slowdown = \"200%\"", "not between 0 and 100 %"),
            ("[gate]\nlayout_floor = \"4%\"", "leaves no room"),
            ("[cell.a]\nmax_slowdown = \"1%\"", "t.toml:2: a layout floor of 1.0 %"),
            ("[gate]\nsuite = \"larson\"", "t.toml:2: a list of names"),
            ("[limits]\nminor_faults = { count = -1 }", "t.toml:2: a whole number"),
            ("[gate", "t.toml:1:"),
            (
                "[[quarantine]]\ncell = \"a\"\nuntil = \"2027-02-30\"\nreason = \"\"",
                "t.toml:3: `2027-02-30` is no day",
            ),
            ("[[quarantine]]\ncell = \"a\"", "t.toml:1: a quarantine needs"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_cells_margin_is_held_against_the_floor_of_the_file_wherever_that_stands() {
        let cell = "[cell.a]\nmax_slowdown = \"2%\"\n";
        let gate =
            |floor: &str| format!("[gate]\nmax_slowdown = \"8%\"\nlayout_floor = \"{floor}\"\n");
        for text in [cell.to_owned() + &gate("0.5%"), gate("0.5%") + cell] {
            assert_eq!(parse(&text).unwrap().rules_of("a").margin, 0.02);
        }
        for text in [cell.to_owned() + &gate("3%"), gate("3%") + cell] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains("a layout floor of 3.0 % leaves no room"), "{error}");
        }
    }

    #[test]
    fn a_floor_that_is_raised_later_is_held_against_every_cell() {
        let mut read = parse("[cell.a]\nmax_slowdown = \"4%\"").unwrap();
        read.check().unwrap();
        read.rules = read.rules.with_layout_floor(0.022);
        assert_eq!(read.rules.check(), Ok(()));
        let error = read.check().unwrap_err().to_string();
        assert!(error.starts_with("[cell.a]: a layout floor of 2.2 % leaves no room"), "{error}");
    }

    #[test]
    fn a_quarantine_ends_after_its_last_day() {
        let read =
            parse("[[quarantine]]\ncell = \"a\"\nuntil = \"2027-01-31\"\nreason = \"noise\"")
                .unwrap();
        let day = |month, day| Date::new(2027, month, day).unwrap();
        assert!(read.quarantine_of("a", day(1, 31)).is_some());
        assert!(read.quarantine_of("a", day(2, 1)).is_none());
        assert!(read.quarantine_of("b", day(1, 1)).is_none());
    }

    #[test]
    fn a_threshold_for_a_cell_that_does_not_exist_is_refused() {
        let read = parse("[cell.larsen-2t]\nmax_slowdown = \"8%\"").unwrap();
        let hand = |name: &str| vec![name.to_owned()];
        let error = read.check_cells(&hand("larson-2t"), &[]).unwrap_err().to_string();
        assert!(error.contains("there is no cell `larsen-2t`"), "{error}");
        assert!(error.contains("did you mean `larson-2t`"), "{error}");
        assert!(read.check_cells(&hand("larsen-2t"), &[]).is_ok());
        assert!(read.check_cells(&hand("xmalloc-2t"), &hand("larsen")).is_ok());
    }
}

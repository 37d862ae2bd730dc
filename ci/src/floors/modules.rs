//! The floors of modules inside one crate, read from its source.
//!
//! A module is what stands directly below the crate's root: `os/linux.rs` belongs to `os`. What
//! counts is every path that starts at `crate` or climbs with `super`, in an import or in code,
//! because `crate::heap::f()` needs no import to reach upwards. `lib.rs` is the roof and may name
//! anything; code that only tests see may too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::lexer::{self, Kind, Token};
use crate::{Finding, tree};

/// One source file: where it is, and its text.
#[derive(Debug)]
pub(super) struct Source {
    /// Path for messages.
    shown: PathBuf,
    /// Module path below the crate's root: `os/linux.rs` is `[os, linux]`, `lib.rs` is empty.
    module: Vec<String>,
    text: String,
}

/// A path in code that leaves its own top-level module.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    line: usize,
    to: String,
}

/// The source files below `folder`.
///
/// # Errors
/// A folder or file that cannot be read.
pub(super) fn read(root: &Path, folder: &str) -> anyhow::Result<Vec<Source>> {
    let files = tree::files(root, folder)?;
    tree::rust(&files)
        .map(|path| {
            let below = path.strip_prefix(folder).unwrap_or(path);
            Ok(Source {
                shown: path.clone(),
                module: module_of(below),
                text: tree::read(root, path)?,
            })
        })
        .collect()
}

fn module_of(below: &Path) -> Vec<String> {
    let mut module: Vec<String> = below
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let last = module.last().map(String::as_str);
    if last == Some("mod") || (module.len() == 1 && last == Some("lib")) {
        module.pop();
    }
    module
}

/// What breaks `floors`, lowest first.
pub(super) fn check(sources: &[Source], floors: &[&[&str]]) -> Vec<Finding> {
    let floor_of = |module: &str| floors.iter().position(|floor| floor.contains(&module));
    let scans: Vec<(&Source, Scan)> =
        sources.iter().map(|source| (source, Scan::of(&source.module, &source.text))).collect();
    let tests: BTreeSet<&[String]> =
        scans.iter().flat_map(|(_, scan)| scan.test_modules.iter().map(Vec::as_slice)).collect();
    let tops: BTreeSet<&str> =
        sources.iter().filter_map(|source| source.module.first().map(String::as_str)).collect();
    let mut findings = Vec::new();
    for (source, scan) in &scans {
        let only_in_tests = (1..=source.module.len())
            .any(|length| source.module.get(..length).is_some_and(|part| tests.contains(part)));
        let Some(from) = source.module.first().filter(|_| !only_in_tests) else { continue };
        let Some(own) = floor_of(from) else {
            let what = format!("module `{from}` has no floor: give it one in MODULES");
            findings.push(Finding::new(&source.shown, 0, what));
            continue;
        };
        for reference in &scan.references {
            let to = reference.to.as_str();
            let what = match floor_of(to) {
                _ if to == from => continue,
                Some(floor) if floor < own => continue,
                Some(floor) if floor == own => format!(
                    "`{from}` imports `{to}`, which stands on the same floor: move what both need down"
                ),
                Some(_) => format!("`{from}` imports `{to}`, which stands above it"),
                None if tops.contains(to) => {
                    format!("`{from}` imports `{to}`, which has no floor: give it one in MODULES")
                }
                None => format!(
                    "`{from}` imports `{to}` through the crate's root: name the module it lives in"
                ),
            };
            findings.push(Finding::new(&source.shown, reference.line, what));
        }
    }
    for floor in floors.iter().copied().flatten() {
        // A floor may be listed before its module is written, but not after others build on it.
        let used =
            scans.iter().flat_map(|(_, scan)| &scan.references).any(|found| found.to == **floor);
        if used && !tops.contains(floor) {
            let what = format!("module `{floor}` is imported but has no file");
            findings.push(Finding::new("allocator/src", 0, what));
        }
    }
    findings
}

/// What one file refers to.
#[derive(Debug, Default)]
struct Scan {
    references: Vec<Reference>,
    /// Modules declared here that exist for tests only.
    test_modules: Vec<Vec<String>>,
}

impl Scan {
    fn of(module: &[String], text: &str) -> Self {
        let code = lexer::code(text);
        let mut scanner =
            Scanner { code: &code, at: 0, depth: 0, module: module.to_vec(), inline: Vec::new() };
        let mut scan = Scan::default();
        if scanner.is_test_file() {
            return scan;
        }
        while scanner.at < code.len() {
            scanner.step(&mut scan);
        }
        scan
    }
}

struct Scanner<'a> {
    code: &'a [Token<'a>],
    at: usize,
    depth: usize,
    /// The module the scanner is in, inline ones included.
    module: Vec<String>,
    /// Depths at which the inline modules in `module` were opened.
    inline: Vec<usize>,
}

impl<'a> Scanner<'a> {
    fn kind(&self, ahead: usize) -> Option<Kind<'a>> {
        self.code.get(self.at + ahead).map(|token| token.kind)
    }

    fn sign(&self, ahead: usize, sign: char) -> bool {
        self.kind(ahead) == Some(Kind::Sign(sign))
    }

    fn word(&self, ahead: usize) -> Option<&'a str> {
        if let Some(Kind::Word(word)) = self.kind(ahead) { Some(word) } else { None }
    }

    fn path_sign(&self, ahead: usize) -> bool {
        self.sign(ahead, ':') && self.sign(ahead + 1, ':')
    }

    /// Whether the file opens with `#![cfg(test)]`.
    fn is_test_file(&self) -> bool {
        (0..self.code.len()).take_while(|at| *at < 64).any(|at| {
            let here = Scanner { at, module: Vec::new(), inline: Vec::new(), ..*self };
            here.sign(0, '#') && here.sign(1, '!') && here.sign(2, '[') && here.cfg_test(3)
        })
    }

    /// Whether `cfg(test)` or `cfg(all(test, …))` stands at `ahead`.
    fn cfg_test(&self, ahead: usize) -> bool {
        self.word(ahead) == Some("cfg")
            && (self.word(ahead + 2) == Some("test")
                || (self.word(ahead + 2) == Some("all") && self.word(ahead + 4) == Some("test")))
    }

    fn step(&mut self, scan: &mut Scan) {
        if self.sign(0, '#') && self.sign(1, '[') && self.cfg_test(2) {
            return self.skip_test_item(scan);
        }
        match self.kind(0) {
            Some(Kind::Sign('{')) => self.depth += 1,
            Some(Kind::Sign('}')) => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last() == Some(&self.depth) {
                    self.inline.pop();
                    self.module.pop();
                }
            }
            Some(Kind::Word("mod")) if self.sign(2, '{') => {
                if let Some(name) = self.word(1) {
                    self.module.push(name.to_owned());
                    self.inline.push(self.depth);
                    self.at += 1;
                }
            }
            Some(Kind::Word("in")) if self.word(1) == Some("crate") => self.at += 1,
            Some(Kind::Word("crate")) if self.path_sign(1) => {
                self.at += 3;
                return self.heads(0, &mut scan.references);
            }
            Some(Kind::Word("super")) => return self.climb(scan),
            _ => {}
        }
        self.at += 1;
    }

    /// `super::super::x`: leaves the top-level module only when it climbs to the crate's root.
    fn climb(&mut self, scan: &mut Scan) {
        let mut climbed = 0;
        while self.word(0) == Some("super") {
            climbed += 1;
            self.at += 1;
            if self.path_sign(0) {
                self.at += 2;
            }
        }
        if climbed >= self.module.len() {
            self.heads(0, &mut scan.references);
        }
    }

    /// The first names of the path or group at the cursor; leaves the cursor on it.
    fn heads(&self, ahead: usize, references: &mut Vec<Reference>) {
        let line = |at: usize| self.code.get(at).map_or(0, |token| token.line);
        if let Some(name) = self.word(ahead) {
            references.push(Reference { line: line(self.at + ahead), to: name.to_owned() });
        } else if self.sign(ahead, '*') {
            references.push(Reference { line: line(self.at + ahead), to: "*".to_owned() });
        } else if self.sign(ahead, '{') {
            let (mut depth, mut expects) = (0_usize, false);
            for token in self.code.get(self.at + ahead..).unwrap_or_default() {
                match token.kind {
                    Kind::Sign('{') => {
                        depth += 1;
                        expects = depth == 1;
                    }
                    Kind::Sign('}') if depth == 1 => return,
                    Kind::Sign('}') => depth -= 1,
                    Kind::Sign(',') => expects = depth == 1,
                    Kind::Word(name) if expects => {
                        expects = false;
                        references.push(Reference { line: token.line, to: name.to_owned() });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Skips the attribute and the item behind it, and notes a module that only tests see.
    fn skip_test_item(&mut self, scan: &mut Scan) {
        while self.sign(0, '#') && self.sign(1, '[') {
            self.at += 1;
            self.skip_group('[', ']');
        }
        let start = self.at;
        loop {
            match self.kind(0) {
                None => return,
                Some(Kind::Sign(';')) => {
                    self.at += 1;
                    break;
                }
                Some(Kind::Sign('{')) => {
                    self.skip_group('{', '}');
                    break;
                }
                _ => self.at += 1,
            }
        }
        let item = self.code.get(start..self.at).unwrap_or_default();
        let mut words = item.iter().skip_while(|token| token.kind != Kind::Word("mod")).skip(1);
        let ends_plainly = item.last().is_some_and(|token| token.kind == Kind::Sign(';'));
        if let (Some(Token { kind: Kind::Word(name), .. }), true) = (words.next(), ends_plainly) {
            let mut module = self.module.clone();
            module.push((*name).to_owned());
            scan.test_modules.push(module);
        }
    }

    /// Skips from an opening sign at the cursor past the one that closes it.
    fn skip_group(&mut self, open: char, close: char) {
        let mut depth = 0_usize;
        while let Some(kind) = self.kind(0) {
            self.at += 1;
            if kind == Kind::Sign(open) {
                depth += 1;
            } else if kind == Kind::Sign(close) {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOORS: &[&[&str]] = &[&["units"], &["os"], &["slab", "block"], &["heap"]];

    fn check_tree(tree: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = tree
            .iter()
            .map(|(path, text)| Source {
                shown: PathBuf::from(path),
                module: module_of(Path::new(path)),
                text: (*text).to_owned(),
            })
            .collect();
        check(&sources, FLOORS).iter().map(ToString::to_string).collect()
    }

    const LOWER: [(&str, &str); 2] = [("units.rs", ""), ("os/mod.rs", "")];

    fn check_slab(text: &str) -> Vec<String> {
        let mut house = LOWER.to_vec();
        house.extend([("block.rs", ""), ("heap.rs", ""), ("slab/mod.rs", text)]);
        check_tree(&house)
    }

    #[test]
    fn imports_that_go_down_pass() {
        assert!(
            check_slab("use crate::units::Bytes; use crate::{os::{map, unmap}, units};").is_empty()
        );
        assert!(
            check_slab("use super::os; mod inner { use super::super::units; use super::x; }")
                .is_empty()
        );
    }

    #[test]
    fn an_import_that_goes_up_is_found_with_its_line() {
        assert_eq!(
            check_slab("\nuse crate::heap::route;"),
            ["slab/mod.rs:2: `slab` imports `heap`, which stands above it"]
        );
    }

    #[test]
    fn going_up_is_found_in_every_way_it_can_be_written() {
        for text in [
            "use crate::{units, heap};",
            "use crate::{units::{self, Bytes}, heap::{a, b}};",
            "fn f() { crate::heap::route() }",
            "use super::heap;",
            "mod inner { fn f() { super::super::heap::g() } }",
            "macro_rules! m { () => { $crate::heap::g() } }",
            "pub use crate :: heap as below;",
            "#[cfg(not(test))] use crate::heap;",
        ] {
            assert_eq!(check_slab(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_file_deep_in_a_module_is_held_to_its_floor() {
        let mut house = LOWER.to_vec();
        house.extend([
            ("heap.rs", ""),
            ("os/linux/map.rs", "use crate::heap;"),
            ("os/linux/mod.rs", "use super::x;"),
        ]);
        assert_eq!(
            check_tree(&house),
            ["os/linux/map.rs:1: `os` imports `heap`, which stands above it"]
        );
    }

    #[test]
    fn neighbours_on_one_floor_do_not_know_each_other() {
        assert_eq!(
            check_slab("use crate::block::Block;"),
            [
                "slab/mod.rs:1: `slab` imports `block`, which stands on the same floor: move what both need down"
            ]
        );
    }

    #[test]
    fn the_roof_must_not_be_imported() {
        assert!(check_slab("use crate::Allocator;")[0].contains("through the crate's root"));
        assert!(check_slab("use crate::*;")[0].contains("through the crate's root"));
    }

    #[test]
    fn comments_strings_visibilities_and_tests_may_name_anything() {
        for text in [
            "// use crate::heap;\n/* crate::heap */ const A: &str = \"crate::heap\";",
            "pub(in crate::slab) fn f() {} pub(crate) fn g() {}",
            "#[cfg(test)] mod tests { use crate::heap; #[test] fn t() { crate::heap::g() } }",
            "#[cfg(all(test, not(loom)))] #[path = \"x.rs\"] mod tests { use crate::heap; }",
            "#[cfg(test)] use crate::heap;",
            "#[cfg(test)] impl A for B { fn f() { crate::heap::g() } }",
        ] {
            assert_eq!(check_slab(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_test_item_hides_nothing_behind_it() {
        assert_eq!(check_slab("#[cfg(test)] mod tests { } use crate::heap;").len(), 1);
        assert_eq!(check_slab("#[cfg(test)] mod tests; use crate::heap;").len(), 1);
    }

    #[test]
    fn files_of_modules_that_only_tests_see_may_name_anything() {
        let mut house = LOWER.to_vec();
        house.extend([
            ("heap.rs", ""),
            ("slab/mod.rs", "#[cfg(test)] mod shadow;"),
            ("slab/shadow.rs", "use crate::heap;"),
            ("os/shadow.rs", "#![cfg(test)] use crate::heap;"),
        ]);
        assert_eq!(check_tree(&house), [""; 0]);
    }

    #[test]
    fn a_module_without_a_floor_is_found() {
        let found = check_tree(&[("annex.rs", ""), ("units.rs", "use crate::annex::X;")]);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|what| what.contains("no floor")), "{found:?}");
    }

    #[test]
    fn the_fixture_on_disk_that_goes_up_fails_and_the_sound_one_passes() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let found = |name| check(&read(&fixtures, name).unwrap(), FLOORS);
        assert_eq!(found("floors-sound"), []);
        assert_eq!(
            found("floors-upward"),
            [Finding::new(
                "floors-upward/os/mod.rs",
                4,
                "`os` imports `heap`, which stands above it"
            )]
        );
    }
}

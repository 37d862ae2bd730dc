//! "Did you mean": the near names for a mistyped one.
#![forbid(unsafe_code)]

/// A help line for an unknown `name`: the nearest of `known`, and the command that lists all.
pub(crate) fn help<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, list: &str) -> String {
    let mut near: Vec<(f64, &str)> = known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.truncate(3);
    let names: Vec<String> = near.iter().map(|(_, name)| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => format!("`{list}` lists the known ones"),
        names => format!("did you mean {}? `{list}` lists all", names.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::help;

    #[test]
    fn near_names_come_first_and_far_ones_not_at_all() {
        let text = help("larsen", ["xmalloc", "larson", "larson-sized"], "list");
        assert!(text.starts_with("did you mean `larson`"), "{text}");
        assert!(!text.contains("xmalloc"), "{text}");
        assert_eq!(help("qqq", ["larson"], "list"), "`list` lists the known ones");
    }
}

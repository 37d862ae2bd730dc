//! Rust source as words and signs: just enough of the language to find paths, attributes and
//! comments without being fooled by strings, comments and lifetimes.
//!
//! Knows nothing of expressions. Cost: one pass, no look-back.

/// A piece of Rust source and the line (from 1) it starts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) line: usize,
    pub(crate) kind: Kind<'a>,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// An identifier or keyword; a raw identifier without its `r#`.
    Word(&'a str),
    /// One sign; `::` is two of them.
    Sign(char),
    /// A comment with its slashes.
    Comment(&'a str),
    /// A string, character, number or lifetime.
    Literal,
}

/// The tokens of `source`, comments included.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut cursor = Cursor { source, at: 0, line: 1 };
    let mut found = Vec::new();
    while let Some(first) = cursor.peek(0) {
        if first.is_whitespace() {
            cursor.skip(first.len_utf8());
            continue;
        }
        let (start, line) = (cursor.at, cursor.line);
        let kind = cursor.token(first, start);
        found.push(Token { line, kind });
    }
    found
}

/// The tokens of `source` without comments.
pub(crate) fn code(source: &str) -> Vec<Token<'_>> {
    let mut found = tokens(source);
    found.retain(|token| !matches!(token.kind, Kind::Comment(_)));
    found
}

struct Cursor<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest().chars().nth(ahead)
    }

    fn skip(&mut self, bytes: usize) {
        let end = (self.at + bytes).min(self.source.len());
        let passed = self.source.get(self.at..end).unwrap_or_default();
        self.line += passed.matches('\n').count();
        self.at = end;
    }

    /// Skips up to and including `end`, or to the end of the source.
    fn skip_through(&mut self, end: &str) {
        let length = self.rest().find(end).map_or(self.rest().len(), |found| found + end.len());
        self.skip(length);
    }

    fn token(&mut self, first: char, start: usize) -> Kind<'a> {
        if self.rest().starts_with("//") {
            self.skip(self.rest().find('\n').unwrap_or(self.rest().len()));
            return Kind::Comment(self.source.get(start..self.at).unwrap_or_default());
        }
        if self.rest().starts_with("/*") {
            self.skip_block_comment();
            return Kind::Comment(self.source.get(start..self.at).unwrap_or_default());
        }
        if first == '"' {
            self.skip_string();
            return Kind::Literal;
        }
        if first == '\'' {
            self.skip_quote();
            return Kind::Literal;
        }
        if first.is_ascii_digit() {
            let digits = |c: char| !(c.is_alphanumeric() || c == '_');
            self.skip(self.rest().find(digits).unwrap_or(self.rest().len()));
            return Kind::Literal;
        }
        if first.is_alphabetic() || first == '_' {
            return self.word(start);
        }
        self.skip(first.len_utf8());
        Kind::Sign(first)
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.skip(2);
                if depth == 0 {
                    return;
                }
            } else if let Some(next) = self.peek(0) {
                self.skip(next.len_utf8());
            } else {
                return;
            }
        }
    }

    fn skip_string(&mut self) {
        self.skip(1);
        while let Some(next) = self.peek(0) {
            self.skip(next.len_utf8());
            match next {
                '"' => return,
                '\\' => self.skip(self.peek(0).map_or(0, char::len_utf8)),
                _ => {}
            }
        }
    }

    /// A character literal, or a lifetime: `'\n'` and `'a'` end in a quote, `'a` does not.
    fn skip_quote(&mut self) {
        let escaped = self.peek(1) == Some('\\');
        if escaped {
            self.skip(2 + self.peek(2).map_or(0, char::len_utf8));
            self.skip_through("'");
        } else if self.peek(2) == Some('\'') {
            self.skip(2 + self.peek(1).map_or(0, char::len_utf8));
        } else {
            self.skip(1);
            let end = |c: char| !(c.is_alphanumeric() || c == '_');
            self.skip(self.rest().find(end).unwrap_or(self.rest().len()));
        }
    }

    fn word(&mut self, start: usize) -> Kind<'a> {
        let end = |c: char| !(c.is_alphanumeric() || c == '_');
        let length = self.rest().find(end).unwrap_or(self.rest().len());
        self.skip(length);
        let word = self.source.get(start..self.at).unwrap_or_default();
        let prefix = matches!(word, "r" | "b" | "br" | "c" | "cr");
        match self.peek(0) {
            Some('"') if prefix => {
                if word.ends_with('r') {
                    self.skip(1);
                    self.skip_through("\"");
                } else {
                    self.skip_string();
                }
                Kind::Literal
            }
            Some('\'') if word == "b" => {
                self.skip_quote();
                Kind::Literal
            }
            Some('#') if prefix && word.ends_with('r') => self.raw(word),
            _ => Kind::Word(word),
        }
    }

    /// What follows `r#`: a raw string with any number of signs, or a raw identifier.
    fn raw(&mut self, word: &'a str) -> Kind<'a> {
        let signs = self.rest().len() - self.rest().trim_start_matches('#').len();
        if self.peek(signs) == Some('"') {
            self.skip(signs + 1);
            let end = format!("\"{}", "#".repeat(signs));
            self.skip_through(&end);
            return Kind::Literal;
        }
        if word == "r" && signs == 1 {
            self.skip(1);
            let start = self.at;
            return self.word(start);
        }
        Kind::Word(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        code(source)
            .into_iter()
            .filter_map(|token| if let Kind::Word(word) = token.kind { Some(word) } else { None })
            .collect()
    }

    #[test]
    fn words_inside_comments_and_strings_are_not_code() {
        let source = r###"
            // one
            /* two /* nested */ still */
            let a = "three \" four"; let b = r#"five " six"#; let c = b"seven"; let d = 'e';
            let r#type = b'\''; let f: &'static str = "";
        "###;
        assert_eq!(
            words(source),
            ["let", "a", "let", "b", "let", "c", "let", "d", "let", "type", "let", "f", "str"]
        );
    }

    #[test]
    fn a_lifetime_does_not_swallow_the_code_behind_it() {
        assert_eq!(words("fn f<'a>(x: &'a u8) {}"), ["fn", "f", "x", "u8"]);
        assert_eq!(words("let q = '\\u{1F600}'; next"), ["let", "q", "next"]);
    }

    #[test]
    fn every_token_knows_its_line() {
        let lines: Vec<usize> =
            code("a\n\"x\ny\" b\n/* \n */ c").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 2, 3, 5]);
    }

    #[test]
    fn unfinished_source_ends_instead_of_hanging() {
        for source in ["\"abc", "/* abc", "r#\"abc", "'", "b'", "'\\", "r#"] {
            let _ = tokens(source);
        }
    }
}

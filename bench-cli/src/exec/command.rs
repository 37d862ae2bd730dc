//! A command line in one string, split as a shell would, or handed to one where it needs one.
#![forbid(unsafe_code)]

/// What `--exec` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// As the user wrote it; the name in results.
    pub text: String,
    /// Program and arguments.
    pub words: Vec<String>,
}

/// Why a string is no command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// Nothing to run.
    #[error("it names no program")]
    Empty,
    /// A quote that is never closed.
    #[error("a quote is not closed")]
    OpenQuote,
}

impl CommandLine {
    /// Reads `text`: words between blanks, quotes and backslashes as in a shell. A string with
    /// pipes, redirections, variables, patterns or lists goes to `/bin/sh -c`.
    ///
    /// # Errors
    /// If it is empty or a quote is not closed.
    pub fn parse(text: &str) -> Result<Self, CommandLineError> {
        let (words, needs_shell) = split(text)?;
        let words = match words.first() {
            None => return Err(CommandLineError::Empty),
            Some(_) if needs_shell => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]
            }
            Some(_) => words,
        };
        Ok(CommandLine { text: text.trim().to_owned(), words })
    }

    /// The program itself.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.words[0]
    }
}

/// Words, and whether an unquoted character has a meaning that only a shell gives it.
fn split(text: &str) -> Result<(Vec<String>, bool), CommandLineError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut needs_shell = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(CommandLineError::OpenQuote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(CommandLineError::OpenQuote)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(CommandLineError::OpenQuote)? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => {
                            needs_shell |= matches!(c, '$' | '`');
                            word.push(c);
                        }
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => {
                needs_shell |= "|&;<>()$`*?[{~#\n".contains(c);
                // NAME=value in front of a program is an assignment.
                needs_shell |= c == '=' && words.is_empty();
                word.get_or_insert_default().push(c);
            }
        }
    }
    words.extend(word);
    Ok((words, needs_shell))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        CommandLine::parse(text).unwrap().words
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(
            words("python3 -c 'import json; print(1)'"),
            ["python3", "-c", "import json; print(1)"]
        );
        assert_eq!(words(r#"a "b \" c" d\ e """#), ["a", "b \" c", "d e", ""]);
    }

    #[test]
    fn what_only_a_shell_understands_goes_to_a_shell() {
        assert_eq!(words("ls | wc -l"), ["/bin/sh", "-c", "ls | wc -l"]);
        assert_eq!(words("A=1 env"), ["/bin/sh", "-c", "A=1 env"]);
        assert_eq!(words("dd if=/dev/null"), ["dd", "if=/dev/null"]);
    }

    #[test]
    fn an_empty_or_broken_line_is_refused() {
        assert_eq!(CommandLine::parse("  "), Err(CommandLineError::Empty));
        assert_eq!(CommandLine::parse("echo 'a"), Err(CommandLineError::OpenQuote));
    }
}

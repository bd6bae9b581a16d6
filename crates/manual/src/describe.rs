//! The words that a program is described with.
//!
//! Texts have the line ends that `--help` shows. What is between `` ` `` is typed as it is. `{default}` in the text of an
//! option is where its default is said.

/// A program.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Whether its help begins with that line.
    pub is_titled: bool,
    /// What stands in front of the usage of a command.
    pub usage_begins: &'static str,
    /// What may follow its name, a line each.
    pub usage: &'static [&'static str],
    /// Its commands, in the order of the help.
    pub groups: &'static [Group],
    /// Where the texts of commands begin.
    pub commands_column: usize,
    /// What is written above the options that stand before the command.
    pub options_heading: &'static str,
    /// Those options.
    pub options: &'static [Flag],
    /// Where their texts begin.
    pub options_column: usize,
    /// Whether options without a short form are below the long form of the others.
    pub is_aligned: bool,
    /// Text at the end of the help.
    pub closing: &'static str,
    /// Words that are no commands, and print the help.
    pub help_words: &'static [&'static str],
    /// What it ends with.
    pub exit_codes: &'static [(u8, &'static str)],
    /// Whether the help of the program has them.
    pub tells_exit_codes: bool,
    /// What only the man page has.
    pub page: Page,
}

/// What a man page has besides.
#[derive(Debug)]
pub struct Page {
    /// The section of the manual.
    pub section: u8,
    /// Paragraphs.
    pub description: &'static [&'static str],
    /// Files, and what they are for.
    pub files: &'static [(&'static str, &'static str)],
    /// Environment variables.
    pub environment: &'static [(&'static str, &'static str)],
    /// Command lines, and what they do.
    pub examples: &'static [(&'static str, &'static str)],
    /// Other pages, with their section.
    pub see_also: &'static [(&'static str, u8)],
}

/// Commands that the help lists together.
#[derive(Debug)]
pub struct Group {
    /// What is written above them.
    pub heading: &'static str,
    /// The commands.
    pub commands: &'static [Command],
    /// Whether they are listed with the whole usage.
    pub is_spelled: bool,
    /// Lines behind them that name no command.
    pub more: &'static [(&'static str, &'static str)],
}

/// A command.
#[derive(Debug)]
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// What the list of commands shows behind the name.
    pub words: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What may follow the program's name, a line each. Without one it is the name, the words and `[OPTION]...`.
    pub usage: &'static [&'static str],
    /// Its help behind that.
    pub body: &'static [Block],
    /// Where the texts of its options begin.
    pub column: usize,
    /// What it takes besides options.
    pub arguments: &'static [Argument],
    /// Commands that are the next word.
    pub commands: &'static [Command],
}

/// A part of the help of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// A paragraph.
    Text(&'static str),
    /// The line of the list of commands, and more.
    About(&'static str),
    /// Options of this command.
    Options(&'static [Flag]),
    /// Options of this command under a heading.
    Titled(&'static str, &'static [Flag]),
    /// Options of others that are shown here.
    Shown(&'static [Flag]),
    /// Words that are no options, in the manner of those.
    Rows(&'static [(&'static str, &'static str)]),
    /// A command line.
    Example(&'static str),
}

/// An option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// One letter.
    pub short: Option<char>,
    /// A word.
    pub long: &'static str,
    /// Other words for the same, which only the man page names.
    pub also: &'static [&'static str],
    /// What follows it.
    pub value: Option<Value>,
    /// Whether several of them count.
    pub is_repeatable: bool,
    /// What holds without it.
    pub default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
    /// Where it may stand.
    pub place: Place,
    /// Who hears of it.
    pub shown: Shown,
}

/// What follows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// What it is called.
    pub name: &'static str,
    /// What it can be.
    pub kind: Kind,
}

/// What a value can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    Text,
    /// A file.
    File,
    /// A directory.
    Folder,
    /// An artifact.
    Artifact,
    /// One of these.
    Choice(&'static [&'static str]),
}

/// Where an option before the command may stand besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere.
    Here,
    /// Behind every command, too.
    BehindToo,
}

/// Who hears of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Everybody.
    Everywhere,
    /// Readers of the man page: it is there for scripts that were written for another program.
    PageOnly,
}

/// What a command takes besides options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// What it is called.
    pub name: &'static str,
    /// What it can be.
    pub kind: Kind,
    /// Whether it must be there.
    pub is_needed: bool,
    /// Whether there may be several.
    pub is_repeatable: bool,
}

/// The option that every command takes.
pub(crate) const HELP: Flag = Flag::new("help", "Print help").short('h');

impl Flag {
    /// An option without a value.
    pub const fn new(long: &'static str, help: &'static str) -> Flag {
        Flag {
            short: None,
            long,
            also: &[],
            value: None,
            is_repeatable: false,
            default: None,
            help,
            place: Place::Here,
            shown: Shown::Everywhere,
        }
    }

    /// With a letter.
    pub const fn short(self, letter: char) -> Flag {
        Flag { short: Some(letter), ..self }
    }

    /// With other words for the same.
    pub const fn also(self, words: &'static [&'static str]) -> Flag {
        Flag { also: words, ..self }
    }

    /// With a value.
    pub const fn value(self, name: &'static str, kind: Kind) -> Flag {
        Flag { value: Some(Value { name, kind }), ..self }
    }

    /// With a value that can be anything.
    pub const fn text(self, name: &'static str) -> Flag {
        self.value(name, Kind::Text)
    }

    /// With a file as its value.
    pub const fn file(self, name: &'static str) -> Flag {
        self.value(name, Kind::File)
    }

    /// With a directory as its value.
    pub const fn folder(self, name: &'static str) -> Flag {
        self.value(name, Kind::Folder)
    }

    /// Of which several count.
    pub const fn repeatable(self) -> Flag {
        Flag { is_repeatable: true, ..self }
    }

    /// With what holds without it.
    pub const fn default(self, value: &'static str) -> Flag {
        Flag { default: Some(value), ..self }
    }

    /// Behind the command, too.
    pub const fn behind_too(self) -> Flag {
        Flag { place: Place::BehindToo, ..self }
    }

    /// For the man page only.
    pub const fn page_only(self) -> Flag {
        Flag { shown: Shown::PageOnly, ..self }
    }

    /// What it does, with its default.
    pub fn explained(&self) -> String {
        self.help.replace("{default}", self.default.unwrap_or_default())
    }

    /// Every way to spell it.
    pub fn spellings(&self) -> Vec<String> {
        let letter = self.short.iter().map(|letter| format!("-{letter}"));
        let words = [self.long].into_iter().chain(self.also.iter().copied());
        letter.chain(words.map(|word| format!("--{word}"))).collect()
    }
}

impl Argument {
    /// One that must be there.
    pub const fn needed(name: &'static str, kind: Kind) -> Argument {
        Argument { name, kind, is_needed: true, is_repeatable: false }
    }

    /// One that may be left out.
    pub const fn optional(name: &'static str, kind: Kind) -> Argument {
        Argument { name, kind, is_needed: false, is_repeatable: false }
    }

    /// Of which there may be several.
    pub const fn repeatable(self) -> Argument {
        Argument { is_repeatable: true, ..self }
    }
}

impl Command {
    /// One that takes nothing, for the description of those that take little.
    pub(crate) const PLAIN: Command = Command {
        name: "",
        words: "",
        about: "",
        usage: &[],
        body: &[],
        column: 0,
        arguments: &[],
        commands: &[],
    };
}

impl Program {
    /// The commands that are the first word.
    pub fn commands(&self) -> impl Iterator<Item = &'static Command> {
        self.groups.iter().flat_map(|group| group.commands)
    }

    /// Every command with the words that lead to it: `["write", "directory"]`.
    pub fn all_commands(&self) -> Vec<(Vec<&'static str>, &'static Command)> {
        let mut found = Vec::new();
        for command in self.commands() {
            found.push((vec![command.name], command));
            found.extend(command.commands.iter().map(|below| (vec![command.name, below.name], below)));
        }
        found
    }

    /// The command with this name.
    pub fn command(&self, name: &str) -> Option<&'static Command> {
        self.commands().find(|command| command.name == name)
    }

    /// What may stand before the command.
    pub fn takes(&self) -> Vec<Flag> {
        with_help(self.options.to_vec())
    }

    /// What may stand behind `command`.
    pub fn taken_by(&self, command: &Command) -> Vec<Flag> {
        let own = command.body.iter().flat_map(|block| match block {
            Block::Options(flags) | Block::Titled(_, flags) => *flags,
            Block::Text(_) | Block::About(_) | Block::Shown(_) | Block::Rows(_) | Block::Example(_) => &[],
        });
        let of_all = self.options.iter().filter(|flag| flag.place == Place::BehindToo);
        with_help(own.chain(of_all).copied().collect())
    }
}

fn with_help(mut flags: Vec<Flag>) -> Vec<Flag> {
    if flags.iter().all(|flag| flag.long != HELP.long) {
        flags.push(HELP);
    }
    flags
}

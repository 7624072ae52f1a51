//! `--object FILE` and what belongs to it. It may be given several times; each of the other options belongs to the
//! object before it, so that one run can hold several rivals, or one with several packets.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

use crate::prog::kernel::action;

/// What is known of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::prog) struct Spec {
    pub(super) file: PathBuf,
    pub(super) program: Option<String>,
    pub(super) setup: Option<String>,
    pub(super) frame: Option<String>,
    pub(super) expect: Option<u32>,
    /// A power of two.
    pub(super) flows: Option<u32>,
    pub(super) name: Option<String>,
}

/// The objects of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::prog) struct Objects(pub(super) Vec<Spec>);

impl Objects {
    pub(in crate::prog) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

const OBJECT: &str = "object";
/// Options that belong to the object before them: name, value, help.
const OPTIONS: [(&str, &str, &str); 6] = [
    ("program", "NAME", "Which of the object's XDP programs; needed where it has several"),
    (
        "setup",
        "CMD",
        "Shell command that fills the object's maps: MARGAY_BENCH_PIN_DIR has them pinned by name, MARGAY_BENCH_MAPS has \
         lines NAME=ID",
    ),
    ("frame", "NOTATION", "The packet, as in 'eth 02::1 > 02::2 / ip4 192.0.2.1 > 192.0.2.2 / tcp 1 > 80 / data 10'"),
    ("expect", "ACTION", "What the program must return for it; what it returns first where absent"),
    (
        "flows",
        "COUNT",
        "Packets of as many flows in turn, a power of two: their number is added in the last two bytes of the source address \
         and, beyond 65,536, in the source port, which are zero in --frame; IPv4 or IPv6 without a tag",
    ),
    ("name", "NAME", "The row is object/NAME; the program's name where absent"),
];

impl Args for Objects {
    fn augment_args(command: Command) -> Command {
        let object = Arg::new(OBJECT)
            .long(OBJECT)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .action(ArgAction::Append)
            .help("Another project's XDP object, measured in the same rounds; may be given several times");
        OPTIONS.iter().fold(command.arg(object), |command, (name, value, help)| {
            let option = Arg::new(*name).long(*name).value_name(*value).action(ArgAction::Append).requires(OBJECT);
            let option = option.help(format!("{help} [belongs to the --object before it]"));
            let actions = PossibleValuesParser::new(action::NAMES);
            command.arg(if *name == "expect" { option.value_parser(actions) } else { option })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Objects {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let files = matches.get_many::<PathBuf>(OBJECT).unwrap_or_default();
        let places = matches.indices_of(OBJECT).unwrap_or_default();
        let mut objects: Vec<(usize, Spec)> =
            places.zip(files).map(|(at, file)| (at, Spec { file: file.clone(), ..Spec::default() })).collect();
        for (option, ..) in OPTIONS {
            let values = matches.get_many::<String>(option).unwrap_or_default();
            for (at, value) in matches.indices_of(option).unwrap_or_default().zip(values) {
                let before = objects.iter_mut().rev().find(|(object, _)| *object < at);
                let told =
                    || Error::raw(ErrorKind::ArgumentConflict, format!("--{option} stands before its --object\n"));
                let (_, spec) = before.ok_or_else(told)?;
                let twice = || Error::raw(ErrorKind::ArgumentConflict, format!("--{option} twice for one --object\n"));
                if option == "flows" {
                    let flows = value.parse().ok().filter(|flows: &u32| flows.is_power_of_two());
                    let invalid = || {
                        let text = format!("--flows {value}: not a power of two (65536, 1048576)\n");
                        Error::raw(ErrorKind::ValueValidation, text)
                    };
                    if spec.flows.replace(flows.ok_or_else(invalid)?).is_some() {
                        return Err(twice());
                    }
                    continue;
                }
                let field = match option {
                    "program" => &mut spec.program,
                    "setup" => &mut spec.setup,
                    "frame" => &mut spec.frame,
                    "name" => &mut spec.name,
                    _ => {
                        if spec.expect.is_some() {
                            return Err(twice());
                        }
                        spec.expect =
                            (0u32..).zip(action::NAMES).find(|(_, name)| name == value).map(|(number, _)| number);
                        continue;
                    }
                };
                if field.is_some() {
                    return Err(twice());
                }
                *field = Some(value.clone());
            }
        }
        Ok(Self(objects.into_iter().map(|(_, spec)| spec).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Objects, Error> {
        let words = std::iter::once("prog").chain(line.split(' ').filter(|word| !word.is_empty()));
        Objects::from_arg_matches(&Objects::augment_args(Command::new("prog")).try_get_matches_from(words)?)
    }

    #[test]
    fn options_belong_to_the_object_before_them() {
        let objects =
            parse("--object a.o --program p --expect drop --object b.o --setup fill --flows 64 --name two").unwrap();
        let text = |text: &str| Some(text.to_owned());
        let a = Spec { file: "a.o".into(), program: text("p"), expect: Some(action::DROP), ..Spec::default() };
        let b = Spec { file: "b.o".into(), setup: text("fill"), name: text("two"), flows: Some(64), ..Spec::default() };
        assert_eq!(objects, Objects(vec![a, b]));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_belongs_to_no_object_is_refused() {
        let refused = |line| parse(line).unwrap_err().to_string();
        assert!(refused("--program p --object a.o").contains("before its --object"));
        assert!(refused("--object a.o --program p --program q").contains("twice"));
        assert!(refused("--program p").contains("--object"));
        assert!(refused("--object a.o --expect forward").contains("redirect"));
    }
}

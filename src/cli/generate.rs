//! Completions, manual pages and schemas, made from the definitions that the program itself uses.

use std::path::Path;
use std::process::ExitCode;

use super::{Error, output};

/// A completion script on standard output.
pub(super) fn completions(shell: clap_complete::Shell, mut command: clap::Command) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "margay", &mut script);
    output::text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// `margay.1` and one page a subcommand.
pub(super) fn man(dir: &Path, command: clap::Command) -> Result<ExitCode, Error> {
    let failed = |source| Error::File { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(command, dir).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// One schema a kind, in files named after them or as one document.
pub(super) fn schema(dir: Option<&Path>) -> Result<ExitCode, Error> {
    let schemas = model::schema::schemas();
    let Some(dir) = dir else {
        output::json(&schemas)?;
        return Ok(ExitCode::SUCCESS);
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    for (kind, schema) in schemas {
        let path = dir.join(format!("{kind}.json"));
        std::fs::write(&path, serde_json::to_string_pretty(&schema)? + "\n").map_err(failed(&path))?;
    }
    Ok(ExitCode::SUCCESS)
}

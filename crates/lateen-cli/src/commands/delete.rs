//! `lateen delete`: by file, or by kind and name.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use lateen_api::{Kind, Object, ObjectKey};

use super::apply::{Input, Waiting, complain, running, tell};
use super::{StateOption, WRONG};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Kind and names, as in `vs reviews`.
    #[arg(value_name = "KIND NAME…", conflicts_with = "files")]
    named: Vec<String>,
    /// File or folder of YAML; - for standard input; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<std::path::PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    state: StateOption,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let control_plane = running(&arguments.state)?;
    let keys = match (arguments.files.is_empty(), arguments.named.as_slice()) {
        (false, _) => {
            let input = Input { files: arguments.files.clone(), namespace: arguments.namespace.clone() };
            let (objects, found) = input.objects()?;
            if complain(&found) {
                return Ok(ExitCode::from(WRONG));
            }
            objects.iter().map(Object::key).collect::<Vec<_>>()
        }
        (true, [kind, names @ ..]) if !names.is_empty() => {
            let kind: Kind = kind.parse().map_err(|_| anyhow::anyhow!("there is no kind `{kind}`"))?;
            let namespace = if kind.is_namespaced() { arguments.namespace.as_str() } else { "" };
            names.iter().map(|name| ObjectKey::new(kind, namespace, name)).collect()
        }
        _ => bail!("say what to delete: `-f FILE`, or a kind and a name, as in `lateen delete vs reviews`"),
    };
    super::block_on(async {
        let changed = control_plane.delete(&keys).await?;
        tell(&changed, "");
        let missing = changed.results.iter().any(|outcome| outcome.action == "not found");
        let waited = arguments.waiting.until_live(&control_plane, changed.revision).await?;
        Ok(if missing { ExitCode::from(WRONG) } else { waited })
    })
}

//! The mesh that a question is about: of files, or the one that runs here.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use lateen_api::{Diagnostic, Object, parse_documents};
use lateen_explain::{Objects, World};

use super::apply::{Input, complain};
use super::{StateOption, in_force};
use crate::api::objects::Named;
use crate::runtime::bridge::inputs::additions;

/// In place of a file, for objects that stand in none.
const ADDED: &str = "(added by lateen)";

/// Which mesh.
#[derive(Debug, Clone, Args)]
pub(super) struct WorldOptions {
    /// File or folder of YAML in place of the running mesh; - for standard input; repeatable.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Read folders in folders, too.
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,
    /// Namespace of objects, and of who asks, where none is named.
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// The mesh config that belongs to it.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    #[command(flatten)]
    state: StateOption,
}

impl WorldOptions {
    pub(super) fn open(&self) -> anyhow::Result<World> {
        let config = lateen_control::mesh_settings::load(self.mesh_config.as_deref())?.config;
        if self.files.is_empty() {
            return Ok(World::new(in_force::objects(&self.state)?, Objects::Running, config));
        }
        let (objects, _) = written(self.files.clone(), self.recursive, &self.namespace)?;
        Ok(World::new(objects, Objects::Written, config))
    }
}

/// The objects of files with what `lateen up` adds to them, and their texts.
///
/// # Errors
/// What is wrong with them has been told.
pub(super) fn written(
    files: Vec<PathBuf>,
    recursive: bool,
    namespace: &str,
) -> anyhow::Result<(Vec<Object>, Vec<Named>)> {
    let input = Input { files, recursive, namespace: namespace.to_owned() };
    let texts = input.read()?;
    let (objects, mut found) = input.objects(&texts);
    found.extend(objects.iter().flat_map(lateen_api::validate));
    found.retain(Diagnostic::is_error);
    if complain(&found, &texts) {
        bail!("the objects cannot be used as they are");
    }
    let more = parse_documents(ADDED, &additions(&objects), namespace).objects;
    Ok((objects.into_iter().chain(more).collect(), texts))
}

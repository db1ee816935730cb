//! Which local command stands for which container image: the files given by `--images`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use lateen_api::kubernetes::Container;
use serde::{Deserialize, Serialize};

/// One line of an images file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Image {
    /// Which images; `*` stands for any text.
    #[serde(rename = "match")]
    pub(crate) pattern: String,
    /// What to run instead of the image's own entry point.
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// Run the command that the manifest gives the container, with this machine's programs.
    #[serde(default)]
    pub(crate) use_manifest_command: bool,
    /// Append the container's `args` to `command`.
    #[serde(default)]
    pub(crate) append_args: bool,
    /// Set unless the manifest sets it.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Directory to run in; a relative one starts at the images file's directory.
    #[serde(default)]
    pub(crate) workdir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    images: Vec<Image>,
}

/// All lines of all files, in order; the first that matches counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Images(Vec<Placed>);

/// A line and where it came from, in a form that can be handed to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Placed {
    image: Image,
    directory: PathBuf,
}

/// What to run for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalCommand {
    pub(crate) program: PathBuf,
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) workdir: Option<PathBuf>,
}

impl Images {
    /// Reads files.
    pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut lines = Vec::new();
        for path in paths {
            let text = fs::read_to_string(path).with_context(|| format!("read images file {}", path.display()))?;
            let file: File =
                serde_saphyr::from_str(&text).with_context(|| format!("images file {}", path.display()))?;
            let absolute = std::path::absolute(path)?;
            let directory = absolute.parent().unwrap_or(&absolute).to_owned();
            for image in file.images {
                image.check().with_context(|| format!("images file {}: image `{}`", path.display(), image.pattern))?;
                lines.push(Placed { image, directory: directory.clone() });
            }
        }
        Ok(Self(lines))
    }

    /// The command for a container. The error says which line to write or what is wrong with the one there is.
    pub(crate) fn command_for(&self, container: &Container) -> anyhow::Result<LocalCommand> {
        let name = &container.image;
        let Some(Placed { image, directory }) = self.0.iter().find(|line| matches(&line.image.pattern, name)) else {
            bail!(
                "no local command stands for image `{name}`: add this to a file and give it by --images:\n{}",
                suggest(name)
            );
        };
        let mut command = image.command.clone();
        if image.use_manifest_command {
            command = container.command.iter().chain(&container.args).cloned().collect();
            if container.command.is_empty() {
                bail!("image `{name}` is to run the manifest's own command, and the container has no `command`");
            }
        } else if image.append_args {
            command.extend(container.args.iter().cloned());
        }
        let program = find_program(&command[0], directory)
            .with_context(|| format!("image `{name}` (line `match: {}`)", image.pattern))?;
        let workdir = image.workdir.as_ref().map(|path| directory.join(path));
        Ok(LocalCommand { program, command, environment: image.env.clone(), workdir })
    }
}

impl Image {
    fn check(&self) -> anyhow::Result<()> {
        match (self.command.is_empty(), self.use_manifest_command) {
            (true, false) => bail!("needs `command`, or `useManifestCommand: true`"),
            (false, true) => bail!("has both `command` and `useManifestCommand`"),
            _ if self.append_args && self.use_manifest_command => bail!("`appendArgs` goes with `command`"),
            _ => Ok(()),
        }
    }
}

/// A path is taken from the images file's directory; a bare name is looked for there, then beside this program, then on
/// PATH.
pub(crate) fn find_program(name: &str, directory: &Path) -> anyhow::Result<PathBuf> {
    if name.contains('/') {
        let path = directory.join(name);
        return if is_executable(&path) { Ok(path) } else { bail!("there is no program {}", path.display()) };
    }
    let here = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(directory.to_owned()).chain(here.clone()).chain(std::env::split_paths(&path));
    find_in(name, folders).with_context(|| {
        let here = here.map(|path| path.display().to_string()).unwrap_or_default();
        format!("there is no program `{name}` in {}, in {here} or on PATH", directory.display())
    })
}

/// The first of the folders that has a program of this name.
pub(crate) fn find_in(name: &str, mut folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| is_executable(path)))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The line that would make an image known.
fn suggest(image: &str) -> String {
    let name = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(image, |(name, _)| name);
    let bare = name.rsplit('/').next().unwrap_or(name);
    format!("  images:\n  - {{match: \"{name}*\", command: [./{bare}]}}")
}

/// Whether `text` fits `pattern`, in which `*` stands for any text. Runs in time proportional to the product of lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*/reviews-v1:*", "registry.example/x/reviews-v1:1.2", true),
            ("*/reviews-v1:*", "reviews-v1:1.2", false),
            ("*ab", "aab", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} on {text}");
        }
    }

    fn images(text: &str) -> anyhow::Result<(tempfile::TempDir, Images)> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("images.yaml");
        fs::write(&path, text)?;
        let images = Images::read(&[path])?;
        Ok((folder, images))
    }

    fn container(image: &str, command: &[&str], args: &[&str]) -> Container {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Container { image: image.to_owned(), command: owned(command), args: owned(args), ..Container::default() }
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let (folder, images) = images(
            "images:\n- {match: 'x:1', command: [./tool, one], env: {A: b}, workdir: data}\n\
             - {match: 'x:*', command: [sh, -c], appendArgs: true}\n- {match: 'y', useManifestCommand: true}\n",
        )
        .unwrap();
        let tool = folder.path().join("tool");
        fs::write(&tool, "").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        let first = images.command_for(&container("x:1", &["ignored"], &["ignored"])).unwrap();
        assert_eq!((first.program, first.command), (tool, vec!["./tool".to_owned(), "one".to_owned()]));
        assert_eq!((first.environment["A"].as_str(), first.workdir), ("b", Some(folder.path().join("data"))));
        let second = images.command_for(&container("x:2", &[], &["exit 0"])).unwrap();
        assert_eq!(second.command, ["sh", "-c", "exit 0"]);
        let own = images.command_for(&container("y", &["sleep"], &["1"])).unwrap();
        assert_eq!(own.command, ["sleep", "1"]);
        let none = images.command_for(&container("y", &[], &["1"])).unwrap_err();
        assert!(none.to_string().contains("no `command`"), "{none}");
    }

    #[test]
    fn what_is_missing_is_told_with_the_line_to_write() {
        let (_folder, images) = images("images: []").unwrap();
        let error = images.command_for(&container("docker.io/istio/shop:1.0", &[], &[])).unwrap_err().to_string();
        assert!(
            error.contains("`docker.io/istio/shop:1.0`") && error.contains("match: \"docker.io/istio/shop*\""),
            "{error}"
        );
    }

    #[test]
    fn a_mistake_in_the_file_is_named() {
        let told = |text| format!("{:#}", images(text).expect_err("the file is wrong"));
        assert!(told("images: [{match: a, comand: [b]}]").contains("comand"));
        assert!(told("images: [{match: a}]").contains("needs `command`"));
        assert!(told("images: [{match: a, command: [b], useManifestCommand: true}]").contains("has both"));
    }
}

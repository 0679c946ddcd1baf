//! Where values of the broker's file stand that are not in it: environment variables and other files.

#![expect(
    clippy::disallowed_methods,
    reason = "there is no broker yet: what it is told stands in files and variables of whoever starts it"
)]

use std::path::{Component, Path};

use firn_model::config_providers::Place;
use firn_model::properties;

/// What stands there, or why nothing does.
pub fn look_up(place: Place<'_>) -> Result<String, String> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    match place {
        Place::Variable(name) => std::env::var(name).map_err(|error| error.to_string()),
        Place::Property { file, key } => {
            let found =
                properties::parse(&read(Path::new(file))?).map_err(|error| format!("{file}: {error}"))?;
            found.get(key).cloned().ok_or_else(|| format!("{file} has no {key}"))
        }
        Place::File { directory, name } => {
            let mut parts = Path::new(name).components();
            match (parts.next(), parts.next()) {
                (Some(Component::Normal(_)), None) => read(&Path::new(directory).join(name)),
                _ => Err(format!("{name} is not the name of a file in {directory}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_variables_are_read_and_nothing_beside_them() {
        let directory = std::env::temp_dir().join(format!("firn-providers-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("keys"), "a = 1\nb=\\u0032\n").unwrap();
        let directory_name = directory.to_str().unwrap();
        let file = format!("{directory_name}/keys");
        let property = |key| look_up(Place::Property { file: &file, key });
        assert_eq!((property("a"), property("b")), (Ok("1".to_owned()), Ok("2".to_owned())));
        assert!(property("c").unwrap_err().contains("has no c"));
        let whole = |name| look_up(Place::File { directory: directory_name, name });
        assert_eq!(whole("keys"), Ok("a = 1\nb=\\u0032\n".to_owned()));
        assert!(whole("none").unwrap_err().contains("cannot read"));
        for beside in ["../keys", "..", "x/keys", "/etc/hostname"] {
            assert!(whole(beside).unwrap_err().contains("is not the name of a file"), "{beside}");
        }
        assert!(look_up(Place::Variable("PATH")).is_ok());
        assert!(look_up(Place::Variable("FIRN_NO_SUCH_VARIABLE")).unwrap_err().contains("not found"));
        std::fs::remove_dir_all(directory).unwrap();
    }
}

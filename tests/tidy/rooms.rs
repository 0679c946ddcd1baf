//! Files of one subject and bounded size, each with a first line that says what it is for.

use crate::{files, text};

const CODE_LINES_MAX: usize = 500;

/// Files over the limit, with the lines that they have now: a number here only ever goes down.
const RATCHET: [(&str, usize); 0] = [];

#[test]
fn no_file_outgrows_its_room() {
    let mut too_long = Vec::new();
    for path in files(&["rs", "java", "c"]) {
        let name = path.display().to_string();
        let limit =
            RATCHET.iter().find(|(known, _)| *known == name).map_or(CODE_LINES_MAX, |(_, lines)| *lines);
        let lines = code_lines(&text(&path));
        if lines > limit {
            too_long.push(format!("{name}: {lines} code lines, {limit} allowed"));
        }
    }
    assert!(too_long.is_empty(), "{too_long:#?}");
}

fn code_lines(text: &str) -> usize {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn every_rust_file_says_first_what_it_is_for() {
    let silent: Vec<_> = files(&["rs"]).into_iter().filter(|path| !text(path).starts_with("//! ")).collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X:"].concat()];
    let mut found = Vec::new();
    for path in files(&["rs", "java", "c", "sh", "md", "toml"]) {
        let text = text(&path);
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_package_registry_is_named_by_its_host() {
    let hosts = [
        ["static.", "crates", ".io"].concat(),
        ["index.", "crates", ".io"].concat(),
        ["py", "pi.", "org"].concat(),
        ["python", "hosted"].concat(),
        ["registry.", "npm", "js"].concat(),
        ["repo.maven", ".apache"].concat(),
        ["repo1.", "maven"].concat(),
        ["proxy.", "golang", ".org"].concat(),
        ["deb.", "debian", ".org"].concat(),
    ];
    let mut found = Vec::new();
    for path in files(&["rs", "java", "c", "sh", "md", "toml", "xml", "yaml", "json", "properties"]) {
        let text = text(&path);
        found.extend(
            hosts.iter().filter(|host| text.contains(host.as_str())).map(|host| (path.clone(), host.clone())),
        );
    }
    assert!(found.is_empty(), "the machine's own set-up says where packages come from: {found:#?}");
}

/// Files that may hold unsafe code: each says why.
const UNSAFE: [&str; 3] =
    ["broker/storage/src/residency.rs", "broker/tests/allocations.rs", "tests/simulation/randomness.rs"];

#[test]
fn what_the_compiler_cannot_check_is_where_it_is_known_to_be() {
    // Put together here, so that this file does not find itself.
    let allowed = ["unsafe", "_code"].concat();
    let found: Vec<String> = files(&["rs"])
        .into_iter()
        .filter(|path| text(path).contains(&allowed))
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(found, UNSAFE);
}

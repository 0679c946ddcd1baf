//! Documents drift: every command, target and file that they name must be there.

use std::path::Path;

use firn_tests::tools::repository;

use crate::{files, text};

#[test]
fn every_make_target_that_a_document_names_exists() {
    let makefile = text(Path::new("Makefile"));
    let targets: Vec<&str> = makefile
        .lines()
        .filter_map(|line| line.split_once(':').map(|(target, _)| target))
        .filter(|target| {
            !target.is_empty() && target.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-')
        })
        .collect();
    let mut unknown = Vec::new();
    for path in files(&["md"]) {
        for command in code(&text(&path)) {
            if let Some(target) =
                command.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next())
                && !targets.contains(&target)
            {
                unknown.push(format!("{}: make {target}", path.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut broken = Vec::new();
    for path in files(&["md"]) {
        let folder = repository().join(path.parent().unwrap_or(Path::new("")));
        let text = text(&path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !link.is_empty()
                && !link.contains("://")
                && !link.starts_with("mailto:")
                && !folder.join(link).exists()
            {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_path_in_the_map_exists() {
    let map = text(Path::new("ARCHITECTURE.md"));
    let paths = code(&map).into_iter().filter(|word| {
        ["broker/", "tests/"].iter().any(|start| word.starts_with(start))
            && !word.contains([' ', '<', '*', '{'])
    });
    let missing: Vec<String> = paths.filter(|path| !repository().join(path).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:#?}");
}

/// Everything in backticks, and every line of a code block.
fn code(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if block {
            found.push(line.trim().trim_start_matches("$ ").to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

//! keepalived.conf from files: what it includes is looked for where keepalived looks, beside the file that includes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use lb_config::bounds::FILE_LEN;
use lb_config::keepalived::{Imported, Options, import};

/// Turns a keepalived.conf into a configuration. `file` says where it is from; `text` is what it holds.
pub fn import_text(file: &Path, text: &str, options: &Options<'_>) -> Imported {
    let own = file.parent().unwrap_or(Path::new("")).to_owned();
    import(text, options, &|from, what| {
        let beside = if from.is_empty() { &own } else { Path::new(from).parent().unwrap_or(&own) };
        included(&beside.join(what))
    })
}

/// As [`import_text`], of what `file` holds.
///
/// Errors: it cannot be read, is longer than [`FILE_LEN`] or no UTF-8.
pub fn import_file(file: &Path, options: &Options<'_>) -> io::Result<Imported> {
    Ok(import_text(file, &read_text(file)?, options))
}

/// What a file holds.
///
/// Errors: as [`import_file`].
pub(crate) fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed tells a file that is too long, even when it has no length (a pipe).
    let length = File::open(file)?.take(FILE_LEN + 1).read_to_string(&mut text)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_LEN {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "is longer than 64 MiB"));
    }
    Ok(text)
}

/// Names and texts of the files that a pattern stands for: `*` and `?` in its last part. Errors: why not.
fn included(pattern: &Path) -> Result<Vec<(String, String)>, String> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let above = pattern.parent().unwrap_or(Path::new("")).to_owned();
    if above.to_string_lossy().contains(['*', '?']) || pattern.to_string_lossy().contains(['[', '{']) {
        return Err("has wildcards other than * and ? in the name of the file".to_owned());
    }
    let mut files: Vec<PathBuf> = match name.contains(['*', '?']) {
        false => vec![pattern.to_owned()],
        true => {
            let listed = fs::read_dir(&above).map_err(|error| format!("{}: {error}", above.display()))?;
            let names =
                listed.flatten().filter(|entry| !entry.path().is_dir()).map(|entry| entry.file_name());
            // As for a shell, a name that begins with a dot is not meant.
            let meant = names.filter(|file| {
                file.to_str().is_some_and(|file| !file.starts_with('.') && matches(name, file))
            });
            meant.map(|file| above.join(file)).collect()
        }
    };
    files.sort();
    let read = |file: &PathBuf| match read_text(file) {
        Ok(text) => Ok((file.display().to_string(), text)),
        Err(error) => Err(format!("{}: {error}", file.display())),
    };
    files.iter().map(read).collect()
}

/// Whether a name is one that the pattern stands for.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Places of the name that the pattern so far may end at.
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for c in pattern {
        if c == '*' {
            let first = ends.iter().position(|end| *end).unwrap_or(ends.len());
            ends.iter_mut().skip(first).for_each(|end| *end = true);
        } else {
            let next = |at: usize| at > 0 && ends[at - 1] && (c == '?' || name[at - 1] == c);
            ends = (0..ends.len()).map(next).collect();
        }
    }
    ends.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_what_a_shell_has_them_stand_for() {
        for (pattern, name, is) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.old", false),
            ("a?.conf", "ab.conf", true),
            ("a?.conf", "a.conf", false),
            ("*", "", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "acb", false),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }

    #[test]
    fn included_files_are_found_beside_the_one_that_includes() {
        let dir = std::env::temp_dir().join(format!("sluice-keepalived-{}", std::process::id()));
        fs::create_dir_all(dir.join("conf.d/more")).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        write("keepalived.conf", "include conf.d/*.conf\ninclude nosuch.conf\ninclude conf.d/*.none\n");
        write("conf.d/b.conf", "global_defs {\n  router_id second\n}\n");
        write("conf.d/a.conf", "global_defs {\n  router_id first\n  nosuch 1\n}\ninclude more/c.conf\n");
        write("conf.d/a.conf.dpkg-old", "global_defs {\n  router_id old\n}\n");
        write(
            "conf.d/more/c.conf",
            "global_defs { vrrp_version 3 }\nvrrp_instance V {\n  interface eth0\n  virtual_router_id 1\n  virtual_ipaddress {\n    10.0.0.100\n  }\n}\n",
        );
        let imported = import_file(&dir.join("keepalived.conf"), &Options::default()).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(imported.toml.contains("[appliance]\nname = \"second\"\n"), "{}", imported.toml);
        assert!(imported.toml.contains("version = 3\n"), "{}", imported.toml);
        let notes: Vec<String> = imported.notes.iter().map(ToString::to_string).collect();
        let at = dir.display();
        assert_eq!(
            notes,
            [
                format!("line 2: include: {at}/nosuch.conf: No such file or directory (os error 2)"),
                format!("{at}/conf.d/a.conf: line 3: nosuch: unknown key"),
            ]
        );
        assert!(import_file(&dir.join("keepalived.conf"), &Options::default()).is_err());
    }
}

//! Builds other allocators as `target/lib/lib<name>.so`, ready for LD_PRELOAD, from the sources
//! that their Rust crates carry, with the flags their own build files use for a shared library.
//!
//! Every library exports the malloc family and the C++ operators itself; a build that does not is
//! an error. Beside them `peers.json` says for each what was built: version, crate, compiler,
//! flags, how it exports malloc. A library that is up to date is not built again.
//!
//! Needs a C and a C++ compiler, make, nm and bash (jemalloc's configure). The first build takes
//! minutes, nearly all of them for tcmalloc.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use serde_json::{Value, json};

mod build;
mod recipes;

use recipes::Recipe;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let recipes = recipes::all();
    if let Some(unknown) = wanted.iter().find(|name| recipes.iter().all(|r| r.name != **name)) {
        let known: Vec<&str> = recipes.iter().map(|recipe| recipe.name).collect();
        return Err(format!("no peer is called `{unknown}`; there are {}", known.join(", ")));
    }
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let out = here.join("target/lib");
    fs::create_dir_all(&out).map_err(|e| format!("failed to create {}: {e}", out.display()))?;
    let packages = packages(&here)?;
    let mut failed = Vec::new();
    for recipe in &recipes {
        if !wanted.is_empty() && wanted.iter().all(|name| name != recipe.name) {
            continue;
        }
        match one(recipe, &packages, &here, &out) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("{}: {error}", recipe.name);
                failed.push(recipe.name);
            }
        }
    }
    write_record(&recipes, &out)?;
    println!("{}", out.join("peers.json").display());
    if failed.is_empty() { Ok(()) } else { Err(format!("failed to build {}", failed.join(", "))) }
}

/// Builds one peer, checks what it exports, and records how it came to be.
fn one(recipe: &Recipe, packages: &[Value], here: &Path, out: &Path) -> Result<String, String> {
    let package = packages
        .iter()
        .find(|package| package["name"] == recipe.package)
        .ok_or_else(|| format!("package {} is not in the lockfile", recipe.package))?;
    let manifest = package["manifest_path"].as_str().ok_or("a package without a manifest")?;
    let source = Path::new(manifest).parent().ok_or("a manifest without a folder")?;
    let crate_version = package["version"].as_str().unwrap_or_default();
    let library = out.join(format!("lib{}.so", recipe.name));
    let record_file = out.join(format!("{}.json", recipe.name));
    let version = (recipe.version)(source, crate_version)?;
    let compilers = build::compilers()?;
    let wanted = json!({
        "name": recipe.name, "version": version,
        "package": format!("{} {crate_version}", recipe.package),
        "compiler": compilers, "flags": recipe.flags(),
        "exports_malloc": recipe.exports, "environment": recipe.environment,
    });
    let built = fs::read_to_string(&record_file).ok().and_then(|text| text.parse::<Value>().ok());
    let up_to_date = built.is_some_and(|built| {
        ["package", "compiler", "flags"].iter().all(|key| built[key] == wanted[key])
    });
    if !up_to_date || !library.exists() {
        eprintln!("building {} {version} …", recipe.name);
        let _ = fs::remove_file(&record_file);
        build::library(recipe, source, &here.join("target/objects").join(recipe.name), &library)?;
    }
    build::check_exports(&library)?;
    build::check_preload(&library)?;
    fs::write(&record_file, format!("{wanted:#}\n"))
        .map_err(|e| format!("failed to write {}: {e}", record_file.display()))?;
    Ok(format!("{:10} {:8} {} [{}]", recipe.name, version, library.display(), recipe.flags()))
}

/// The packages that the lockfile names, with the folders their sources lie in.
fn packages(here: &Path) -> Result<Vec<Value>, String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--all-features", "--locked"]);
    command.arg("--manifest-path").arg(here.join("Cargo.toml"));
    let text = build::output(&mut command)?;
    let metadata: Value =
        text.parse().map_err(|e| format!("failed to understand cargo metadata: {e}"))?;
    metadata["packages"].as_array().cloned().ok_or_else(|| "cargo metadata has no packages".into())
}

/// `peers.json`: what every library in the folder is, those of earlier calls included.
fn write_record(recipes: &[Recipe], out: &Path) -> Result<(), String> {
    let records: Vec<Value> = recipes
        .iter()
        .filter_map(|recipe| fs::read_to_string(out.join(format!("{}.json", recipe.name))).ok())
        .filter_map(|text| text.parse().ok())
        .collect();
    let path = out.join("peers.json");
    let text = format!("{:#}\n", json!({ "peers": records }));
    fs::write(&path, text).map_err(|e| format!("failed to write {}: {e}", path.display()))
}

//! Programs of a user's own under an allocator that is preloaded.

use std::fs;
use std::os::unix::fs::symlink;

use crate::common::run;

#[test]
fn a_library_in_a_cache_behind_a_symbolic_link_is_seen_to_get_in() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("elsewhere")).unwrap();
    symlink("elsewhere", home.path().join("cache")).unwrap();
    let args = ["run", "--exec", "true", "-a", "ours", "--runs", "1"];
    let (code, stdout, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(home.path().join("elsewhere/bench-cli").is_dir(), "it lies behind the link");
}

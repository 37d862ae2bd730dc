#!/bin/sh
# repository.sh FOLDER: a bare git repository of 120 commits over 300 files, the same each time.
# Its gc looks at 60 objects around each, not at 250, so that it takes about a second.
set -eu
git init --quiet --bare "$1"
git -C "$1" config gc.aggressiveWindow 60
awk 'BEGIN {
  for (c = 1; c <= 120; c++) {
    printf "commit refs/heads/main\nmark :%d\n", c
    printf "committer A Writer <writer@example.org> %d +0000\ndata 9\ncommit 00\n", 1700000000 + c
    if (c > 1) printf "from :%d\n", c - 1
    for (k = 0; k < 12; k++) {
      f = (c * 37 + k * 101) % 300
      text = ""
      for (l = 0; l < 150; l++) {
        version = (l * 13 + f) % 150 < c % 150 ? c : 0
        text = text "line " l " of file " f " as of " version " " (l * f * 7919 + version) % 999983 "\n"
      }
      printf "M 644 inline folder%d/file%d.txt\ndata %d\n%s\n", f % 17, f, length(text), text
    }
  }
}' | git -C "$1" fast-import --quiet

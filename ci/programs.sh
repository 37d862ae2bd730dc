#!/usr/bin/env bash
# Measures real programs under ours, the system's malloc and every peer that ci/peers built, and
# writes docs/programs.md. Takes a quarter of an hour at the defaults; leave the machine alone
# meanwhile. A program that is not installed is skipped, and the page says so.
#
#   ci/programs.sh                          9 rounds of every program
#   RUNS=3 PROGRAMS='gcc sqlite3' ci/programs.sh
#   MEASURE='taskset -c 0,1' ci/programs.sh  puts a command in front of each program's measurement
#
# Peers: cargo run --release --manifest-path ci/peers/Cargo.toml
set -euo pipefail
cd "$(dirname "$0")/.."
folder=target/programs runs=${RUNS:-9}
chosen=${PROGRAMS:-redis python-objects python-strings python-dicts python-malloc gcc sqlite3 git-gc}
read -ra measure <<< "${MEASURE-}"
peers=ci/peers/target/lib
[[ -e $peers/peers.json ]] || {
  echo "error: no peers in $peers" >&2
  echo "  help: build them: cargo run --release --manifest-path ci/peers/Cargo.toml" >&2
  exit 2
}
libc=$(ldd /bin/sh | sed -n 's/.*libc\.so\.6 => \([^ ]*\) .*/\1/p')
[[ -n $libc ]] || { echo "error: the C library is not found by \`ldd /bin/sh\`" >&2; exit 2; }

echo "building ours" >&2
cargo build --quiet --release --package bench-cli
allocators=ours,$libc
for library in "$peers"/lib*.so; do allocators+=,$library; done
rm -rf "$folder"
mkdir -p "$folder"

# A wrapper script in front of an interpreter would be measured with it.
if command -v python3 >/dev/null; then
  PATH=$(python3 -c 'import os, sys; print(os.path.dirname(os.path.realpath(sys.executable)))'):$PATH
fi

# program FOLDER NAME PROGRAMS-IT-NEEDS VERSION-COMMAND COMMAND
program() {
  local place=$1 name=$2 needs=$3 version=$4 command=$5 need status=0
  if [[ " $chosen " != *" $place "* ]]; then return 0; fi
  for need in $needs; do
    command -v "$need" >/dev/null || {
      echo "not installed, left out: $need" >&2
      printf '%s\t%s\tmissing\n' "$place" "$name" >> "$folder/index.tsv"
      return 0
    }
  done
  echo "measuring $name" >&2
  if [[ $place == gcc ]]; then ci/programs/large.sh > "$folder/large.c"; fi
  if [[ $place == git-gc ]]; then
    ci/programs/repository.sh "$folder/repository"
    # From the second time on a gc finds what it leaves.
    git -C "$folder/repository" gc --aggressive --quiet
  fi
  "${measure[@]}" target/release/bench-cli run --exec "$command" -a "$allocators" --runs "$runs" \
    --quiet --out "$folder/$place" >&2 || status=$?
  # 6: a peer failed, which the page says.
  if ((status != 0 && status != 6)); then exit "$status"; fi
  printf '%s\t%s\t%s\n' "$place" "$name" "$(eval "$version" | head -1)" >> "$folder/index.tsv"
}

program redis 'redis-server, loaded by redis-benchmark' 'redis-server redis-benchmark redis-cli' \
  "redis-server --version | grep -o 'v=[0-9.]*' | cut -c3-" 'ci/programs/redis.sh'
python='python3 -c "import platform; print(platform.python_version())"'
program python-objects 'python3, objects' python3 "$python" 'python3 ci/programs/objects.py'
program python-strings 'python3, strings' python3 "$python" 'python3 ci/programs/strings.py'
program python-dicts 'python3, dictionaries and JSON' python3 "$python" 'python3 ci/programs/dicts.py'
program python-malloc 'python3, dictionaries, every object by malloc' python3 "$python" \
  'env PYTHONMALLOC=malloc python3 ci/programs/dicts.py'
program gcc 'gcc -O1, one large file' gcc 'gcc -dumpfullversion' "gcc -O1 -S -o /dev/null $folder/large.c"
program sqlite3 'sqlite3, indexes and sorts' sqlite3 "sqlite3 --version | cut -d' ' -f1" \
  "sqlite3 :memory: '.read ci/programs/tables.sql'"
program git-gc 'git gc --aggressive' git "git --version | grep -o '[0-9.]*'" \
  "git -C $folder/repository gc --aggressive --quiet"

[[ -e $folder/index.tsv ]] || { echo "error: PROGRAMS names none of them: $chosen" >&2; exit 2; }
said="RUNS=$runs"
for name in PROGRAMS MEASURE; do
  if [[ -n ${!name-} ]]; then said+=" $name='${!name}'"; fi
done
cargo ci programs "$folder" "$peers/peers.json" "$said ci/programs.sh" > "$folder/programs.md"
mv "$folder/programs.md" docs/programs.md
echo "written: docs/programs.md" >&2

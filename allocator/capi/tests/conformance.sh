#!/bin/bash
# Other people's conformance tests, against our library: gnulib's seven allocator tests and the portable part of
# glibc's malloc/tst-*. Their sources come from Debian's packages and are never kept here.
#
#     conformance.sh LIBRARY.so [FOLDER]
#
# FOLDER holds the packages and programs and may be reused (default: a temporary one, removed at the end).
# Exit: 0 every test passed, 1 some failed (named), 2 usage, 77 the packages cannot be had here (skipped).
set -euo pipefail

library=${1:-}
if [ -z "$library" ] || [ ! -r "$library" ]; then
    echo "usage: $0 LIBRARY.so [FOLDER]" >&2
    exit 2
fi
library=$(realpath "$library")
if [ $# -ge 2 ]; then
    mkdir -p "$2"
    folder=$(realpath "$2")
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
cd "$folder"

fetch() { # PACKAGE: unpacked into ./PACKAGE
    if [ -d "$1" ]; then return; fi
    if apt-get download "$1" >fetch.log 2>&1 && dpkg -x "$1"_*.deb "$1"; then return; fi
    echo "skipped: the Debian package $1 cannot be had: $(tail -n 1 fetch.log)"
    exit 77
}

passed=0
failed=()
# NAME SECONDS PROGRAM...: runs it preloaded, in a session of its own whose processes are killed afterwards, for forked
# children outlive a timeout. 0 passes; 77 is the test's own way to say that it does not apply.
try() {
    local name=$1 seconds=$2 code=0
    shift 2
    setsid --wait bash -c 'echo $$ >group; exec timeout --foreground -k 5 "$@"' - "$seconds" \
        env LD_PRELOAD="$library" "$@" >"$name.out" 2>&1 </dev/null || code=$?
    kill -KILL -- "-$(cat group)" 2>/dev/null || true # usually nobody is left
    case $code in
    0) passed=$((passed + 1)) ;;
    77) echo "  $name: does not apply: $(tail -n 1 "$name.out")" ;;
    *)
        failed+=("$name")
        echo "  $name: exit $code: $(tail -n 3 "$name.out" | tr '\n' ' ')"
        ;;
    esac
}

# --- gnulib: errno of free, ENOMEM beyond PTRDIFF_MAX, alignments --------------------------------------------------
fetch gnulib
gnulib=$folder/gnulib/usr/share/gnulib
mkdir -p gnulib-programs && cd gnulib-programs
: >config.h
for name in free malloc-gnu calloc-gnu realloc-gnu aligned_alloc posix_memalign memalign; do
    gcc -w -fno-builtin -DHAVE_ALIGNED_ALLOC=1 -DHAVE_POSIX_MEMALIGN=1 -DHAVE_MEMALIGN=1 -I. -I"$gnulib/lib" \
        -I"$gnulib/tests" "$gnulib/tests/test-$name.c" -o "test-$name"
done
echo "gnulib, the 7 allocator tests:"
# From the program's own folder, or test-free leaves out what it does at the limit of mappings. Twenty runs of it,
# since it depends on where the kernel puts mappings.
for round in $(seq 20); do try "test-free.$round" 60 ./test-free; done
for name in malloc-gnu calloc-gnu realloc-gnu aligned_alloc posix_memalign memalign; do
    try "test-$name" 60 "./test-$name"
done
cd ..

# --- glibc 2.36: malloc/tst-*, each with the harness of support/ ------------------------------------------------------
# Left out, and why:
excluded="
tst-alloc_buffer        types internal to glibc, no malloc
tst-dynarray            types internal to glibc, no malloc
tst-dynarray-fail       types internal to glibc, no malloc
tst-dynarray-at-fail    types internal to glibc, no malloc
tst-scratch_buffer      types internal to glibc, no malloc
tst-compathooks-off     hooks of glibc's own malloc
tst-compathooks-on      hooks of glibc's own malloc
tst-mtrace              hooks of glibc's own malloc
tst-mallocstate         malloc_get_state of glibc's own malloc
tst-interpose-.*        bring a malloc of their own
tst-malloc-usable.*     MALLOC_CHECK_ of glibc's debug library; fail with plain glibc too
tst-malloc-tcache-leak  reads glibc's thread caches in mallinfo
tst-malloc-backtrace    expects the abort of glibc's own check of its top chunk
tst-tcfree[12]          expect an abort on a double free, which is what the hardened library is for
tst-safe-linking        glibc's encoding of its free lists
"
fetch glibc-source
glibc=$folder/glibc-2.36
if [ ! -d "$glibc" ]; then
    tar xf glibc-source/usr/src/glibc/glibc-2.36.tar.xz --wildcards 'glibc-2.36/malloc/*' 'glibc-2.36/support/*' \
        'glibc-2.36/include/*' glibc-2.36/test-skeleton.c
fi
mkdir -p glibc-programs/objects && cd glibc-programs
# What the harness wants from glibc's own build.
: >config.h
: >libc-symbols.h
: >shlib-compat.h
cp "$glibc/include/array_length.h" .
cat >libc-diag.h <<'END'
#define DIAG_PUSH_NEEDS_COMMENT _Pragma("GCC diagnostic push")
#define DIAG_POP_NEEDS_COMMENT _Pragma("GCC diagnostic pop")
#define DIAG_IGNORE_NEEDS_COMMENT(version, option)
#define DIAG_IGNORE_Os_NEEDS_COMMENT(version, option)
#define DIAG_IGNORE_O_NEEDS_COMMENT(version, option)
END
cat >malloc-size.h <<'END'
#include <stddef.h>
#define INTERNAL_SIZE_T size_t
#define SIZE_SZ (sizeof(size_t))
#define MALLOC_ALIGNMENT 16
#define MALLOC_ALIGN_MASK (MALLOC_ALIGNMENT - 1)
END
flags="-w -fno-builtin -D_GNU_SOURCE -DTIMEOUTFACTOR=4 -DNAME_MAX=255 -I. -I$glibc -I$glibc/support"
flags="$flags -idirafter $gnulib/lib"
for macro in $(grep -o '[A-Z_]*_PATH' "$glibc/support/support_paths.c" | sort -u); do
    flags="$flags -D$macro=\"/\""
done
if [ ! -e support.a ]; then
    for source in "$glibc"/support/*.c; do
        name=$(basename "$source" .c)
        case $name in test-driver | test-container | *-main | tst-*) continue ;; esac
        # Some need more of glibc than the tests do: they are left out of the archive.
        gcc $flags -c "$source" -o "objects/$name.o" 2>/dev/null || true
    done
    ar rc support.a objects/*.o
fi
echo "glibc 2.36, malloc/tst-*:"
for source in "$glibc"/malloc/tst-*.c; do
    name=$(basename "$source" .c)
    reason=""
    while read -r pattern why; do
        if [ -n "$pattern" ] && [[ $name =~ ^${pattern}$ ]]; then reason=$why; fi
    done <<<"$excluded"
    if [ -n "$reason" ]; then continue; fi
    if [ ! -x "$name" ] && ! gcc $flags "$source" -o "$name" support.a -lpthread -ldl -lm 2>"$name.log"; then
        failed+=("$name")
        echo "  $name: does not compile: $(grep -m 1 -E 'error|undefined' "$name.log")"
        continue
    fi
    try "$name" 180 "./$name"
done

echo "$passed passed, ${#failed[@]} failed"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[*]}"
    exit 1
fi

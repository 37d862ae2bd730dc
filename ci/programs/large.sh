#!/bin/sh
# Prints a large C file: structures, tables, loops and switches, all of them used.
awk 'BEGIN {
  print "#include <stdint.h>\nstruct node { struct node *next; uint64_t key; char name[24]; };"
  for (n = 0; n < 120; n++) {
    printf "static const int table%d[16] = {", n
    for (i = 0; i < 16; i++) printf "%d,", (n * 31 + i * 17) % 1009
    print "};"
    printf "uint64_t work%d(struct node *list, uint64_t seed) {\n  uint64_t sum = seed;\n", n
    print "  for (struct node *node = list; node; node = node->next) {\n    switch (node->key & 15) {"
    for (i = 0; i < 16; i++)
      printf "    case %d: sum += table%d[(sum + %d) & 15] * node->name[%d]; break;\n", i, n, i, (n + i) % 24
    print "    }\n    for (int i = 0; i < 16; i++) sum = (sum << 3 ^ sum >> 7) + node->name[i];\n  }"
    if (n > 0) printf "  if (sum & 1) sum += work%d(list, sum >> 1);\n", n - 1
    print "  return sum;\n}"
  }
}'

"""String-heavy: text is made, split, counted, joined, replaced and kept in pieces of all lengths."""

import re

words = [f"w{(n * 48271) % 65537:x}" for n in range(20_000)]
kept, total = [], 0
for turn in range(200):
    text = " ".join(words[turn::3])
    pieces = [piece.upper() + piece for piece in text.split()]
    text = "".join(pieces).replace("W1", "<one>").replace("A", "alpha")
    total += sum(len(match) for match in re.findall(r"[a-f]+[0-9]{2,}", text))
    for length in (40, 200, 1000, 5000, 25_000):
        kept += [text[at : at + length] for at in range(0, len(text) - length, length)]
    if len(kept) > 20_000:
        kept = kept[::2]
    grown = ""
    for piece in pieces[:4000]:
        grown += piece
    total += len(grown) + len(text.encode())
print(total, len(kept))

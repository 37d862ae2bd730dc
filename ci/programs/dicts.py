"""Dictionaries and JSON: documents are built, dumped, loaded, grouped and merged."""

import json


def document(number):
    return {
        "id": number,
        "name": f"customer {number}",
        "orders": [
            {"sku": f"s{(number * 31 + n) % 997}", "count": n, "price": n * 1.25} for n in range(8)
        ],
        "address": {"street": f"street {number % 301}", "lines": [str(number)] * (number % 5)},
    }


by_sku, total = {}, 0
for turn in range(5):
    documents = [document(turn * 5000 + n) for n in range(5000)]
    text = json.dumps(documents)
    for entry in json.loads(text):
        for order in entry["orders"]:
            by_sku.setdefault(order["sku"], {})[entry["id"]] = order
    total += len(text)
merged = {}
for sku, orders in by_sku.items():
    merged |= {(sku, number): order["price"] for number, order in orders.items()}
print(total, len(merged), sum(merged.values()))

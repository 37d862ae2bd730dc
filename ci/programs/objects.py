"""Object-heavy: a tree with parents is built, rebalanced by rotation, walked and dropped, many times."""


class Node:
    __slots__ = ("key", "left", "right", "parent", "weight")

    def __init__(self, key, parent):
        self.key, self.parent, self.left, self.right = key, parent, None, None
        self.weight = (key * 2654435761) & 0xFFFFFFFF


class Record:
    def __init__(self, number):
        self.number = number
        self.name = f"record {number}"
        self.tags = [number % 7, float(number), (number, number + 1)]
        self.next = None


def insert(root, key):
    if root is None:
        return Node(key, None)
    node = root
    while True:
        side = "left" if key < node.key else "right"
        child = getattr(node, side)
        if child is None:
            setattr(node, side, Node(key, node))
            return root
        node = child


def walk(root):
    total, stack = 0, [root]
    while stack:
        node = stack.pop()
        if node is not None:
            total += node.weight
            stack += (node.left, node.right)
    return total


def chain(length):
    head = None
    for number in range(length):
        record = Record(number)
        record.next = head
        head = record
    total = 0
    while head is not None:
        total += len(head.name) + head.tags[0]
        head = head.next
    return total


checksum, key = 0, 1
for _ in range(9):
    root = None
    for _ in range(20_000):
        key = (key * 1103515245 + 12345) & 0x7FFFFFFF
        root = insert(root, key)
    checksum += walk(root) + chain(60_000)
print(checksum)

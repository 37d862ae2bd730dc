-- Tables with indexes in memory: inserted, sorted, joined, grouped, updated and deleted.
PRAGMA temp_store = MEMORY;
CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER, name TEXT, price REAL, body TEXT);
INSERT INTO item
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
  SELECT i, i * 7919 % 1009, 'item ' || (i * 48271 % 99991), i * 48271 % 10007 / 7.0,
         substr('abcdefghijklmnopqrstuvwxyz0123456789', 1 + i % 20) || i FROM n;
CREATE INDEX item_name ON item(name, price);
CREATE INDEX item_group ON item(grp);
SELECT count(*), sum(length(body)) FROM (SELECT body FROM item ORDER BY body DESC, price);
SELECT count(*), round(sum(total), 3) FROM
  (SELECT grp, sum(price) AS total, group_concat(name) AS names FROM item GROUP BY grp ORDER BY total);
SELECT count(*) FROM item AS a JOIN item AS b ON a.name = b.name AND a.id < b.id;
UPDATE item SET body = body || name WHERE grp % 3 = 0;
DELETE FROM item WHERE id % 5 = 0;
SELECT count(DISTINCT body), max(price), min(name) FROM item;

create table sales (sale_id integer primary key, item text, pieces integer, email text, sold_at text);
insert into sales values
  (1, 'apple', 3, 'ann@example.com', '2026-03-01 09:00:00'),
  (2, 'apple', 1, 'bob@example.com', '2026-03-01 10:30:00'),
  (3, 'bread', 2, null,              '2026-03-01 12:00:00');

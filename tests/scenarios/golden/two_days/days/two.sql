update sales set pieces = 4, sold_at = '2026-03-02 08:00:00' where sale_id = 3;
insert into sales values (4, 'cheese', 1, 'ann@example.com', '2026-03-02 09:15:00');

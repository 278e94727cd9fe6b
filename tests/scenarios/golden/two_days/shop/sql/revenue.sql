select s.item, sum(s.pieces * p.price) as revenue
from bronze.sales s
join bronze.prices p using (item)
where s._is_current and p._is_current
group by s.item

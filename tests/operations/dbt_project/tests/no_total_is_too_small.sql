-- Fails where someone has spent less than the variable says.
select customer, total
from {{ ref('totals') }}
where total < {{ var('least_total') }}

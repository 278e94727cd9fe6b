select customer, total
from {{ ref('totals') }}
where total > 50

select customer, total / sum(total) over () as share
from {{ source('shop', 'revenue') }}

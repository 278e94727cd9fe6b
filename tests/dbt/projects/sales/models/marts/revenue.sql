{{ config(tags=['daily']) }}
select c.name as customer, sum(o.amount * r.rate) as total
from {{ ref('stg_orders') }} as o
inner join {{ source('shop', 'customers') }} as c on c.customer_id = o.customer_id
cross join {{ ref('rates') }} as r
group by c.name

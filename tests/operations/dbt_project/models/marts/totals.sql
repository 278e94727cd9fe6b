-- What each customer has spent.
select
    c.name as customer,
    cast(count(*) as bigint) as orders,
    sum(o.amount) as total
from {{ ref('stg_orders') }} as o
inner join {{ source('shop', 'customers') }} as c using (customer_id)
group by c.name

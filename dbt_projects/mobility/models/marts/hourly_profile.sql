-- What a usual hour looks like, on working days and on days off.
select
    day_type,
    hour_of_day,
    cast(count(*) as integer) as hours_counted,
    round(avg(casual), 2) as mean_casual,
    round(avg(registered), 2) as mean_registered,
    round(avg(rides), 2) as mean_rides
from {{ ref('stg_rides_weather') }}
group by day_type, hour_of_day
order by day_type, hour_of_day

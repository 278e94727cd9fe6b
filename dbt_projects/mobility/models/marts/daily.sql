-- Rides of each day, and the day's mean temperature over the hours that have one.
select
    ride_date,
    max(day_type) as day_type,
    max(season) as season,
    cast(count(*) as integer) as hours_counted,
    cast(sum(casual) as bigint) as casual,
    cast(sum(registered) as bigint) as registered,
    cast(sum(rides) as bigint) as rides,
    round(avg(temperature_c), 2) as mean_temperature_c
from {{ ref('stg_rides_weather') }}
group by ride_date
order by ride_date

-- Rides in each weather against the usual rides of the same hour and kind of day,
-- so that rain at night is not compared with sunshine at noon.
with usual as (
    select
        day_type,
        hour_of_day,
        avg(rides) as usual_rides
    from {{ ref('stg_rides_weather') }}
    group by day_type, hour_of_day
)

select
    hours.weather,
    cast(count(*) as integer) as hours_counted,
    cast(sum(hours.rides) as bigint) as rides,
    round(avg(hours.rides), 2) as mean_rides,
    round(avg(usual.usual_rides), 2) as usual_rides,
    round(sum(hours.rides) / sum(usual.usual_rides), 4) as ratio_to_usual
from {{ ref('stg_rides_weather') }} as hours
inner join usual
    on hours.day_type = usual.day_type and hours.hour_of_day = usual.hour_of_day
group by hours.weather
order by hours.weather
